"""The documented way to score a face: Python loops over the whole map, one for each property, nothing tuned.

Written from docs/spec/properties.md, sections 2 and 3, and docs/spec/cnn.md, section 8. Speed and
results are compared with this.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.uint8]
Picture = NDArray[np.uint8]
SIZE = 224


def documented_v1(parsing: Map, image: Picture) -> list[float]:
    """The seven scores of the first algorithm, of one picture."""
    hair = hair_color_v1(parsing, image), hair_length_v1(parsing)
    return [eyes_v1(parsing), *hair, mouth_v1(parsing), pose_v1(parsing), *background(parsing, image)]


def documented_v2(parsing: Map, image: Picture) -> list[float]:
    """The seven scores of the second algorithm, of one picture."""
    eyes, pose = eyes_and_pose_v2(parsing)
    hair = hair_color_v2(parsing, image), hair_length_v2(parsing)
    return [eyes, *hair, mouth_v2(parsing), pose, *background(parsing, image)]


def documented_hairstyle(parsing: Map, image: Picture) -> list[float]:
    """The hairstyle score of one picture."""

    def mean_of_block(y: int, x: int) -> float:
        return float(np.mean(image[y : y + 4, x : x + 4, :]))

    ratios = []
    for x in range(8, 213):
        for y in range(112, 213):
            pixels = [(0, 0), (8, 0), (0, -8), (0, 8), (3, 3), (11, 3), (3, -11), (3, 11)]
            if all(parsing[y + dy, x + dx] == 10 for dy, dx in pixels):
                center, below = mean_of_block(y, x), mean_of_block(y + 8, x)
                left, right = mean_of_block(y, x - 8), mean_of_block(y, x + 8)
                ratios.append(abs(center - below) / (max(abs(center - left), abs(center - right)) + 5))
    return [float(np.mean(ratios)) if ratios else 0.45]


DOCUMENTED: dict[str, Callable[[Map, Picture], list[float]]] = {
    "v1": documented_v1,
    "v2": documented_v2,
    "hairstyle": documented_hairstyle,
}


def documented(algorithm: str, parsing: NDArray[np.uint8], images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The documents' loops over some maps: float64 [N,C]."""
    return np.array([DOCUMENTED[algorithm](p, i) for p, i in zip(parsing, images, strict=True)], np.float64)


def rows_of(parsing: Map, wanted: int, rows: range = range(SIZE), columns: range = range(SIZE)) -> list[int]:
    """Rows with a pixel of the class."""
    found = []
    for y in rows:
        for x in columns:
            if parsing[y, x] == wanted:
                found.append(y)
                break
    return found


def height(rows: list[int]) -> int:
    return rows[-1] - rows[0] if rows else 0


def brightness(parsing: Map, image: Picture, wanted: int, rows: int = SIZE) -> list[float]:
    """Mean of the three channels of every pixel of the class."""
    means = np.mean(image, axis=2)
    values = []
    for y in range(rows):
        for x in range(SIZE):
            if parsing[y, x] == wanted:
                values.append(means[y, x])
    return values


def eyes_v1(parsing: Map) -> float:
    left = rows_of(parsing, 4, range(56, 140), range(168))
    right = rows_of(parsing, 5, range(56, 140), range(56, 224))
    return (height(left) + height(right)) / 2


def hair_color_v1(parsing: Map, image: Picture) -> float:
    values = brightness(parsing, image, 10)
    return float(np.median(values)) if values else math.nan


def hair_length_v1(parsing: Map) -> float:
    rows = rows_of(parsing, 10)
    if not rows:
        return math.nan
    if rows[-1] < 223:
        return rows[-1]
    return 223 + sum(bool(parsing[223, x] == 10) for x in range(SIZE)) / 2


def mouth_v1(parsing: Map) -> float:
    return height(sorted(rows_of(parsing, 7) + rows_of(parsing, 9))) + height(rows_of(parsing, 8))


def pose_v1(parsing: Map) -> float:
    points = [(x, y) for y in range(SIZE) for x in range(SIZE) if parsing[y, x] == 6]
    if len({x for x, _ in points}) < 2 or len({y for _, y in points}) < 2:
        return math.nan
    return -float(np.corrcoef(np.array(points).T)[0, 1])


def background(parsing: Map, image: Picture) -> tuple[float, float]:
    values = sorted(brightness(parsing, image, 0, rows=112))
    if len(values) < 2:
        return (float(values[0]), 0.0) if values else (192.0, 0.0)
    kept = values[int(0.05 * len(values)) : int(0.95 * len(values))]
    return float(np.mean(kept)), float(np.std(kept))


def eyes_and_pose_v2(parsing: Map) -> tuple[float, float]:
    pixels: dict[int, list[tuple[int, int]]] = {4: [], 5: []}
    for eye, columns in ((4, range(168)), (5, range(56, 224))):
        for x in columns:
            for y in range(56, 168):
                if parsing[y, x] == eye:
                    pixels[eye].append((x, y))
    score = max(opening(pixels[4]), opening(pixels[5]))
    if not pixels[4] or not pixels[5]:
        return score, 0.0
    (left_x, left_y), (right_x, right_y) = (np.mean(pixels[eye], axis=0) for eye in (4, 5))
    return score, float((right_y - left_y) / (right_x - left_x)) if right_x != left_x else math.nan


def opening(pixels: list[tuple[int, int]]) -> float:
    """Tallest column times the cosine of the farthest pair, found by comparing every pair."""
    columns: dict[int, list[int]] = {}
    for x, y in pixels:
        columns.setdefault(x, []).append(y)
    tallest = max((max(ys) - min(ys) for ys in columns.values()), default=0)
    longest, cosine = 0, 1.0
    for i in range(len(pixels)):
        for j in range(i):
            dx, dy = pixels[i][0] - pixels[j][0], pixels[i][1] - pixels[j][1]
            squared = dx * dx + dy * dy
            if squared > longest:
                longest, cosine = squared, abs(dx) / math.sqrt(squared)
    return tallest * cosine


def hair_color_v2(parsing: Map, image: Picture) -> float:
    values = sorted(brightness(parsing, image, 10))
    kept = values[int(0.1 * len(values)) : int(0.9 * len(values))]
    return float(np.mean(kept)) if kept else 127.5


def hair_length_v2(parsing: Map) -> float:
    length = 0.0
    for y in range(56, SIZE):
        if sum(parsing[y, x] == 10 for x in range(SIZE)) >= 20:
            length += 1
            if y == 223:
                left = sum(parsing[y, x] == 10 for x in range(112))
                right = sum(parsing[y, x] == 10 for x in range(112, SIZE))
                length += max(left - 10, 0) / 2 + max(right - 10, 0) / 2
    return length


def mouth_v2(parsing: Map) -> float:
    inner = lips = 0
    for y in range(SIZE):
        for x in range(SIZE):
            if parsing[y, x] == 8:
                inner += 1
            elif parsing[y, x] == 7 or parsing[y, x] == 9:
                lips += 1
    return inner / (inner + lips) if inner + lips else 0.0
