"""Stage `parsing`: teach the light student all eleven classes of a face from a teacher's class maps.

Network, loop, sources and split are those of `distill`; label, loss and figures are those of class maps. Pictures are
augmented as for the hair student (`data.augment`), with three differences: a mirrored face has its left and right
classes exchanged; what hides a pixel makes it background; nothing of another person's face is pasted in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.augment import Augmentation, new_framing, recolor_hair, replace_background, spoil
from ohlora.training.data.hair_faces import LabelledPicture, Sample
from ohlora.training.data.parsing_classes import (
    BACKGROUND,
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    NAMES11,
    RIGHT_BROW,
    RIGHT_EYE,
)
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.distill import new_student
from ohlora.training.students.loop import Lesson, Task, learn
from ohlora.training.students.parsing.faces import find_parsed_faces, with_classes
from ohlora.training.students.parsing.metrics import ParsingMetrics
from ohlora.training.students.recipes import ParsingConfig
from ohlora.training.students.sources import REAL, Sources
from ohlora.training.weights.student import load_student

CLASSES = len(NAMES11)
# Class ids of a mirrored picture: sides are those of the picture, so they change places.
MIRRORED = np.arange(CLASSES)
for _left, _right in ((LEFT_BROW, RIGHT_BROW), (LEFT_EYE, RIGHT_EYE)):
    MIRRORED[[_left, _right]] = _right, _left
PLANES = 255 * np.eye(CLASSES, dtype=np.uint8)  # indexed by ids [H,W]: 255 in the plane of each pixel's class, [H,W,11]
RAREST = 1e-4  # share of the pixels: rarer classes (or absent ones) weigh no more


class ClassLesson(Lesson):
    """The share of each class in every pixel."""

    outputs, metrics = CLASSES, ParsingMetrics

    def __init__(self, sources: Sources, config: ParsingConfig) -> None:
        super().__init__(sources, config)
        self.weights = class_weights(sources.pictures, sources.splits[REAL].train, config.balance)

    def example(
        self, sample: Sample, size: int, rng: np.random.Generator, donor: Sample | None
    ) -> tuple[Rgb, NDArray[np.float32]]:
        return class_example(sample, size, rng, self.config.augmentation, donor)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        return class_loss(logits, label, self.weights.to(logits.device), self.config.loss)

    def total(self, logits: Tensor, label: Tensor) -> float:
        return float(self.loss(logits, label)) * len(label)

    def label(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        return class_shares(stored, SIZE)

    def answers(self, logits: Tensor, label: NDArray[np.float32]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
        found = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return zip(found, label.argmax(1).astype(np.uint8), strict=True)


def class_weights(pictures: Sequence[LabelledPicture], indices: NDArray[np.int64], balance: float) -> Tensor:
    """Weight of each class, float32 [11], from how often it occurs in these pictures."""
    counts = np.zeros(CLASSES, np.float64)
    for index in indices:
        counts += np.bincount(pictures[index].read()[1].ravel(), minlength=CLASSES)
    share = counts / counts.sum()
    weights = np.maximum(share, RAREST) ** -balance
    return torch.from_numpy(weights / (weights * share).sum()).float()


def class_loss(logits: Tensor, shares: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Weighed cross-entropy per pixel: logits and shares [N,C,H,W], weights [C]. kind: "soft_ce" or "hard_ce"."""
    target = shares if kind == "soft_ce" else shares.argmax(1)
    pixels = shares.shape[0] * shares.shape[2] * shares.shape[3]
    return F.cross_entropy(logits, target, weight=weights, reduction="sum") / pixels


def build_parser(config: ParsingConfig) -> EffiSegNet:
    """A student of eleven classes: new, from a parsing student, or from a hair student, whose head becomes the hair
    class's while the other classes' start anew. Raises CheckpointError for a student of other classes.
    """
    torch.manual_seed(config.seed)
    if not config.start_from:
        return new_student(config, CLASSES)
    source = load_student(Path(config.start_from), drop_path=config.drop_path, outputs=None)
    if source.outputs != 1:
        return load_student(Path(config.start_from), drop_path=config.drop_path, outputs=CLASSES)
    model = EffiSegNet(source.encoder_name, CLASSES, drop_path=config.drop_path)
    state = source.state_dict()
    head = model.decoder.head.weight.detach().clone()
    head[HAIR] = state["decoder.head.weight"][0]
    model.load_state_dict({**state, "decoder.head.weight": head})
    return model


def as_shares(planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resampled planes [H,W,11] -> shares float32 [11,H,W] that sum to 1."""
    shares = np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)
    return np.asarray(shares / np.maximum(shares.sum(0, keepdims=True), np.float32(1)))


def class_shares(classes: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Ids [H,W] -> share of each class in the pixels of a size x size map, [11,S,S]."""
    interpolation = cv2.INTER_AREA if max(classes.shape) > size else cv2.INTER_LINEAR
    planes = PLANES[classes]
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
    shares = as_shares(framing.label(PLANES[classes]))
    if framing.mirrored:
        shares = shares[MIRRORED]
    image, visible = spoil(framing.picture(image), np.full((size, size), 255, np.uint8), rng, strength, person)
    seen = np.divide(visible, 255, dtype=np.float32)
    shares = shares * seen
    shares[BACKGROUND] += 1 - seen
    return image, shares


def _times_255(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


PARSING = Task(ClassLesson, build_parser, find_parsed_faces, with_classes)
run = partial(learn, PARSING)
