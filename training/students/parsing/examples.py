"""A picture with class ids -> what the parsing student learns from: the picture and each class's share of every pixel.

Augmented as for the hair student (`data.augment`), with three differences: a mirrored face has its left and right
classes exchanged; what hides a pixel makes it background; nothing of another person's face is pasted in.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.photos.segmentation import resize_area
from ohlora.training.data.augment import Augmentation, new_framing, recolor_hair, replace_background, spoil
from ohlora.training.data.hair_faces import Sample
from ohlora.training.data.parsing_classes import (
    BACKGROUND,
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    NAMES11,
    RIGHT_BROW,
    RIGHT_EYE,
)

CLASSES = len(NAMES11)
# Class ids of a mirrored picture: sides are those of the picture, so they change places.
MIRRORED = np.arange(CLASSES)
for _left, _right in ((LEFT_BROW, RIGHT_BROW), (LEFT_EYE, RIGHT_EYE)):
    MIRRORED[[_left, _right]] = _right, _left
_PLANES = 255 * np.eye(CLASSES, dtype=np.uint8)


def class_planes(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids [H,W] -> 255 in the plane of each pixel's class, [H,W,11]."""
    return _PLANES[classes]


def as_shares(planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resampled planes [H,W,11] -> shares float32 [11,H,W] that sum to 1."""
    shares = np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)
    return np.asarray(shares / np.maximum(shares.sum(0, keepdims=True), np.float32(1)))


def class_shares(classes: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Ids [H,W] -> share of each class in the pixels of a size x size map, [11,S,S]."""
    interpolation = cv2.INTER_AREA if max(classes.shape) > size else cv2.INTER_LINEAR
    planes = class_planes(classes)
    if classes.shape == (size, size):
        return as_shares(planes)
    # OpenCV resizes by area four channels at a time at most.
    parts = [
        cv2.resize(np.ascontiguousarray(planes[..., i : i + 4]), (size, size), interpolation=interpolation)
        for i in range(0, CLASSES, 4)
    ]
    return as_shares(np.concatenate(parts, axis=2).astype(np.uint8, copy=False))


def class_example(
    sample: Sample, size: int, rng: np.random.Generator, strength: Augmentation | None, donor: Sample | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Picture [S,S,3] and class shares [11,S,S], augmented where strengths are given."""
    image, classes, parsing = sample
    if strength is None:
        return resize_area(image, (size, size)), class_shares(classes, size)
    person = None if donor is None else (donor[0], _times_255(donor[1] != BACKGROUND))
    if parsing is not None and rng.random() < strength.new_background:
        image = replace_background(image, parsing, rng, None if person is None else person[0])
    if rng.random() < strength.new_hair_color:
        image = recolor_hair(image, _times_255(classes == HAIR), rng)
    framing = new_framing((image.shape[0], image.shape[1]), size, rng, strength)
    shares = as_shares(framing.label(class_planes(classes)))
    if framing.mirrored:
        shares = shares[MIRRORED]
    image, visible = spoil(framing.picture(image), np.full((size, size), 255, np.uint8), rng, strength, person)
    seen = np.divide(visible, 255, dtype=np.float32)
    shares = shares * seen
    shares[BACKGROUND] += 1 - seen
    return image, shares


def _times_255(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)
