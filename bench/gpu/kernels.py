"""The CUDA kernels of a renderer as measured things: what they compute, on what, and how many bytes they must move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import cuda

from ohlora.kernels.choices import Algorithm
from ohlora.kernels.gpu import images as pictures_cuda
from ohlora.kernels.gpu.arrays import Place, on
from ohlora.kernels.ombre import Dyes, HairMask, blend_ombre, hue_table, prepare_hair
from ohlora.kernels.ombre import cuda as ombre_cuda
from ohlora.kernels.properties import SIZE, score
from ohlora.kernels.properties.cuda import hairstyle_scratch
from ohlora.kernels.properties.cuda import score as device_score
from ohlora.photos.segmentation import resize_area

POISON = 0xA5


@dataclass(frozen=True)
class Inputs:
    """One set: pictures uint8 [N,R,R,3], hair maps float32 [N,224,224], parsing maps and faces of 224, dyes [N]."""

    images: np.ndarray
    hair: np.ndarray
    parsing: np.ndarray
    faces: np.ndarray
    color: np.ndarray
    height: np.ndarray
    grad_height: np.ndarray

    def part(self, start: int, stop: int) -> Inputs:
        return Inputs(*(getattr(self, entry.name)[start:stop] for entry in fields(self)))


def fresh(count: int, side: int, seed: int) -> Inputs:
    """Random pictures; heads of soft hair, a third of the picture, as finders give; face maps whose parts move."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    hair = np.empty((count, SIZE, SIZE), np.float32)
    parsing = np.zeros((count, SIZE, SIZE), np.uint8)
    for n in range(count):
        cx, cy, r = rng.uniform(0.45, 0.55), rng.uniform(0.4, 0.5), rng.uniform(0.3, 0.4)
        head = np.hypot(x - cx, (y - cy) / 1.4)
        edge = 1 / (1 + np.exp((head - r) * 60)) - 1 / (1 + np.exp((head - 0.6 * r) * 60))
        hair[n] = np.clip(1.08 * edge + 0.01 * rng.standard_normal((SIZE, SIZE)), 0, 1)
        parsing[n][head < r], parsing[n][head < 0.6 * r] = 10, 1
        for at, across, down, w, h in (
            (4, -0.1, -0.05, 14, 6), (5, 0.06, -0.05, 14, 6), (6, -0.02, 0.02, 9, 20), (7, -0.05, 0.16, 20, 3),
            (8, -0.05, 0.18, 20, 3), (9, -0.05, 0.2, 20, 4),
        ):  # fmt: skip
            top, left = int((cy + down) * SIZE), int((cx + across) * SIZE) + int(rng.integers(0, 6))
            parsing[n, top : top + h, left : left + w] = at
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    faces = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return Inputs(images, hair, parsing, faces, *rng.random((3, count)))


class DeviceInputs:
    """A set on the device, with poisoned outputs. All launches are on `place`'s stream and allocate nothing."""

    def __init__(self, host: Inputs, place: Place) -> None:
        self.host, self.place = host, place
        count, side = len(host.images), host.images.shape[1]
        up = cuda.to_device
        self.images, self.hair, self.parsing, self.faces = (
            up(array) for array in (host.images, host.hair, host.parsing, host.faces)
        )
        hue = (host.color * 360).astype(int) % 360
        dyes = Dyes(hue_table()[hue], host.height, host.grad_height)
        self.table = up(ombre_cuda.packed(dyes, count))
        self.sweep = up(ombre_cuda.packed(dyes, 1))  # all of them on picture 0
        self.rows = poisoned((count, *ombre_cuda.tiles((side, side))), np.int32)
        self.coverage = poisoned((count, side, side), np.float32)
        self.dyed = poisoned((count, side, side, 3), np.uint8)
        self.scores = poisoned((count, 7), np.float64)
        self.hairstyle = poisoned((count, 1), np.float64)
        self.scratch = hairstyle_scratch(self.parsing, count, place)
        self.fitted = poisoned((count, SIZE, SIZE, 3), np.uint8)
        self.facts = poisoned((count, 2), np.int32)
        self.taps = ombre_cuda.hair_taps(self.hair.shape, (side, side), place)
        self.size = (side, side)

    def poison(self) -> None:
        """Outputs again, before a kernel whose results another has left there."""
        for array in (self.dyed, self.scores):
            array.copy_to_device(poisoned(array.shape, array.dtype))

    def prepare(self) -> None:
        with on(self.place):
            ombre_cuda.find_rows(self.hair, self.size, self.rows, self.place, self.coverage)

    def _dye(self, source: tuple[Any, ...], table: Any) -> None:
        with on(self.place):
            ombre_cuda.dye_rows(self.images, source, self.rows, table, self.dyed, self.place)

    def blend(self) -> None:
        self._dye((self.coverage,), self.table)

    def apply(self) -> None:
        with on(self.place):
            ombre_cuda.find_rows(self.hair, self.size, self.rows, self.place)
        self._dye((self.hair, *self.taps), self.table)

    def sweeps(self) -> None:
        self._dye((self.coverage,), self.sweep)

    def score(self, algorithm: Algorithm) -> None:
        device_score(self.parsing, self.faces, algorithm, False, self.scores, self.place.stream or 0)

    def styles(self) -> None:
        stream = self.place.stream or 0
        device_score(self.parsing, self.faces, "hairstyle", False, self.hairstyle, stream, self.scratch)

    def fit(self) -> None:
        pictures_cuda.fit_pictures(self.images, self.fitted, self.place)

    def hair_facts(self) -> None:
        pictures_cuda.hair_facts(self.hair, self.rows, self.facts, self.place)


