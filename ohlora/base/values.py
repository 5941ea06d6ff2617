"""Small frozen value objects: what a portrait is made from. Validated once, trusted afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.recipe import is_finite
from ohlora.base.text import shown
from ohlora.errors import InvalidInputError

Z_SIZE, LABEL_SIZES = 512, (0, 3, 7)
MAX_SEED = 2**63 - 1
PROPERTIES = ("eyes", "mouth", "pose")
# Published faces stay in character up to about 1.8; far beyond, the generator leaves its data.
EXPRESSION_LIMIT = 10.0


def _number(owner: str, name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidInputError(f"{owner}.{name} must be a number in [{low:g}, {high:g}], got {value!r}")
    if not is_finite(value) or not low <= value <= high:
        got = f"{value:g}" if isinstance(value, float | np.floating) else shown(value)
        raise InvalidInputError(f"{owner}.{name} must be in [{low:g}, {high:g}], got {got}")
    return float(value)


def random_stream(key: Mapping[str, int], stream: int = 0) -> np.random.Generator:
    """The random numbers of one or two whole numbers, by name: of a Philox counter, so that they depend on these alone.

    stream: keeps what is drawn for one purpose apart from what is drawn for another. Raises InvalidInputError naming a
    number that is not in [0, 2**63 - 1].
    """
    for name, value in key.items():
        if isinstance(value, bool) or not 0 <= value <= MAX_SEED:
            raise InvalidInputError(f"{name} must be in [0, {MAX_SEED}], got {value}")
    words = np.array([*key.values(), 0][:2], dtype=np.uint64)
    counter = np.array([0, 0, stream, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words, counter=counter))


@dataclass(frozen=True, slots=True)
class Ombre:
    """A hair dye. All three in [0, 1] (docs/spec/ombre.md, section 1).

    color: hue; 0 red, 0.1 orange, 0.5 sky blue, 0.9 pink, 1 red again.
    height: share of the hair's height, from the bottom, that is dyed.
    grad_height: share of the dyed part, from its top, over which the dye fades in.
    """

    color: float
    height: float = 0.7
    grad_height: float = 0.5

    def __post_init__(self) -> None:
        for name in ("color", "height", "grad_height"):
            object.__setattr__(self, name, _number("Ombre", name, getattr(self, name), 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Expression:
    """Strengths of the latent directions; 0 leaves the face as it is (docs/spec/runtime.md, section 3).

    Published directions point the other way round: negative = wider eyes, wider mouth, head turned further.
    """

    eyes: float = 0.0
    mouth: float = 0.0
    pose: float = 0.0

    def __post_init__(self) -> None:
        for name in PROPERTIES:
            value = _number("Expression", name, getattr(self, name), -EXPRESSION_LIMIT, EXPRESSION_LIMIT)
            object.__setattr__(self, name, value)

    @property
    def neutral(self) -> bool:
        return self.eyes == 0.0 and self.mouth == 0.0 and self.pose == 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """Who is shown. z: float32 [512]; label: float32 [0, 3 or 7]; name: unique inside a job, used in file names.

    group: the direction group of the face ("hhl" ...), needed for expressions; None when it has none.
    source: where it came from ("seed:17", "ohlora_z_vectors.csv#3"), written to the metadata.
    """

    z: NDArray[np.float32]
    label: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    name: str = "face"
    group: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name, sizes in (("z", (Z_SIZE,)), ("label", LABEL_SIZES)):
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            if array.ndim != 1 or array.shape[0] not in sizes:
                raise InvalidInputError(
                    f"Face.{name} of '{self.name}' must be a vector of {' or '.join(map(str, sizes))} numbers, "
                    f"got shape {array.shape}"
                )
            if not np.isfinite(array).all():
                raise InvalidInputError(f"Face.{name} of '{self.name}' holds NaN or infinity")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
