# mypy: disallow-untyped-defs = False
"""The device code of the hairstyle score (docs/spec/cnn.md, section 8). A block takes a band of rows of one picture.

Positions are added up in another order than the reference's, so the last bits may differ; the order is fixed, so that a
picture's score never depends on its neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from ohlora.kernels.gpu.arrays import simulated
from ohlora.kernels.properties.classes import HAIR, SIZE
from ohlora.kernels.properties.cuda_kernels import channel_sum

THREADS = 28 if simulated() else 224
GROUPS = SIZE // 4
TOP, END = 112, 213  # rows of positions; columns are 8..212
BAND = 16  # rows of positions that a block takes
BANDS = -(-(END - TOP) // BAND)
READ = BAND + 11  # rows that they look at
BLOCK_ROWS = BAND + 8
READ_PIXELS, BLOCK_PIXELS = READ * SIZE, BLOCK_ROWS * SIZE


@cuda.jit
def hairstyle_bands(classes, pixels, strict, sums, counts):
    """classes: uint32 [N,224,56], pixels: uint32 [N,224,168] -> sums float64 and counts int32 [N,BANDS]."""
    levels = cuda.shared.array(READ_PIXELS, np.uint16)  # channel sums
    hair = cuda.shared.array(READ_PIXELS, np.uint8)
    block = cuda.shared.array(BLOCK_PIXELS, np.uint16)  # sums of 4x4 blocks, at most 16 * 765
    totals = cuda.shared.array(THREADS, np.float64)
    found = cuda.shared.array(THREADS, np.int32)
    n, band, t = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    top = TOP + band * BAND
    rows = min(READ, SIZE - top)
    _read(classes, pixels, n, top, rows, t, levels, hair)
    cuda.syncthreads()
    _blocks(rows - 3, t, levels, block)
    cuda.syncthreads()
    total, positions = 0.0, np.int32(0)
    for y in range(min(BAND, END - top)):
        for x in range(t, SIZE - 11, THREADS):
            if x >= 8 and _is_hair(hair, y, x, strict):
                center = np.int32(block[y * SIZE + x])
                down = abs(center - np.int32(block[(y + 8) * SIZE + x]))
                beside = max(
                    abs(center - np.int32(block[y * SIZE + x - 8])), abs(center - np.int32(block[y * SIZE + x + 8]))
                )
                total += down / (beside + 240)
                positions += np.int32(1)
    totals[t], found[t] = total, positions
    cuda.syncthreads()
    if t == 0:
        total, positions = 0.0, np.int32(0)
        for i in range(THREADS):
            total += totals[i]
            positions += found[i]
        sums[n, band], counts[n, band] = total, positions


@cuda.jit
def hairstyle_means(sums, counts, out):
    n = cuda.grid(1)
    if n < sums.shape[0]:
        total, positions = 0.0, 0
        for band in range(BANDS):
            total += sums[n, band]
            positions += counts[n, band]
        out[n, 0] = total / positions if positions > 0 else 0.45


@cuda.jit(device=True)
def _read(classes, pixels, n, top, rows, t, levels, hair):
    for i in range(t, rows * GROUPS, THREADS):
        y, group = top + i // GROUPS, i % GROUPS
        word = classes[n, y, group]
        low, middle, high = pixels[n, y, 3 * group], pixels[n, y, 3 * group + 1], pixels[n, y, 3 * group + 2]
        for k in range(4):
            hair[4 * i + k] = np.uint8((word >> np.uint32(8 * k)) & np.uint32(255) == HAIR)
            levels[4 * i + k] = np.uint16(channel_sum(low, middle, high, k))


@cuda.jit(device=True)
def _blocks(rows, t, levels, block):
    """Sums of the 4x4 blocks that start in each of `rows` rows; each thread goes down its columns."""
    for x in range(t, SIZE - 3, THREADS):
        first, second, third = _four(levels, 0, x), _four(levels, 1, x), _four(levels, 2, x)
        for y in range(min(rows, BLOCK_ROWS)):
            last = _four(levels, y + 3, x)
            block[y * SIZE + x] = np.uint16(first + second + third + last)
            first, second, third = second, third, last


@cuda.jit(device=True)
def _four(levels, y, x):
    at = y * SIZE + x
    return np.int32(levels[at]) + np.int32(levels[at + 1]) + np.int32(levels[at + 2]) + np.int32(levels[at + 3])


@cuda.jit(device=True)
def _is_hair(hair, y, x, strict):
    at = y * SIZE + x
    if strict:
        return _whole(hair, at) and _whole(hair, at + 8 * SIZE) and _whole(hair, at - 8) and _whole(hair, at + 8)
    # Two corners of each block; that of the left block is misplaced, and its column wraps around below 0.
    left = x - 11 if x >= 11 else x - 11 + SIZE
    low = at + 3 * SIZE
    return (
        hair[at] != 0
        and hair[at + 8 * SIZE] != 0
        and hair[at - 8] != 0
        and hair[at + 8] != 0
        and hair[low + 3] != 0
        and hair[low + 8 * SIZE + 3] != 0
        and hair[low + 11] != 0
        and hair[(y + 3) * SIZE + left] != 0
    )


@cuda.jit(device=True)
def _whole(hair, at):
    for y in range(4):
        for x in range(4):
            if hair[at + y * SIZE + x] == 0:
                return False
    return True