def poisoned(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of the device that holds no zeros: what a kernel leaves out is seen."""
    host = np.empty(shape, dtype)
    host.reshape(-1).view(np.uint8)[:] = POISON
    return cuda.to_device(host)


@dataclass(frozen=True)
class Kernel:
    """run: on a DeviceInputs. bytes_of: (side of the picture) -> bytes that one picture must move."""

    name: str
    run: Callable[[DeviceInputs], None]
    bytes_of: Callable[[int], int]


PIXELS = SIZE * SIZE
KERNELS = (
    Kernel("ombre, map to dyed picture", DeviceInputs.apply, lambda side: 4 * PIXELS + 6 * side * side),
    Kernel("ombre, mask", DeviceInputs.prepare, lambda side: 4 * PIXELS + 4 * side * side),
    Kernel("ombre, blend with a mask", DeviceInputs.blend, lambda side: 10 * side * side),
    Kernel("ombre, sweep of one picture", DeviceInputs.sweeps, lambda side: 3 * side * side),
    Kernel("properties v1", lambda inputs: inputs.score("v1"), lambda side: 4 * PIXELS),
    Kernel("properties v2", lambda inputs: inputs.score("v2"), lambda side: 4 * PIXELS),
    Kernel("hairstyle", DeviceInputs.styles, lambda side: 2 * PIXELS),
    Kernel("fit to the finder", DeviceInputs.fit, lambda side: 3 * (PIXELS + side * side)),
    Kernel("hair facts", DeviceInputs.hair_facts, lambda side: 4 * PIXELS),
)


def differences(inputs: DeviceInputs) -> dict[str, Any]:
    """Every kernel against the reference. Raises AssertionError for what is wrong; returns what may differ a little."""
    host = inputs.host
    inputs.prepare()
    inputs.blend()
    blended = inputs.dyed.copy_to_host()
    rows, coverage = inputs.rows.copy_to_host(), inputs.coverage.copy_to_host()
    mask = prepare_hair(host.hair, inputs.size, backend="reference")
    found = HairMask(coverage, rows[:, :, 0].min(1), rows[:, :, 1].max(1))
    away = float(np.abs(coverage - mask.coverage).max())
    assert away <= 5e-4, f"the mask is {away} of 255 away from OpenCV's"
    assert np.array_equal(found.bottom, mask.bottom), "last hair rows"
    assert np.array_equal(found.top, mask.top), "first hair rows"
    dyes = (host.color, host.height, host.grad_height)
    wanted = blend_ombre(host.images, found, *dyes, backend="reference")
    assert np.array_equal(blended, wanted), "blending with a mask is exact"
    inputs.poison()
    inputs.apply()
    at_once = inputs.dyed.copy_to_host()
    own = blend_ombre(host.images, mask, *dyes, backend="reference")
    share = float((at_once != own).mean())
    assert np.abs(at_once.astype(int) - own).max() <= 1, "a level at most"
    assert share <= 0.001, f"{share:.3%} of the values differ by a level"
    inputs.poison()
    inputs.sweeps()
    swept = blend_ombre(host.images[:1], HairMask(found.coverage[:1], found.top[:1], found.bottom[:1]), *dyes,
                        backend="reference")  # fmt: skip
    assert np.array_equal(inputs.dyed.copy_to_host(), swept), "a sweep is exact"
    algorithm: Algorithm
    for algorithm in ("v1", "v2"):
        inputs.poison()
        inputs.score(algorithm)
        reference = score(host.parsing, host.faces, algorithm=algorithm, backend="reference")
        assert np.array_equal(inputs.scores.copy_to_host(), reference, equal_nan=True), f"scores {algorithm} are exact"
    inputs.styles()
    styles = score(host.parsing, host.faces, algorithm="hairstyle", backend="reference")
    np.testing.assert_allclose(inputs.hairstyle.copy_to_host(), styles, rtol=1e-12)
    inputs.fit()
    small = np.stack([resize_area(image, (SIZE, SIZE)) for image in host.images])
    fitted = inputs.fitted.copy_to_host()
    assert np.abs(fitted.astype(int) - small).max() <= 1, "a fitted picture"
    inputs.hair_facts()
    counts = (host.hair >= 0.5).sum((1, 2))
    assert np.array_equal(inputs.facts.copy_to_host(), np.stack([counts, mask.bottom], 1)), "facts of maps"
    return {
        "mask_max_difference": away,
        "dyed_values_different": share,
        "fitted_values_different": float((fitted != small).mean()),
    }
