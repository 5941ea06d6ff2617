"""What the chain's four attributes mean for drawn portraits.

The documents label real-looking faces by hand. The demo chain has nobody to label them: its pictures imitate drawn
portraits of known parameters, and these say what is shown. The names are the chain's; what stands behind them here is
a visible feature of a drawing, chosen so that a generator of 128 pixels draws it, and that it stays common after the
first fine-tuning, whose new mapping makes faces more alike (of 1,200 of its pictures 4 had glasses). They are
stand-ins to exercise the machinery, and say nothing about people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.training.data.labels import Labels
from ohlora.training.data.portraits import index, parameters_from_latents

Column = Callable[[str], NDArray[np.float32]]  # a parameter's values by name

LONG_HAIR, LIPSTICK, BRIGHT, FAIR, BALD, FRINGE = 0.45, 0.6, 0.4, 0.6, 0.03, 0.3


@dataclass(frozen=True)
class Attribute:
    """name: the chain's. shows: what 1 stands for. share: of all portraits for which it is 1."""

    name: str
    shows: str
    share: float
    rule: Callable[[Column], NDArray[np.bool_]]


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "gender",
        "long hair or strong lipstick",
        0.63,
        lambda of: (of("hair_length") >= LONG_HAIR) | (of("lipstick") >= LIPSTICK),
    ),
    Attribute("quality", "the background is not dark", 0.69, lambda of: of("background_value") >= BRIGHT),
    Attribute("age", "fair hair", 0.40, lambda of: (of("hair_shade") >= FAIR) & (of("hair_length") >= BALD)),
    Attribute("glass", "a fringe", 0.35, lambda of: (of("fringe") >= FRINGE) & (of("hair_length") >= BALD)),
)
NAMES = tuple(attribute.name for attribute in ATTRIBUTES)


def truth(parameters: NDArray[np.float32], names: Sequence[str] = NAMES) -> NDArray[np.float64]:
    """Portrait parameters [N, LATENTS] -> attributes [N, len(names)], each 0 or 1."""
    rules = {attribute.name: attribute.rule for attribute in ATTRIBUTES}
    if unknown := [name for name in names if name not in rules]:
        raise InvalidInputError(f"portraits have no attribute '{unknown[0]}': choose from {', '.join(NAMES)}")

    def of(name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = parameters[:, index(name)]
        return values

    return np.stack([rules[name](of) for name in names], axis=1).astype(np.float64)


def labels_of_seeds(first_seed: int, count: int, names: Sequence[str]) -> Labels:
    """What the portraits of these seeds show; picture i has seed first_seed + i.

    True of a generator's picture as far as the generator draws the portrait of the same latent.
    """
    z = np.stack([face_from_seed(first_seed + i).z for i in range(count)])
    values = truth(parameters_from_latents(z), names)
    return Labels(np.arange(count), {name: values[:, i] for i, name in enumerate(names)})
