"""The ombre dye on a CUDA device: two launches a batch, nothing comes back to the host, nothing waits.

Launch one finds the hair rows, launch two dyes. A thread owns a column and goes down a tile of rows, so that each
source row of the hair map is interpolated once per column and the sums of four stay in registers. Pixels pass through
shared memory, in whole words where rows are aligned, because a warp's 96 bytes are otherwise three partial writes.

Equal to the reference bit for bit, given one mask: the blend is done in float32 and, where its error could reach the
next byte, again in float64 in the documented order. The resized map may differ from OpenCV's by some 1e-4 of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.gpu.arrays import Place, address, device_array, new_array, on, parts, place_of
from ohlora.kernels.gpu.resize_taps import cubic_on_device
from ohlora.kernels.ombre import DeviceMask, Dyes
from ohlora.kernels.ombre.cuda_kernels import COLUMNS, ROWS, blend_hair, blend_mask, cover

MOST_PICTURES = 65_535  # of one launch: the grid's third dimension


def prepare(hair: Any, size: tuple[int, int], stream: Any = None) -> DeviceMask:
    """hair float32 [N,h,w] on a device -> mask for pictures of `size`. Arguments as `ombre.prepare_hair`."""
    place = place_of({"hair": hair}, stream)
    with on(place):
        maps = device_array("hair", hair, np.float32, (None, None, None))
        coverage = new_array(hair, (len(maps), *size), np.float32, place)
        rows = new_array(hair, (len(maps), *tiles(size)), np.int32, place)
        find_rows(maps, size, rows, place, coverage)
    return DeviceMask(coverage, rows)


def blend(images: Any, mask: DeviceMask, dyes: Dyes, out: Any, stream: Any = None) -> Any:
    """`ombre.blend_ombre` on a device: images uint8 [N,H,W,3], N = M or 1; returns `out`, made where None."""
    place = place_of({"images": images, "mask": mask.coverage, "out": out}, stream)
    with on(place):
        pixels, size = _pixels(images)
        coverage = device_array("mask", mask.coverage, np.float32, (len(pixels), *size))
        rows = device_array("mask rows", mask.rows, np.int32, (len(pixels), *tiles(size)))
        return _dye(images, pixels, (coverage,), rows, dyes, out, place)


def apply(images: Any, hair: Any, dyes: Dyes, out: Any, stream: Any = None) -> Any:
    """`ombre.apply_ombre` on a device. The resized map is never stored: the second launch interpolates it again."""
    place = place_of({"images": images, "hair": hair, "out": out}, stream)
    with on(place):
        pixels, size = _pixels(images)
        maps = device_array("hair", hair, np.float32, (len(pixels), None, None))
        # Of the caller's library: Numba would free it by a call that waits for the whole device.
        found = new_array(images, (len(pixels), *tiles(size)), np.int32, place)
        rows = device_array("rows", found, np.int32, (None, None, None))
        find_rows(maps, size, rows, place)
        return _dye(images, pixels, (maps, *hair_taps(maps.shape, size, place)), rows, dyes, out, place)


def _pixels(images: Any) -> tuple[Any, tuple[int, int]]:
    """Pictures as Numba sees them, and their height and width."""
    pixels = device_array("images", images, np.uint8, (None, None, None, 3))
    return pixels, (int(pixels.shape[1]), int(pixels.shape[2]))


def packed(dyes: Dyes, pictures: int) -> NDArray[np.float64]:
    """[M,6] as the kernels read it: red, green, blue, height, grad_height, number of the picture."""
    numbers = np.arange(len(dyes)) if pictures > 1 else np.zeros(len(dyes))
    return np.column_stack([dyes.colors.astype(np.float64), dyes.height, dyes.grad_height, numbers])


def tiles(size: Sequence[int]) -> tuple[int, int]:
    """T and 2: shape of a picture's rows (`DeviceMask.rows`)."""
    return (-(-size[0] // ROWS) * -(-size[1] // COLUMNS), 2)


def _grid(size: Sequence[int], count: int) -> tuple[int, int, int]:
    return (-(-size[1] // COLUMNS), -(-size[0] // ROWS), count)


def find_rows(maps: Any, size: tuple[int, int], rows: Any, place: Place, coverage: Any = None) -> None:
    """First and last hair row of each tile of pictures of `size` -> rows int32 [N,T,2] (`tiles`); B -> coverage.

    The device must be current (`on`).
    """
    taps = hair_taps(maps.shape, size, place)
    found = device_array("rows", rows, np.int32, (len(maps), *tiles(size)))
    stored = maps if coverage is None else device_array("coverage", coverage, np.float32, (len(maps), *size))
    for part in parts(len(maps), MOST_PICTURES):
        cover[_grid(size, part.stop - part.start), COLUMNS, place.stream](
            maps[part], *taps, found[part], stored[part], coverage is not None, size[0], size[1]
        )


def _dye(images: Any, pixels: Any, source: tuple[Any, ...], rows: Any, dyes: Dyes, out: Any, place: Place) -> Any:
    shape = (len(dyes), *(int(length) for length in pixels.shape[1:]))
    if out is None:
        out = new_array(images, shape, np.uint8, place)
    target = device_array("out", out, np.uint8, shape)
    begin, end = address(pixels), address(target)
    if len(pixels) != len(dyes) and begin < end + target.nbytes and end < begin + pixels.nbytes:
        raise ValueError("out must not overlap images when one picture takes several dyes")
    table = device_array("dyes", new_array(images, (len(dyes), 6), np.float64, place), np.float64, (len(dyes), 6))
    table.copy_to_device(packed(dyes, len(pixels)), stream=place.stream)
    dye_rows(pixels, source, rows, table, target, place, dyes.nearest, dyes.unweighted)
    return out


def dye_rows(
    pixels: Any, source: tuple[Any, ...], rows: Any, table: Any, target: Any, place: Place, nearest: bool = False,
    unweighted: bool = False,
) -> None:  # fmt: skip
    """Launch `table`'s dyes [M,6] into target [M,H,W,3]; all as `device_array` gives them, the device current (`on`).

    source: (coverage,), or the hair map and its taps (`hair_taps`); rows: of `find_rows`.
    """
    height, width = (int(length) for length in pixels.shape[1:3])
    words = width % 4 == 0 and address(pixels) % 4 == 0 and address(target) % 4 == 0
    kernel = blend_mask if len(source) == 1 else blend_hair
    for part in parts(len(table), MOST_PICTURES):
        kernel[_grid((height, width), part.stop - part.start), COLUMNS, place.stream](
            *_both(pixels, words, place), *source, rows, table[part], *_both(target[part], words, place), words,
            nearest, unweighted,
        )  # fmt: skip


def _both(pixels: Any, words: bool, place: Place) -> tuple[Any, Any]:
    """[N,H,W,3] as rows of bytes [N,H,3W] and as rows of words [N,H,3W/4]; where those are not used, one word."""
    count, height, width, _ = pixels.shape
    rows = pixels.reshape(count, height, 3 * width)
    if not words:
        return rows, _one_word(place.device)
    return rows, pixels.reshape(count * height * width * 3).view(np.uint32).reshape(count, height, 3 * width // 4)


@cache
def _one_word(device: int) -> Any:
    with on(Place(device, 0)) as cuda:
        return cuda.device_array((1, 1, 1), np.uint32)


def hair_taps(hair: Sequence[int], size: tuple[int, int], place: Place) -> tuple[Any, Any, Any, Any]:
    """Pixels and weights of columns, then of rows, on the device."""
    columns, rows = (cubic_on_device(int(hair[axis]), size[axis - 1], place.device) for axis in (2, 1))
    return (*columns, *rows)
