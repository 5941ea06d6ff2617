# mypy: disallow-untyped-defs = False
"""The device code of the seven scores. A block scores a picture; a thread owns four columns and goes down its rows.

Histograms of channel sums lie in shared memory. A thread holds back its last bin and count, so that a plain background
is not one address hit by every lane. Order statistics come from a scan over the bins, an eye's longest chord from the
ends of its columns. All sums are integers; the last divisions are the reference's own, so that results are equal bit
for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from ohlora.kernels.gpu.arrays import simulated
from ohlora.kernels.properties import classes as ids
from ohlora.kernels.properties.classes import SIZE

GROUPS = SIZE // 4  # of four columns
LINES = 1 if simulated() else 8  # rows that a block reads at once
THREADS = GROUPS * LINES
BINS = 3 * 255 + 1
ALL_BINS = 2 * BINS  # hair, then upper background
SHARE = -(-BINS // THREADS)  # bins of a thread in the scan
SCAN = 2 * THREADS
HALF, LAST = SIZE // 2, SIZE - 1
EYE_TOP, EYE_BOTTOM, EYE_BOTTOM_V1 = 56, 167, 139  # docs/spec/properties.md, sections 2 and 3
SLOTS = 2 * SIZE  # first and last row of each column
END_SLOTS = 2 * SLOTS
FAR = np.int32(2**28)
SKIN, LEFT_BROW, RIGHT_BROW = (np.uint32(0x01010101 * at) for at in (1, 2, 3))  # four pixels each

# Places of a block's counters.
EYE_N, EYE_X, EYE_Y = 0, 2, 4  # and the right eye's after each
EYE_FIRST, EYE_LAST = 6, 8  # rows, in those of v1
EYE_LOW, EYE_HIGH = 10, 12  # columns
EYE_TALL, EYE_FAR, EYE_PAIR = 14, 16, 18
NOSE_N, NOSE_X, NOSE_Y, NOSE_XX, NOSE_YY, NOSE_XY = 20, 21, 22, 23, 24, 25
LIPS_N, LIPS_FIRST, LIPS_LAST, INNER_N, INNER_FIRST, INNER_LAST = 26, 27, 28, 29, 30, 31
HIGHEST, BOTTOM, LONG_ROWS, LEFT_HAIR = 32, 33, 34, 35
RANK_LOW, RANK_HIGH, RANK_BACK = 36, 37, 38
HAIR_SUM, BACK_SUM, SQUARES_LOW, SQUARES_HIGH = 39, 40, 41, 42
COUNTERS = 43


@cuda.jit
def scores(classes, pixels, first, out):
    """classes: uint32 [N,224,56], pixels: uint32 [N,224,168]; out: float64 [N,7]. first: v1, else v2."""
    bins = cuda.shared.array(ALL_BINS, np.int32)
    hair_rows = cuda.shared.array(SIZE, np.int32)
    ends = cuda.shared.array(END_SLOTS, np.int32)  # per eye and column: first and last row
    scan = cuda.shared.array(SCAN, np.int32)
    counter = cuda.shared.array(COUNTERS, np.int32)
    n, t = cuda.blockIdx.x, cuda.threadIdx.x
    _clear(t, bins, hair_rows, ends, counter)
    cuda.syncthreads()
    _gather(classes, pixels, n, t, first, bins, hair_rows, ends, counter)
    cuda.syncthreads()
    hair, back = _scanned(t, bins, scan)
    _order(t, first, hair, back, bins, scan, counter)
    _rows(t, hair_rows, counter)
    if not first:
        _chords(t, ends, counter)
    cuda.syncthreads()
    if t == 0:
        if counter[HIGHEST] >= ids.CLASSES:
            for column in range(7):
                out[n, column] = math.nan
        else:
            if first:
                _v1(hair, hair_rows, counter, out, n)
            else:
                _v2(hair, hair_rows, counter, out, n)
            _background(back, counter, out, n)


@cuda.jit(device=True)
def _clear(t, bins, hair_rows, ends, counter):
    for i in range(t, ALL_BINS, THREADS):
        bins[i] = 0
    for i in range(t, SIZE, THREADS):
        hair_rows[i] = 0
    for i in range(t, END_SLOTS, THREADS):
        ends[i] = SIZE if i % 2 == 0 else -1
    for i in range(t, COUNTERS, THREADS):
        low = i in (EYE_FIRST, EYE_FIRST + 1, EYE_LOW, EYE_LOW + 1, EYE_PAIR, EYE_PAIR + 1, LIPS_FIRST, INNER_FIRST)
        high = i in (EYE_LAST, EYE_LAST + 1, EYE_HIGH, EYE_HIGH + 1, LIPS_LAST, INNER_LAST, BOTTOM)
        counter[i] = FAR if low else (-1 if high else 0)


@cuda.jit(device=True)
def _gather(classes, pixels, n, t, first, bins, hair_rows, ends, counter):
    group = t % GROUPS
    pending, held = np.int32(-1), np.int32(0)  # bin and count that are not added yet
    highest, lips, inner = np.int32(0), np.int32(0), np.int32(0)
    lips_first, lips_last, inner_first, inner_last = FAR, np.int32(-1), FAR, np.int32(-1)
    coming = classes[n, t // GROUPS, group]
    for y in range(t // GROUPS, SIZE, LINES):
        word = coming
        if y + LINES < SIZE:
            coming = classes[n, y + LINES, group]  # under way while this one is looked at
        if word in (SKIN, LEFT_BROW, RIGHT_BROW) or (word == 0 and y >= HALF):
            highest = max(highest, np.int32(word & np.uint32(255)))  # four pixels that no score looks at
            continue
        read = False
        low, middle, high = np.uint32(0), np.uint32(0), np.uint32(0)
        hairs = np.int32(0)
        for k in range(4):
            at = np.int32((word >> np.uint32(8 * k)) & np.uint32(255))
            highest = max(highest, at)
            start = np.int32(-1)
            if at == ids.HAIR:
                hairs += np.int32(1)
                start = np.int32(0)
            elif at == ids.BACKGROUND and y < HALF:
                start = np.int32(BINS)
            if start >= 0:
                if not read:  # the picture is read under hair and upper background only
                    low, middle, high = (
                        pixels[n, y, 3 * group],
                        pixels[n, y, 3 * group + 1],
                        pixels[n, y, 3 * group + 2],
                    )
                    read = True
                chosen = np.int32(start + channel_sum(low, middle, high, k))
                if chosen != pending:
                    if held > 0:
                        cuda.atomic.add(bins, pending, held)
                    pending, held = chosen, np.int32(0)
                held += np.int32(1)
            elif at in (ids.UPPER_LIP, ids.LOWER_LIP):
                lips += np.int32(1)
                lips_first, lips_last = min(lips_first, np.int32(y)), np.int32(y)
            elif at == ids.INNER_MOUTH:
                inner += np.int32(1)
                inner_first, inner_last = min(inner_first, np.int32(y)), np.int32(y)
            elif at in (ids.LEFT_EYE, ids.RIGHT_EYE):
                _eye(at - ids.LEFT_EYE, 4 * group + k, y, ends, counter)
            elif first and at == ids.NOSE:
                _nose(4 * group + k, y, counter)
        if hairs > 0:
            cuda.atomic.add(hair_rows, y, hairs)
            if y == LAST and group < GROUPS // 2:
                cuda.atomic.add(counter, LEFT_HAIR, hairs)
    if held > 0:
        cuda.atomic.add(bins, pending, held)
    cuda.atomic.max(counter, HIGHEST, highest)
    if lips > 0:
        cuda.atomic.add(counter, LIPS_N, lips)
        cuda.atomic.min(counter, LIPS_FIRST, lips_first)
        cuda.atomic.max(counter, LIPS_LAST, lips_last)
    if inner > 0:
        cuda.atomic.add(counter, INNER_N, inner)
        cuda.atomic.min(counter, INNER_FIRST, inner_first)
        cuda.atomic.max(counter, INNER_LAST, inner_last)


@cuda.jit(device=True)
def channel_sum(low, middle, high, k):
    """Channel sum of pixel k of four, whose twelve bytes are three words."""
    byte = np.uint32(255)
    if k == 0:
        total = (low & byte) + ((low >> np.uint32(8)) & byte) + ((low >> np.uint32(16)) & byte)
    elif k == 1:
        total = (low >> np.uint32(24)) + (middle & byte) + ((middle >> np.uint32(8)) & byte)
    elif k == 2:
        total = ((middle >> np.uint32(16)) & byte) + (middle >> np.uint32(24)) + (high & byte)
    else:
        total = ((high >> np.uint32(8)) & byte) + ((high >> np.uint32(16)) & byte) + (high >> np.uint32(24))
    return np.int32(total)


@cuda.jit(device=True)
def _eye(eye, x, y, ends, counter):
    """A pixel of an eye, where its window has it: columns 0..167 left and 56..223 right."""
    if y < EYE_TOP or y > EYE_BOTTOM or x < 56 * eye or x >= 168 + 56 * eye:
        return
    cuda.atomic.add(counter, EYE_N + eye, 1)
    cuda.atomic.add(counter, EYE_X + eye, x)
    cuda.atomic.add(counter, EYE_Y + eye, y)
    cuda.atomic.min(counter, EYE_LOW + eye, x)
    cuda.atomic.max(counter, EYE_HIGH + eye, x)
    cuda.atomic.min(ends, eye * SLOTS + 2 * x, y)
    cuda.atomic.max(ends, eye * SLOTS + 2 * x + 1, y)
    if y <= EYE_BOTTOM_V1:
        cuda.atomic.min(counter, EYE_FIRST + eye, y)
        cuda.atomic.max(counter, EYE_LAST + eye, y)


@cuda.jit(device=True)
def _nose(x, y, counter):
    cuda.atomic.add(counter, NOSE_N, 1)
    cuda.atomic.add(counter, NOSE_X, x)
    cuda.atomic.add(counter, NOSE_Y, y)
    cuda.atomic.add(counter, NOSE_XX, x * x)
    cuda.atomic.add(counter, NOSE_YY, y * y)
    cuda.atomic.add(counter, NOSE_XY, x * y)


@cuda.jit(device=True)
def _scanned(t, bins, scan):
    """Pixels up to and with each thread's share of the bins into `scan` [2 x THREADS]; returns both totals."""
    hair, back = np.int32(0), np.int32(0)
    for value in range(t * SHARE, min((t + 1) * SHARE, BINS)):
        hair += bins[value]
        back += bins[BINS + value]
    scan[t], scan[THREADS + t] = hair, back
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        more_hair, more_back = np.int32(0), np.int32(0)
        if t >= step:
            more_hair, more_back = scan[t - step], scan[THREADS + t - step]
        cuda.syncthreads()
        scan[t] += more_hair
        scan[THREADS + t] += more_back
        cuda.syncthreads()
        step *= 2
    return scan[THREADS - 1], scan[2 * THREADS - 1]


