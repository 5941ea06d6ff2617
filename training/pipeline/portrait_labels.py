"""What the chain's four attributes mean for drawn portraits, and a small network that reads them off a picture.

The documents label real-looking faces by hand. The demo chain has nobody to label them: its pictures imitate drawn
portraits of known parameters, and these say what is shown. The names are the chain's; what stands behind them here is
a visible feature of a drawing, chosen so that a generator of 128 pixels draws it, and that it stays common after the
first fine-tuning, whose new mapping makes faces more alike (of 1,200 of its pictures 4 had glasses). They are
stand-ins to exercise the machinery, and say nothing about people.

After the first fine-tuning the mapping is another one, so the portrait of a seed no longer says what its picture shows.
Then the network, trained on drawn portraits whose truth is known, does what a person does in the documents. Its labels
have its errors: the figures say how often it is right on portraits it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data.labels import Labels
from ohlora.training.data.portraits import index, parameters_from_seeds
from ohlora.training.directions.reader import Reader, disturbed, mirrored, paint_portraits, sample_parameters
from ohlora.training.directions.recipes import ReaderConfig
from ohlora.training.loop.fits import fit_rows

READ_AT_ONCE = 64
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
    values = truth(parameters_from_seeds(range(first_seed, first_seed + count)), names)
    return Labels(np.arange(count), {name: values[:, i] for i, name in enumerate(names)})


def train_labeller(
    config: ReaderConfig, note: Callable[[str], None] = lambda text: None
) -> tuple[Reader, dict[str, Any]]:
    """Paint portraits, train, judge on held-out ones -> (network, figures). One output per attribute of NAMES.

    Figures: accuracy and AUROC of every attribute.
    """
    parameters = sample_parameters(config.pictures + config.held_out, config.seed)
    images, labels = paint_portraits(parameters, config.size), truth(parameters)
    learned = torch.from_numpy(labels).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Reader(config.size, config.width, NAMES)

        def loss(rows: Tensor) -> Tensor:
            shown, _ = mirrored(network.prepared(images[rows.numpy()]))
            return F.binary_cross_entropy_with_logits(network(disturbed(shown)), learned[rows])

        fit_rows(
            network, loss, config.pictures, epochs=config.epochs, batch_size=config.batch_size,
            rate=config.learning_rate,
            report=lambda epoch, loss: note(f"labeller: epoch {epoch}/{config.epochs}, loss {loss:.4f}"),
        )  # fmt: skip
    share, right = shares(network, images[config.pictures :]), labels[config.pictures :]
    figures = {}
    for i, name in enumerate(NAMES):
        both = 0 < right[:, i].sum() < len(right)
        figures[name] = {
            "accuracy": float(((share[:, i] >= 0.5) == (right[:, i] >= 0.5)).mean()),
            "auroc": float(roc_auc_score(right[:, i], share[:, i])) if both else None,
        }
    return network, figures


def shares(network: Reader, images: Rgb) -> NDArray[np.float64]:
    """images uint8 [N,H,H,3] -> how sure the network is of each attribute, [N, len(NAMES)] in [0,1]."""
    return 1.0 / (1.0 + np.exp(-network.read(images)))


def shares_of_files(network: Reader, paths: list[Path]) -> NDArray[np.float64]:
    """The same for picture files, a few at a time."""
    parts = [
        shares(network, np.stack([read_image(path) for path in paths[i : i + READ_AT_ONCE]]))
        for i in range(0, len(paths), READ_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(NAMES)))
