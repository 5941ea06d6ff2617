"""Property scores of a face from its class map and its picture (docs/spec/properties.md; hairstyle:
docs/spec/cnn.md, section 8).

    scores = score(parsing, images, algorithm="v2")   # [N,7], one column for each of PROPERTIES
    z = normalize(scores)                             # z-scores over these N pictures

Three forms behind the same functions: `reference` (NumPy, the definition), `cpu` (Numba) and `cuda` (Numba-CUDA, for
arrays on a device). They agree bit for bit: every statistic is a sum of integers that is divided once. The hairstyle
alone is a mean of fractions, which a device adds up in an order of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohlora.kernels.choices import Algorithm, Backend, backend_module, check, check_threads
from ohlora.kernels.gpu.arrays import DeviceArray, lies_on_device
from ohlora.kernels.properties.classes import CLASSES, HAIR, SIZE
from ohlora.kernels.threads import for_each

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ALGORITHMS", "CLASSES", "HAIR", "PROPERTIES", "SIZE", "normalize", "score", "statistics"]

PROPERTIES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std")
# Columns of each algorithm's result.
ALGORITHMS: dict[Algorithm, tuple[str, ...]] = {"v1": PROPERTIES, "v2": PROPERTIES, "hairstyle": ("hairstyle",)}
Bytes = NDArray[np.uint8]
# Handing a task over takes about as long as scoring a picture.
PICTURES_PER_TASK = 16


class _Options(TypedDict, total=False):
    algorithm: Algorithm
    backend: Backend
    threads: int | None
    strict_hairstyle: bool
    stream: Any


@overload
def score(parsing: Bytes, images: Bytes, **options: Unpack[_Options]) -> NDArray[np.float64]: ...
@overload
def score(parsing: DeviceArray, images: DeviceArray, **options: Unpack[_Options]) -> DeviceArray: ...
def score(
    parsing: Any,
    images: Any,
    *,
    algorithm: Algorithm = "v2",
    backend: Backend = "auto",
    threads: int | None = None,
    strict_hairstyle: bool = False,
    stream: Any = None,
) -> NDArray[np.float64] | DeviceArray:
    """Raw scores: float64 [N,7] in the order of PROPERTIES, [N,1] for algorithm "hairstyle".

    parsing: uint8 [N,224,224], classes 0..10 (docs/parsing.md). images: uint8 [N,224,224,3], RGB or BGR alike, since
    channels are averaged: for "v2" and "hairstyle" the face that the map was made of; for "v1" the original picture
    resized to 224x224 (documented so, though it does not lie on the map).
    threads: pictures in parallel (cpu only), default the usable cores; results never depend on it.
    strict_hairstyle: a position counts when all 16 pixels of its four blocks are hair, as the documents say; the code
    that made the published scores looks at eight single pixels, which is the default.
    stream: of a device, an address or any library's stream; default the one that `parsing`'s library is on. Arrays on a
    device give an array on it, for which nothing waits; an unknown class makes its row NaN there.

    NaN where a score does not exist: v1 hair colour and length without hair, v1 pose of a nose that is missing or a
    straight line along one axis, v2 pose of eyes at the same column. Raises ValueError for other shapes, sizes,
    dtypes, classes and names.
    """
    check("algorithm", algorithm, tuple(ALGORITHMS))
    if strict_hairstyle and algorithm != "hairstyle":
        raise ValueError(f"strict_hairstyle belongs to algorithm 'hairstyle', got {algorithm!r}")
    check_threads(threads)
    if backend == "cuda" or (backend == "auto" and lies_on_device(parsing)):
        cuda = backend_module("properties", "cuda")
        return cast(DeviceArray, cuda.score(parsing, images, algorithm, strict_hairstyle, stream=stream))
    _check("parsing", parsing, (SIZE, SIZE))
    _check("images", images, (SIZE, SIZE, 3))
    if len(parsing) != len(images):
        raise ValueError(f"{len(parsing)} maps and {len(images)} images: one image for each map is needed")
    out = np.empty((len(parsing), len(ALGORITHMS[algorithm])), dtype=np.float64)
    highest = np.zeros(len(parsing), dtype=np.uint8)
    form = backend_module("properties", backend)

    def part(task: int) -> None:
        rows = slice(task * PICTURES_PER_TASK, (task + 1) * PICTURES_PER_TASK)
        form.score(parsing[rows], images[rows], algorithm, strict_hairstyle, out[rows], highest[rows])

    for_each(part, -(-len(parsing) // PICTURES_PER_TASK), parsing.size, threads)
    if (highest >= CLASSES).any():
        wrong = int(np.argmax(highest >= CLASSES))
        raise ValueError(f"map {wrong} holds class {highest[wrong]}: classes are 0 to {CLASSES - 1} (10 is hair)")
    return out


def statistics(scores: ArrayLike, *, ddof: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column of [N,C], without NaN: float64 [C] each.

    A constant column deviates by exactly 0; one with no value has neither, one with `ddof` values no deviation (NaN).
    Raises ValueError for another ddof than 0 and 1, infinite scores, other shapes.
    """
    values = _scores(scores)
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")
    mean, deviation = np.full((2, values.shape[1]), np.nan)
    for column, row in enumerate(values.T):
        known = row[~np.isnan(row)]
        if len(known):
            mean[column] = known.mean()
        if len(known) > ddof:
            # The mean of equal numbers can miss them by a bit, and would then make a deviation out of nothing.
            deviation[column] = 0.0 if known.min() == known.max() else known.std(ddof=ddof)
    return mean, deviation


def normalize(
    scores: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    ddof: int = 1,
    decimals: int | None = 4,
) -> NDArray[np.float64]:
    """(score - mean) / std per column, rounded half to even (docs/spec/properties.md, section 6).

    scores: [N,C], or [N] of one property; the result has that shape. mean, std: [C] of another run, both or neither;
    by default those of `scores`. ddof: 1 as in all published tables; 0 as in the documents' worked example.
    decimals: None leaves the result unrounded. NaN stays NaN, and a column that does not vary becomes NaN.
    Raises ValueError for one of mean and std alone, other shapes, and as `statistics`.
    """
    values = _scores(scores)
    columns = values.shape[1]
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both or neither")
    found_mean, found_std = statistics(values, ddof=ddof)
    if mean is not None:
        found_mean, found_std = (np.asarray(v, np.float64).reshape(-1) for v in (mean, std))
        if len(found_mean) != columns or len(found_std) != columns:
            raise ValueError(
                f"mean and std must have {columns} values each, got {len(found_mean)} and {len(found_std)}"
            )
        if (found_std < 0).any():
            raise ValueError(f"std must not be negative, got {found_std.min():g}")
    divisor = np.where(found_std > 0, found_std, np.nan)
    z = (values - found_mean) / divisor
    if decimals is not None:
        # Not np.round: it rounds value * 10000, which is another number.
        z = np.array([v if math.isnan(v) else round(v, decimals) for v in z.ravel().tolist()]).reshape(z.shape)
    return z.reshape(np.shape(scores)).astype(np.float64, copy=False)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(f"scores must be [N,C] or [N], got shape {values.shape}")
    if np.isinf(values).any():
        raise ValueError("scores must be finite or NaN, got an infinite one")
    return values if values.ndim == 2 else values[:, None]


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape[1:] != shape:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} must be a uint8 array [N,{','.join(map(str, shape))}], got {got}")
