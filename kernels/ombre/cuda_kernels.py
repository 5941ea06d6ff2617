# mypy: disallow-untyped-defs = False
"""The device code of `ombre.cuda`. Runs in Numba's simulator too, where a block has fewer threads."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from ohlora.kernels.gpu.arrays import simulated
from ohlora.kernels.gpu.exact import dadd, dmul, fadd, fmul, resident

COLUMNS = 8 if simulated() else 256  # threads of a block, one for each column of its tile
ROWS = 8  # of a tile; enough that interpolating the first source rows anew matters little
BYTES = 3 * COLUMNS
WORDS = BYTES // 4
TILE_WORDS = ROWS * WORDS

ZERO, ONE, FULL = np.float32(0.0), np.float32(1.0), np.float32(255.0)
THRESHOLD, CONTRAST = np.float32(191.25), np.float32(4.0)  # docs/spec/ombre.md, section 3
PER_FULL = np.float32(1.0 / 255.0)
OWN, TINT, DARKER = np.float32(0.35), np.float32(0.25), np.float32(-38.25)  # docs/spec/ombre.md, section 5
# Float32's error of a blend is below 1e-4; what is nearer to the next byte than this is done again in float64.
NEAR, HALF = np.float32(5e-4), np.float32(0.5)
NO_ROW = np.int32(-1)


@cuda.jit(device=True)
def _across(hair, n, row, taps):
    """One source row of 255 H at one output column."""
    left, second, third, right, a, b, c, d = taps
    return (
        a * (hair[n, row, left] * FULL)
        + b * (hair[n, row, second] * FULL)
        + c * (hair[n, row, third] * FULL)
        + d * (hair[n, row, right] * FULL)
    )


@cuda.jit(device=True)
def _column(columns, across, x):
    return (
        columns[x, 0], columns[x, 1], columns[x, 2], columns[x, 3],
        across[x, 0], across[x, 1], across[x, 2], across[x, 3],
    )  # fmt: skip


@cuda.jit(device=True)
def _next(hair, n, taps, rows, down, y, held, kept):
    """B at row y of a column. held, kept: the four source rows of the row above and their values; become this row's."""
    r0, r1, r2, r3 = held
    v0, v1, v2, v3 = kept
    n0, n1, n2, n3 = rows[y, 0], rows[y, 1], rows[y, 2], rows[y, 3]
    if n0 != r0 or n1 != r1 or n2 != r2 or n3 != r3:
        if n0 == r1 and n1 == r2 and n2 == r3:
            v0, v1, v2 = v1, v2, v3
        else:
            v0, v1, v2 = _across(hair, n, n0, taps), _across(hair, n, n1, taps), _across(hair, n, n2, taps)
        v3 = _across(hair, n, n3, taps)
    value = (down[y, 0] * v0 + down[y, 1] * v1 + down[y, 2] * v2 + down[y, 3] * v3 - THRESHOLD) * CONTRAST
    value = value if value > ZERO else ZERO  # NaN is no hair
    value = value if value < FULL else FULL
    return value, (n0, n1, n2, n3), (v0, v1, v2, v3)


@cuda.jit
def cover(hair, columns, across, rows, down, found, coverage, store, height, width):
    """First and last hair row of each tile -> found [N,T,2]; B -> coverage [N,H,W] where `store`."""
    seen = cuda.shared.array(1, np.int32)  # bit r: row r of the tile is a hair row
    top, n = cuda.blockIdx.y * ROWS, cuda.blockIdx.z
    x = cuda.blockIdx.x * COLUMNS + cuda.threadIdx.x
    if cuda.threadIdx.x == 0:
        seen[0] = 0
    cuda.syncthreads()
    if x < width:
        taps = _column(columns, across, x)
        held, kept = (NO_ROW, NO_ROW, NO_ROW, NO_ROW), (ZERO, ZERO, ZERO, ZERO)
        mine = np.int32(0)
        for r in range(min(ROWS, height - top)):
            value, held, kept = _next(hair, n, taps, rows, down, top + r, held, kept)
            if store:
                coverage[n, top + r, x] = value
            if value >= THRESHOLD:
                mine |= np.int32(1 << r)
        if mine:
            cuda.atomic.or_(seen, 0, mine)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        first, last = height, -1
        for r in range(ROWS):
            if (seen[0] >> r) & 1:
                first = min(first, top + r)
                last = top + r
        tile = cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x
        found[n, tile, 0] = first
        found[n, tile, 1] = last