@cuda.jit(device=True)
def _order(t, first, hair, back, bins, scan, counter):
    """Trimmed sums and ranked values of both histograms."""
    low, high = int(0.1 * hair), int(0.9 * hair)
    back_low, back_high = int(0.05 * back), int(0.95 * back)
    below, back_below = np.int32(0), np.int32(0)
    if t > 0:
        below, back_below = scan[t - 1], scan[THREADS + t - 1]
    summed, back_summed, squares = np.int32(0), np.int32(0), np.int64(0)
    for value in range(t * SHARE, min((t + 1) * SHARE, BINS)):
        above, back_above = below + bins[value], back_below + bins[BINS + value]
        if first:
            if below <= (hair - 1) // 2 < above:
                counter[RANK_LOW] = value
            if below <= hair // 2 < above:
                counter[RANK_HIGH] = value
        summed += max(min(above, high) - max(below, low), 0) * value
        if back_below == 0 and back_above > 0:
            counter[RANK_BACK] = value
        taken = max(min(back_above, back_high) - max(back_below, back_low), 0)
        back_summed += taken * value
        squares += np.int64(taken) * value * value
        below, back_below = above, back_above
    if summed > 0:
        cuda.atomic.add(counter, HAIR_SUM, summed)
    if back_summed > 0:
        cuda.atomic.add(counter, BACK_SUM, back_summed)
        # In two parts: shared memory adds 32 bits at once.
        cuda.atomic.add(counter, SQUARES_LOW, np.int32(squares & 0xFFFF))
        cuda.atomic.add(counter, SQUARES_HIGH, np.int32(squares >> 16))


