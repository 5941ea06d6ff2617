"""Where a portrait lies in a photograph, and cutting it out the way the hair student saw portraits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb

Floats = NDArray[np.float32]

# The portraits that students learn from are aligned faces: side of the picture per distance between the eyes, and per
# distance from the eyes to the mouth; how far below the eyes its centre lies. Means of the 60 reference portraits.
SIDE_PER_EYES, SIDE_PER_MOUTH = 4.0, 4.2
BELOW_EYES = 0.0265
# A frame that is this much the same as the whole picture (intersection over union) shows a portrait.
PORTRAIT_OVERLAP = 0.5
PORTRAIT_TILT = 25.0  # degrees


@dataclass(frozen=True)
class Frame:
    """A turned rectangle in a photograph. Lengths in pixels; a pixel covers [i, i + 1].

    centre: x, y. right: unit vector along its rows. width, height: its sides.
    """

    centre: tuple[float, float]
    right: tuple[float, float]
    width: float
    height: float

    @property
    def down(self) -> tuple[float, float]:
        return -self.right[1], self.right[0]

    @property
    def tilt(self) -> float:
        """Degrees clockwise from upright."""
        return float(np.degrees(np.arctan2(self.right[1], self.right[0])))

    def matrix(self, columns: int, rows: int) -> NDArray[np.float64]:
        """2x3: indices of a grid of columns x rows pixels over the frame -> pixel indices of the photograph."""
        along = np.stack([np.multiply(self.right, self.width / columns), np.multiply(self.down, self.height / rows)], 1)
        middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
        corner = np.array(self.centre) - 0.5 - along @ middle
        return np.concatenate([along, corner[:, None]], 1)

    def corners(self) -> NDArray[np.float64]:
        """float64 [4,2], clockwise from its top left."""
        x, y = np.multiply(self.right, self.width / 2), np.multiply(self.down, self.height / 2)
        corners: NDArray[np.float64] = np.array(self.centre) + np.stack([-x - y, x - y, x + y, -x + y])
        return corners

    def region(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Rows and columns of a height x width picture that it touches: top, bottom, left, right (end exclusive)."""
        low, high = np.floor(self.corners().min(0)), np.ceil(self.corners().max(0))
        left, right = (int(np.clip(value, 0, width)) for value in (low[0], high[0]))
        top, bottom = (int(np.clip(value, 0, height)) for value in (low[1], high[1]))
        return top, bottom, left, right

    def scaled(self, factor: float) -> Frame:
        """The same frame in the photograph enlarged by `factor`."""
        x, y = self.centre
        return Frame((x * factor, y * factor), self.right, self.width * factor, self.height * factor)

    def grown(self, factor: float, down: float = 0.0) -> Frame:
        """`factor` times as large, its centre moved along its own columns by `down` of the new height."""
        step = np.multiply(self.down, down * factor * self.height)
        centre = float(self.centre[0] + step[0]), float(self.centre[1] + step[1])
        return Frame(centre, self.right, self.width * factor, self.height * factor)


def whole_picture(height: int, width: int) -> Frame:
    return Frame((width / 2, height / 2), (1.0, 0.0), float(width), float(height))


def portrait_frame(landmarks: Floats) -> Frame:
    """The square around a head that a portrait of it would show.

    landmarks: float32 [5,2] of `Detections`. The tilt is that of the line between the eyes and the line to the mouth
    together; the size follows the distance that says more, since turning the head shortens one and nodding the other.
    """
    left, right, _, mouth_left, mouth_right = landmarks.astype(np.float64)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, along = right - left, mouth - eyes
    axis = across + np.array([along[1], -along[0]])
    length = float(np.hypot(*axis))
    axis = axis / length if length > 0 else np.array([1.0, 0.0])
    side = max(SIDE_PER_EYES * float(np.hypot(*across)), SIDE_PER_MOUTH * float(np.hypot(*along)), 1.0)
    centre = eyes + 0.5 + BELOW_EYES * side * np.array([-axis[1], axis[0]])
    return Frame((float(centre[0]), float(centre[1])), (float(axis[0]), float(axis[1])), side, side)


def is_portrait(frame: Frame, height: int, width: int) -> bool:
    """Whether the frame is nearly the whole picture, so that the picture itself is the portrait."""
    picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    common, _ = cv2.intersectConvexConvex(frame.corners().astype(np.float32), picture)
    union = frame.width * frame.height + float(width) * height - common
    return bool(common >= PORTRAIT_OVERLAP * union and abs(frame.tilt) <= PORTRAIT_TILT)


def cut_out(image: Rgb, frame: Frame, columns: int, rows: int) -> Rgb:
    """What the frame shows, uint8 RGB [rows,columns,3]; antialiased, mirrored beyond the picture's border.

    Mirroring is what students saw beyond a border. Works on the part of the picture that the frame touches.
    """
    shrink = max(1.0, min(frame.width / columns, frame.height / rows))
    top, bottom, left, right = frame.region(*image.shape[:2])
    # A few pixels more for interpolation; a frame that lies outside still shows the mirrored border.
    more = 2 + math.ceil(2 * shrink)
    top, left = max(0, min(top, image.shape[0] - 1) - more), max(0, min(left, image.shape[1] - 1) - more)
    part = image[top : max(bottom, top + 1) + more, left : max(right, left + 1) + more]
    matrix = frame.matrix(columns, rows)
    matrix[:, 2] -= left, top
    if shrink > 1:
        size = max(1, round(part.shape[1] / shrink)), max(1, round(part.shape[0] / shrink))
        x, y = size[0] / part.shape[1], size[1] / part.shape[0]
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        matrix = np.array([[x], [y]]) * matrix
        matrix[:, 2] += (x - 1) / 2, (y - 1) / 2
    flags = (cv2.INTER_LINEAR if shrink > 1 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(part, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(shown, np.uint8).reshape(rows, columns, 3)