@cuda.jit(device=True)
def _stage(source8, source32, words, n, top, left, pixels32, pixels8):
    """A tile of a picture [N,H,3W] into shared memory, whole words at a time where rows are aligned."""
    t, rows = cuda.threadIdx.x, source8.shape[1] - top
    if words:
        start = left * 3 // 4
        if t < min(WORDS, source32.shape[2] - start):
            # Loads without a branch between them are all under way at once; rows past the end repeat the last.
            row = cuda.local.array(ROWS, np.uint32)
            for r in range(ROWS):
                row[r] = source32[n, top + min(r, rows - 1), start + t]
            for r in range(ROWS):
                pixels32[r * WORDS + t] = row[r]
    else:
        count = min(BYTES, source8.shape[2] - left * 3)
        for r in range(ROWS):
            for i in range(t, BYTES, COLUMNS):
                if i < count and r < rows:
                    pixels8[r * BYTES + i] = source8[n, top + r, left * 3 + i]


@cuda.jit(device=True)
def _unstage(pixels32, pixels8, words, n, top, left, target8, target32):
    t, rows = cuda.threadIdx.x, target8.shape[1] - top
    if words:
        start = left * 3 // 4
        inside = t < min(WORDS, target32.shape[2] - start)
        for r in range(ROWS):
            if inside and r < rows:
                target32[n, top + r, start + t] = pixels32[r * WORDS + t]
    else:
        count = min(BYTES, target8.shape[2] - left * 3)
        for r in range(ROWS):
            for i in range(t, BYTES, COLUMNS):
                if i < count and r < rows:
                    target8[n, top + r, left * 3 + i] = pixels8[r * BYTES + i]


@cuda.jit(device=True)
def _gradient(found, source, dye, i, ends):
    """Rows G0 and G1 of dye i on picture `source` into ends[0:2], by the whole block; -1 without hair
    (docs/spec/ombre.md, section 4).

    dye: float64 [M,6]: red, green, blue, height, grad_height, number of the picture. A negative red is no dye.
    """
    t, height = cuda.threadIdx.x, np.int32(2**31 - 1)
    if t == 0:
        ends[0], ends[1] = height, NO_ROW
    cuda.syncthreads()
    for tile in range(t, found.shape[1], COLUMNS):
        if found[source, tile, 1] >= 0:
            cuda.atomic.min(ends, 0, found[source, tile, 0])
            cuda.atomic.max(ends, 1, found[source, tile, 1])
    cuda.syncthreads()
    top, bottom = ends[0], ends[1]
    cuda.syncthreads()
    if t == 0:
        first, full = NO_ROW, NO_ROW
        if bottom >= 0:
            # One product, one sum at a time, in this order: truncation makes the last bit visible.
            first = np.int32(dadd(float(top), dmul(float(bottom - top), 1.0 - dye[i, 3])))
            full = np.int32(dadd(float(first), dmul(float(bottom - first), dye[i, 4])))
        ends[0], ends[1] = first, full
    cuda.syncthreads()


@cuda.jit(device=True)
def _tinted(value, tint):
    """D of one channel (docs/spec/ombre.md, section 5); float32 gives the same byte as float64 for all
    256 values and 360 hues.
    """
    changed = fadd(value, fadd(fadd(fmul(OWN, value), tint), DARKER))
    changed = changed if changed > ZERO else ZERO
    changed = changed if changed < FULL else FULL
    return np.float32(np.int32(changed))


@cuda.jit(device=True)
def _level(value, nearest):
    """A byte of float32 or float64: truncated, or half to even."""
    low = np.int32(value)
    rest = value - low
    return np.uint8(low + np.int32(nearest and (rest > 0.5 or (rest == 0.5 and low % 2 == 1))))


@cuda.jit(device=True)
def _blended(value, dyed, alpha, covered, y, first, full, nearest):
    """One channel of one pixel. alpha: float32; `covered`, y, first and full make it again in float64 where needed."""
    blend = value + alpha * (dyed - value)
    if nearest:
        blend = blend + HALF
    whole = np.float32(math.floor(blend))
    over = blend - whole
    if over > NEAR and over < ONE - NEAR:
        return np.uint8(np.int32(whole))
    weight = 1.0 if y >= full else float(y - first) / float(full - first)
    exact = dmul(float(covered), weight) / 255.0
    result = dadd(dmul(1.0 - exact, float(value)), dmul(exact, float(dyed)))
    return _level(result, nearest)


