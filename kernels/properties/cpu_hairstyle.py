"""The hairstyle score in Numba (docs/spec/cnn.md, section 8), GIL-free.

Channel sums, 4x4 block sums and the positions that count are made row by row from shifted rows of 8 and 16 bits, which
vectorises; only positions that count take a division. Only the lower half of map and picture is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.properties.classes import HAIR, SIZE
from ohlora.kernels.threads import compiled

Bytes = NDArray[np.uint8]
Sums = NDArray[np.uint16]
HALF = SIZE // 2


@compiled()
def hairstyles(classes: Bytes, pixels: Bytes, strict: bool, out: NDArray[np.float64]) -> None:
    """Fill out[:, 0]. classes: uint8 [N,224,224]; pixels: uint8 [N,224,672]. Both contiguous."""
    # Rows 112..223 only: no position looks above. Three columns more, so that shifted rows stay inside.
    wide = np.zeros((HALF, SIZE + 3), np.uint16)
    block = np.zeros((HALF, SIZE), np.uint16)  # sums of 4x4 blocks, at most 16 * 765
    hair = np.zeros((HALF, SIZE + 3), np.uint8)
    whole = np.zeros((HALF, SIZE), np.uint16)  # hair in each 4x4 block
    counts = np.empty(SIZE, np.uint8)
    for i in range(len(classes)):
        _sums_of_hair_rows(classes[i], pixels[i], hair, wide)
        _block_sums(wide, block)
        if strict:
            _block_sums(hair, whole)
        out[i, 0] = _hairstyle(hair, whole, block, strict, counts)


@compiled()
def _sums_of_hair_rows(classes: Bytes, pixels: Bytes, hair: Bytes, sums: Sums) -> None:
    for y in range(HALF):
        row, picture, mask, target = classes[HALF + y], pixels[HALF + y], hair[y], sums[y]
        for x in range(SIZE):
            mask[x] = row[x] == HAIR
            target[x] = np.uint16(picture[3 * x]) + np.uint16(picture[3 * x + 1]) + np.uint16(picture[3 * x + 2])


@compiled()
def _block_sums(values: Bytes | Sums, block: Sums) -> None:
    across = np.empty((HALF, SIZE), np.uint16)
    for y in range(HALF):
        row, target = values[y], across[y]
        for x in range(SIZE):
            target[x] = row[x] + row[x + 1] + row[x + 2] + row[x + 3]
    for y in range(HALF - 3):
        a, b, c, d, target = across[y], across[y + 1], across[y + 2], across[y + 3], block[y]
        for x in range(SIZE):
            target[x] = a[x] + b[x] + c[x] + d[x]


@compiled()
def _hairstyle(hair: Bytes, whole: Sums, block: Sums, strict: bool, counts: Bytes) -> float:
    """See docs/spec/cnn.md, section 8. Rows are those of the lower half; blocks are sums of 48
    values, so its 5 becomes 240.
    """
    total, positions = 0.0, 0
    for y in range(101):
        if strict:
            here, below = whole[y], whole[y + 8]
            for x in range(8, 213):
                counts[x] = here[x] + below[x] + here[x - 8] + here[x + 8] == 4 * 16
        else:
            top, low, third, deep = hair[y], hair[y + 8], hair[y + 3], hair[y + 11]
            for x in range(8, 213):
                counts[x] = top[x] & low[x] & top[x - 8] & top[x + 8] & third[x + 3] & deep[x + 3] & third[x + 11]
            for x in range(11, 213):
                counts[x] &= third[x - 11]
            for x in range(8, 11):  # the misplaced corner leaves the picture on the left and comes back on the right
                counts[x] &= third[x - 11 + SIZE]
        here16, below16 = block[y], block[y + 8]
        for x in range(8, 213):
            if counts[x]:
                center = np.int32(here16[x])
                down = abs(center - np.int32(below16[x]))
                beside = max(abs(center - np.int32(here16[x - 8])), abs(center - np.int32(here16[x + 8])))
                total += down / (beside + 240)
                positions += 1
    return total / positions if positions else 0.45