@cuda.jit(device=True)
def _rows(t, hair_rows, counter):
    for y in range(t, SIZE, THREADS):
        if hair_rows[y] > 0:
            cuda.atomic.max(counter, BOTTOM, y)
        if y >= 56 and hair_rows[y] >= 20:
            cuda.atomic.add(counter, LONG_ROWS, 1)


@cuda.jit(device=True)
def _chords(t, ends, counter):
    """Tallest column and longest chord of both eyes; of equal chords the smallest i, then the smallest j < i."""
    for eye in range(2):
        longest, pair = np.int32(0), FAR
        start, stop = 2 * counter[EYE_LOW + eye], 2 * counter[EYE_HIGH + eye] + 2
        for i in range(start + t, stop, THREADS):
            x, y = i // 2, ends[eye * SLOTS + i]
            if ends[eye * SLOTS + 2 * x + 1] < 0:
                continue
            if i % 2 == 1:
                cuda.atomic.max(counter, EYE_TALL + eye, y - ends[eye * SLOTS + i - 1])
            for j in range(start, i):
                if ends[eye * SLOTS + (j | 1)] >= 0:
                    dx, dy = x - j // 2, y - ends[eye * SLOTS + j]
                    length = np.int32(dx * dx + dy * dy)
                    if length > longest:
                        longest, pair = length, np.int32(i * 512 + j)
        if longest > 0:
            cuda.atomic.max(counter, EYE_FAR + eye, longest)
        cuda.syncthreads()
        if longest > 0 and longest == counter[EYE_FAR + eye]:
            cuda.atomic.min(counter, EYE_PAIR + eye, pair)