@cuda.jit(device=True)
def _unweighted(value, dyed, covered, nearest):
    """Without a hair row the documented arithmetic stays in float32."""
    alpha = covered / FULL
    result = fadd(fmul(ONE - alpha, value), fmul(alpha, dyed))
    return _level(result, nearest)


@cuda.jit(device=True)
def _dye(pixels8, at, covered, y, first, full, tints, nearest):
    """The three bytes at `at`, dyed in place. first = -1: unweighted."""
    weight = ONE
    if y < full:
        weight = np.float32(y - first) / np.float32(full - first)
    alpha = covered * weight * PER_FULL
    for channel in range(3):
        value = np.float32(pixels8[at + channel])
        dyed = _tinted(value, tints[channel])
        if first < 0:
            pixels8[at + channel] = _unweighted(value, dyed, covered, nearest)
        elif covered == FULL and y >= full:
            pixels8[at + channel] = np.uint8(np.int32(dyed))
        else:
            pixels8[at + channel] = _blended(value, dyed, alpha, covered, y, first, full, nearest)


@cuda.jit(device=True)
def _tints(dye, i):
    return (TINT * np.float32(dye[i, 0]), TINT * np.float32(dye[i, 1]), TINT * np.float32(dye[i, 2]))


@cuda.jit(device=True)
def _open_tile(images8, images32, words, found, dye, top, left, i):
    """The block's tile of the picture that dye i is for, in shared memory as words and as bytes; G0, G1; the picture's
    number.
    """
    pixels32 = cuda.shared.array(TILE_WORDS, np.uint32)
    ends = cuda.shared.array(2, np.int32)
    pixels8 = pixels32.view(np.uint8)
    n = np.int32(dye[i, 5])
    _stage(images8, images32, words, n, top, left, pixels32, pixels8)
    _gradient(found, n, dye, i, ends)
    return pixels32, pixels8, ends[0], ends[1], n


@resident(COLUMNS, 4)
def blend_mask(images8, images32, coverage, found, dye, out8, out32, words, nearest, unweighted):
    """Dye i on its picture, with the B of `cover`."""
    top, left, i = cuda.blockIdx.y * ROWS, cuda.blockIdx.x * COLUMNS, cuda.blockIdx.z
    pixels32, pixels8, first, full, n = _open_tile(images8, images32, words, found, dye, top, left, i)
    x = left + cuda.threadIdx.x
    if x < coverage.shape[2] and (first >= 0 or unweighted) and dye[i, 0] >= 0.0:
        tints = _tints(dye, i)
        for r in range(max(first - top, 0), min(ROWS, coverage.shape[1] - top)):
            covered = coverage[n, top + r, x]
            if covered > ZERO:
                _dye(pixels8, r * BYTES + 3 * cuda.threadIdx.x, covered, top + r, first, full, tints, nearest)
    cuda.syncthreads()
    _unstage(pixels32, pixels8, words, i, top, left, out8, out32)


@resident(COLUMNS, 3)  # with a fourth, values would be kept in memory
def blend_hair(
    images8, images32, hair, columns, across, rows, down, found, dye, out8, out32, words, nearest, unweighted
):
    """As `blend_mask`, with B interpolated from the hair map where a row is dyed."""
    top, left, i = cuda.blockIdx.y * ROWS, cuda.blockIdx.x * COLUMNS, cuda.blockIdx.z
    pixels32, pixels8, first, full, n = _open_tile(images8, images32, words, found, dye, top, left, i)
    x = left + cuda.threadIdx.x
    if x < columns.shape[0] and (first >= 0 or unweighted) and dye[i, 0] >= 0.0:
        tints = _tints(dye, i)
        taps = _column(columns, across, x)
        held, kept = (NO_ROW, NO_ROW, NO_ROW, NO_ROW), (ZERO, ZERO, ZERO, ZERO)
        for r in range(max(first - top, 0), min(ROWS, out8.shape[1] - top)):
            covered, held, kept = _next(hair, n, taps, rows, down, top + r, held, kept)
            if covered > ZERO:
                _dye(pixels8, r * BYTES + 3 * cuda.threadIdx.x, covered, top + r, first, full, tints, nearest)
    cuda.syncthreads()
    _unstage(pixels32, pixels8, words, i, top, left, out8, out32)
