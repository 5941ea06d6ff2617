"""The ombre dye on a CUDA device: two launches a batch, nothing comes back to the host, nothing waits.

Launch one finds the hair rows, launch two dyes. A thread owns a column and goes down a tile of rows, so that each source
row of the hair map is interpolated once per column and the sums of four stay in registers. Pixels pass through shared
memory, in whole words where rows are aligned, because a warp's 96 bytes are otherwise three partial writes.

Equal to the reference bit for bit, given one mask: the blend is done in float32 and, where its error could reach the next
byte, again in float64 in the documented order. The resized map itself may differ from OpenCV's by some 1e-4 of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ohlora.kernels.cuda_arrays import Place, address, device_array, new_array, on, place_of
from ohlora.kernels.ombre import Dyes
from ohlora.kernels.ombre_cuda_kernels import COLUMNS, ROWS, blend_hair, blend_mask, cover
from ohlora.kernels.resize_taps import cubic_taps

MOST_PICTURES = 65_535  # of one launch: the grid's third dimension


@dataclass(frozen=True)
class DeviceMask:
    """Hair maps of N pictures on a device, ready to blend.

    coverage: float32 [N,H,W], 0..255. rows: int32 [N,T,2], first and last hair row of each of T tiles, H and -1 for
    none: a picture's are rows[:,:,0].min() and rows[:,:,1].max().
    """

    coverage: Any
    rows: Any

    def __len__(self) -> int:
        return int(self.coverage.shape[0])


def prepare(hair: Any, size: tuple[int, int], stream: Any = None) -> DeviceMask:
    """hair float32 [N,h,w] on a device -> mask for pictures of `size`. Arguments as `ombre.prepare_hair`."""
    maps = device_array("hair", hair, np.float32, (None, None, None))
    place = place_of({"hair": hair}, stream)
    count, height, width = len(maps), *size
    coverage = new_array(hair, (count, height, width), np.float32, place)
    rows = new_array(hair, (count, *_tiles(size)), np.int32, place)
    _find_rows(maps, size, rows, place, coverage)
    return DeviceMask(coverage, rows)


def blend(
    images: Any, mask: DeviceMask, dyes: Dyes, out: Any, nearest: bool, unweighted: bool, stream: Any = None
) -> Any:
    """`ombre.blend_ombre` on a device: images uint8 [N,H,W,3], N = M or 1; returns `out`, made where None."""
    pixels = device_array("images", images, np.uint8, (None, None, None, 3))
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    coverage = device_array("mask", mask.coverage, np.float32, (len(pixels), *size))
    rows = device_array("mask rows", mask.rows, np.int32, (len(pixels), *_tiles(size)))
    place = place_of({"images": images, "mask": mask.coverage, **({} if out is None else {"out": out})}, stream)
    return _dye(images, pixels, (coverage,), rows, dyes, out, nearest, unweighted, place)


def apply(images: Any, hair: Any, dyes: Dyes, out: Any, nearest: bool, unweighted: bool, stream: Any = None) -> Any:
    """`ombre.apply_ombre` on a device. The resized map is never stored: the second launch interpolates it again."""
    pixels = device_array("images", images, np.uint8, (None, None, None, 3))
    maps = device_array("hair", hair, np.float32, (len(pixels), None, None))
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    place = place_of({"images": images, "hair": hair, **({} if out is None else {"out": out})}, stream)
    with on(place) as cuda:
        rows = cuda.device_array((len(pixels), *_tiles(size)), np.int32, stream=place.stream)
    _find_rows(maps, size, rows, place)
    source = (maps, *_taps(maps.shape, size, place))
    return _dye(images, pixels, source, rows, dyes, out, nearest, unweighted, place)


def packed(dyes: Dyes) -> Any:
    """float64 [M,5]: red, green, blue, height, grad_height; what the kernels read."""
    return np.column_stack([dyes.colors.astype(np.float64), dyes.height, dyes.grad_height])


def _tiles(size: Sequence[int]) -> tuple[int, int]:
    """T and 2: shape of a picture's rows."""
    return (-(-size[0] // ROWS) * -(-size[1] // COLUMNS), 2)


def _grid(size: Sequence[int], count: int) -> tuple[int, int, int]:
    return (-(-size[1] // COLUMNS), -(-size[0] // ROWS), count)


def _find_rows(maps: Any, size: tuple[int, int], rows: Any, place: Place, coverage: Any = None) -> None:
    taps = _taps(maps.shape, size, place)
    found = device_array("rows", rows, np.int32, (len(maps), *_tiles(size)))
    stored = maps if coverage is None else device_array("coverage", coverage, np.float32, (len(maps), *size))
    with on(place):
        for part in _parts(len(maps)):
            cover[_grid(size, part.stop - part.start), COLUMNS, place.stream](
                maps[part], *taps, found[part], stored[part], coverage is not None, size[0], size[1]
            )


def _dye(
    images: Any, pixels: Any, source: tuple[Any, ...], rows: Any, dyes: Dyes, out: Any, nearest: bool,
    unweighted: bool, place: Place,
) -> Any:  # fmt: skip
    height, width = (int(length) for length in pixels.shape[1:3])
    shape = (len(dyes), height, width, 3)
    if out is None:
        out = new_array(images, shape, np.uint8, place)
    target = device_array("out", out, np.uint8, shape)
    begin, end = address(pixels), address(target)
    if len(pixels) != len(dyes) and begin < end + target.nbytes and end < begin + pixels.nbytes:
        raise ValueError("out must not overlap images when one picture takes several dyes")
    words = width % 4 == 0 and begin % 4 == 0 and end % 4 == 0
    kernel = blend_mask if len(source) == 1 else blend_hair
    with on(place) as cuda:
        table = cuda.to_device(packed(dyes), stream=place.stream)
        for part in _parts(len(dyes)):
            # One picture for all dyes stays as it is; `source` is by picture, the tables behind it are not.
            chosen = part if len(pixels) > 1 else slice(0, 1)
            kernel[_grid((height, width), part.stop - part.start), COLUMNS, place.stream](
                *_both(pixels[chosen], words), source[0][chosen], *source[1:], rows[chosen], table[part],
                *_both(target[part], words), words, nearest, unweighted,
            )  # fmt: skip
    return out


def _both(pixels: Any, words: bool) -> tuple[Any, Any]:
    """[N,H,W,3] as rows of bytes [N,H,3W] and as rows of words [N,H,3W/4]; where those are not used, one word."""
    count, height, width, _ = pixels.shape
    rows = pixels.reshape(count, height, 3 * width)
    if not words:
        return rows, _one_word()
    return rows, pixels.reshape(count * height * width * 3).view(np.uint32).reshape(count, height, 3 * width // 4)


@cache
def _one_word() -> Any:
    from numba import cuda

    return cuda.device_array((1, 1, 1), np.uint32)


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + MOST_PICTURES, count)) for start in range(0, count, MOST_PICTURES)]


def _taps(hair: Sequence[int], size: tuple[int, int], place: Place) -> tuple[Any, Any, Any, Any]:
    """Pixels and weights of columns, then of rows, on the device."""
    return (*_axis_taps(int(hair[2]), size[1], place.device), *_axis_taps(int(hair[1]), size[0], place.device))


@cache
def _axis_taps(source: int, target: int, device: int) -> tuple[Any, Any]:
    pixels, weights = cubic_taps(source, target)
    with on(Place(device, 0)) as cuda:
        return cuda.to_device(np.array(pixels)), cuda.to_device(weights.astype(np.float32))