@cuda.jit(device=True)
def _opening(eye, counter):
    if counter[EYE_FAR + eye] == 0:
        return 0.0
    pair = counter[EYE_PAIR + eye]
    across = pair // 512 // 2 - pair % 512 // 2
    return counter[EYE_TALL + eye] * (across / math.sqrt(float(counter[EYE_FAR + eye])))


@cuda.jit(device=True)
def _v1(hair, hair_rows, counter, out, n):
    left = max(counter[EYE_LAST] - counter[EYE_FIRST], 0)
    right = max(counter[EYE_LAST + 1] - counter[EYE_FIRST + 1], 0)
    out[n, 0] = (left + right) / 2
    out[n, 1], out[n, 2] = math.nan, math.nan
    if hair > 0:
        out[n, 1] = (counter[RANK_LOW] + counter[RANK_HIGH]) / 6
        bottom = counter[BOTTOM]
        out[n, 2] = bottom + (hair_rows[LAST] / 2 if bottom == LAST else 0.0)
    lips = max(counter[LIPS_LAST] - counter[LIPS_FIRST], 0)
    out[n, 3] = lips + max(counter[INNER_LAST] - counter[INNER_FIRST], 0)
    count, sx, sy = np.int64(counter[NOSE_N]), np.int64(counter[NOSE_X]), np.int64(counter[NOSE_Y])
    spread_x, spread_y = count * counter[NOSE_XX] - sx * sx, count * counter[NOSE_YY] - sy * sy
    out[n, 4] = math.nan
    if spread_x != 0 and spread_y != 0:
        slope = (sx * sy - count * counter[NOSE_XY]) / math.sqrt(float(spread_x) * float(spread_y))
        out[n, 4] = min(max(slope, -1.0), 1.0)


@cuda.jit(device=True)
def _v2(hair, hair_rows, counter, out, n):
    out[n, 0] = max(_opening(0, counter), _opening(1, counter))
    kept = int(0.9 * hair) - int(0.1 * hair)
    out[n, 1] = counter[HAIR_SUM] / (3 * kept) if kept > 0 else 127.5
    length = float(counter[LONG_ROWS])
    if hair_rows[LAST] >= 20:
        left = counter[LEFT_HAIR]
        length += max(left - 10, 0) / 2 + max(hair_rows[LAST] - left - 10, 0) / 2
    out[n, 2] = length
    mouth = counter[INNER_N] + counter[LIPS_N]
    out[n, 3] = counter[INNER_N] / mouth if mouth > 0 else 0.0
    left_n, right_n = np.int64(counter[EYE_N]), np.int64(counter[EYE_N + 1])
    out[n, 4] = 0.0
    if left_n > 0 and right_n > 0:
        rise = counter[EYE_Y + 1] * left_n - counter[EYE_Y] * right_n
        run = counter[EYE_X + 1] * left_n - counter[EYE_X] * right_n
        out[n, 4] = rise / run if run != 0 else math.nan


@cuda.jit(device=True)
def _background(back, counter, out, n):
    if back < 2:
        out[n, 5] = counter[RANK_BACK] / 3 if back == 1 else 192.0
        out[n, 6] = 0.0
        return
    kept = np.int64(int(0.95 * back) - int(0.05 * back))
    summed = np.int64(counter[BACK_SUM])
    squares = (np.int64(counter[SQUARES_HIGH]) << 16) + counter[SQUARES_LOW]
    out[n, 5] = summed / (3 * kept)
    out[n, 6] = math.sqrt(float(kept * squares - summed * summed)) / (3 * kept)
