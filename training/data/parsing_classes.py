"""What the parsers' class numbers mean, and how the 19 classes of CelebAMask-HQ become the 11 of FaceXFormer
(docs/spec/segmentation.md, section 4; docs/parsing.md, section "Classes"), or 13 with glasses and hats.

Left and right are the picture's: class 4 is the eye on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.photos.segmentation import CLASSES

Map = NDArray[np.uint8]  # class numbers [H,W]


# RGB of each class in overlays.
COLORS: NDArray[np.uint8] = np.array(
    [
        (0, 0, 0),  # background
        (0, 153, 255),  # skin
        (102, 255, 153),  # left_eyebrow
        (0, 204, 153),  # right_eyebrow
        (255, 255, 102),  # left_eye
        (255, 255, 204),  # right_eye
        (255, 153, 0),  # nose
        (255, 102, 255),  # upper_lip
        (102, 0, 51),  # inner_mouth
        (255, 204, 255),  # lower_lip
        (255, 0, 102),  # hair
        (153, 153, 255),  # glasses
        (204, 102, 0),  # hat
    ],
    np.uint8,
)
NAMES11, NAMES13 = CLASSES[:11], CLASSES
BACKGROUND, SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE = range(7)
HAIR, GLASSES, HAT = 10, 11, 12

# Name and class of the common numbering. Brows and eyes get the left one here and are divided by position afterwards:
# the 19-class parser mixes up left and right. FaceXFormer has no class for ears, neck, clothes and hats; glasses lie
# inside the face.
CLASSES19 = (
    ("background", BACKGROUND),
    ("skin", SKIN),
    ("brow_a", LEFT_BROW),
    ("brow_b", LEFT_BROW),
    ("eye_a", LEFT_EYE),
    ("eye_b", LEFT_EYE),
    ("glasses", SKIN),
    ("ear_a", BACKGROUND),
    ("ear_b", BACKGROUND),
    ("earring", BACKGROUND),
    ("nose", NOSE),
    ("inner_mouth", 8),
    ("upper_lip", 7),
    ("lower_lip", 9),
    ("neck", BACKGROUND),
    ("necklace", BACKGROUND),
    ("cloth", BACKGROUND),
    ("hair", HAIR),
    ("hat", BACKGROUND),
)
NAMES19 = tuple(name for name, _ in CLASSES19)
_TO_11 = np.array([target for _, target in CLASSES19], np.uint8)
_TO_13 = _TO_11.copy()
_TO_13[[NAMES19.index("glasses"), NAMES19.index("hat")]] = GLASSES, HAT

# x y of the eye on the left and of the one on the right of the picture, in pixels.
EyePoints = tuple[tuple[float, float], tuple[float, float]]


def map_19_to_11(parsing: Map, eyes: EyePoints | None = None, *, classes: int = len(NAMES11)) -> Map:
    """Class numbers 0..18 [H,W] -> 0..10 [H,W]; 0..12 with `classes` 13.

    eyes: where a face detector sees the two eyes, in the map's pixels; brows and eyes are divided by the perpendicular
    bisector of the two points. Without them the map has to tell (`eyes_from_map`).
    Raises ValueError for a number above 18.
    """
    if parsing.size and parsing.max() >= len(CLASSES19):
        raise ValueError(f"class {parsing.max()} in a map of {len(CLASSES19)} classes: it is of another parser")
    mapped = (_TO_13 if classes == len(NAMES13) else _TO_11)[parsing]
    (left_x, left_y), (right_x, right_y) = eyes_from_map(mapped) if eyes is None else eyes
    rows, columns = np.nonzero((mapped == LEFT_BROW) | (mapped == LEFT_EYE))
    toward_x, toward_y = right_x - left_x, right_y - left_y
    along = (columns - (left_x + right_x) / 2) * toward_x + (rows - (left_y + right_y) / 2) * toward_y
    mapped[rows[along >= 0], columns[along >= 0]] += 1  # a right class follows its left one
    return mapped


def eyes_from_map(mapped: Map) -> EyePoints:
    """Two points that stand for the eyes, from a map whose brows and eyes are not divided yet.

    The first of these that the map has: the middles of its two largest eyes, of its two largest brows (side by side
    both: one brow above the other is one side of a face), else two points beside the middle of the nose, the skin or
    the picture, so that a vertical line divides.
    """
    for part in (LEFT_EYE, LEFT_BROW):
        middles = _two_largest(mapped == part)
        if middles is not None and abs(middles[1][0] - middles[0][0]) > abs(middles[1][1] - middles[0][1]):
            return middles
    for part in (NOSE, SKIN):
        columns = np.nonzero(mapped == part)[1]
        if len(columns):
            return _beside(float(columns.mean()))
    return _beside((mapped.shape[1] - 1) / 2)


def _two_largest(mask: NDArray[np.bool_]) -> EyePoints | None:
    """Middles of the two largest connected parts, the left one first; None when there are fewer."""
    count, _, stats, middles = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 3:  # number 0 is what is not marked
        return None
    largest = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:2]
    (left, right) = sorted((float(x), float(y)) for x, y in middles[largest])
    return left, right


def _beside(x: float) -> EyePoints:
    return (x - 1, 0.0), (x + 1, 0.0)


def eyes_inside(landmarks: NDArray[np.floating], origin: Sequence[float], scale: Sequence[float]) -> EyePoints:
    """Eye points of a detector's landmarks [5,2] in a map of a cutout: origin = x y of the cutout's corner in the
    picture, scale = map pixels per picture pixel, along x and y.
    """
    points = (np.asarray(landmarks[:2], np.float64) - np.asarray(origin)) * np.asarray(scale)
    return (float(points[0, 0]), float(points[0, 1])), (float(points[1, 0]), float(points[1, 1]))


def visualize(image: NDArray[np.uint8], parsing: Map) -> NDArray[np.uint8]:
    """Half picture, half class colour: uint8 RGB [H,W,3] and class numbers 0..12 [H,W] -> uint8 [H,W,3]."""
    return np.rint(0.5 * image + 0.5 * COLORS[parsing]).astype(np.uint8)
