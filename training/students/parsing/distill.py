"""Stage `parsing`: teach the light student all classes of a face, 11 or 13, from a teacher's class maps.

Network, loop, sources and split are those of `distill`; label, loss and figures are those of class maps. Pictures are
augmented as for the hair student (`data.augment`), with three differences: a mirrored face has its left and right
classes exchanged; what hides a pixel makes it background; what is pasted of another person keeps its classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.augment import (
    Augmentation,
    Person,
    beside,
    new_framing,
    recolor_hair,
    replace_background,
    spoil,
)
from ohlora.training.data.hair_faces import LabelledPicture, Sample
from ohlora.training.data.parsing_classes import (
    BACKGROUND,
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    NAMES11,
    NAMES13,
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

MOST = len(NAMES13)
# Class ids of a mirrored picture: sides are those of the picture, so they change places.
MIRRORED = np.arange(MOST)
for _left, _right in ((LEFT_BROW, RIGHT_BROW), (LEFT_EYE, RIGHT_EYE)):
    MIRRORED[[_left, _right]] = _right, _left
PLANES = 255 * np.eye(MOST, dtype=np.uint8)  # indexed by ids [H,W]: 255 in the plane of each pixel's class, [H,W,13]
RAREST = 1e-4  # share of the pixels: rarer classes (or absent ones) weigh no more
COUNTED = 1000  # pictures that say how often classes occur


class ClassLesson(Lesson):
    """The share of each class in every pixel."""

    config: ParsingConfig

    def __init__(self, sources: Sources, config: ParsingConfig) -> None:
        super().__init__(sources, config)
        self.outputs = config.outputs
        self.weights = class_weights(sources.pictures, sources.splits[REAL].train, config)

    def metrics(self) -> ParsingMetrics:
        return ParsingMetrics(NAMES13[: self.outputs])

    def example(
        self, sample: Sample, size: int, rng: np.random.Generator, donor: Sample | None
    ) -> tuple[Rgb, NDArray[np.float32]]:
        return class_example(sample, size, rng, self.config.augmentation, donor, self.outputs)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = class_loss(logits, label, self.weights.to(logits.device), self.config.loss)
        return loss + self.config.hair * hair_loss(logits, label) if self.config.hair else loss

    def total(self, logits: Tensor, label: Tensor) -> float:
        return float(self.loss(logits, label)) * len(label)

    def label(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        return class_shares(stored, SIZE, self.outputs)

    def answers(self, logits: Tensor, label: NDArray[np.float32]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
        found = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return zip(found, label.argmax(1).astype(np.uint8), strict=True)


def class_weights(pictures: Sequence[LabelledPicture], indices: NDArray[np.int64], config: ParsingConfig) -> Tensor:
    """Weight of each class, float32 [C], from how often it occurs in these pictures (COUNTED of them, if more)."""
    counts = np.zeros(config.outputs, np.float64)
    for index in indices[:: math.ceil(len(indices) / COUNTED)]:
        counts += np.bincount(pictures[index].read()[1].ravel(), minlength=config.outputs)
    share = counts / counts.sum()
    weights = np.maximum(share, RAREST) ** -config.balance
    return torch.from_numpy(weights / (weights * share).sum()).float()


def class_loss(logits: Tensor, shares: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Weighed cross-entropy per pixel: logits and shares [N,C,H,W], weights [C]. kind: "soft_ce" or "hard_ce"."""
    target = shares if kind == "soft_ce" else shares.argmax(1)
    pixels = shares.shape[0] * shares.shape[2] * shares.shape[3]
    return F.cross_entropy(logits, target, weight=weights, reduction="sum") / pixels


def hair_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy of hair against everything else, per pixel: logits and shares [N,C,H,W]."""
    others = torch.cat([logits[:, :HAIR], logits[:, HAIR + 1 :]], 1)
    return F.binary_cross_entropy_with_logits(logits[:, HAIR] - others.logsumexp(1), shares[:, HAIR])


def build_parser(config: ParsingConfig) -> EffiSegNet:
    """A student of the recipe's classes: new, from a parsing student of as many or fewer, or from a hair student, whose
    head becomes the hair class's while the other classes' start anew. Raises CheckpointError for a student of more.
    """
    torch.manual_seed(config.seed)
    if not config.start_from:
        return new_student(config, config.outputs)
    source = load_student(Path(config.start_from), drop_path=config.drop_path, outputs=None)
    if source.outputs >= config.outputs:
        return load_student(Path(config.start_from), drop_path=config.drop_path, outputs=config.outputs)
    model = EffiSegNet(source.encoder_name, config.outputs, drop_path=config.drop_path)
    state = source.state_dict()
    head = model.decoder.head.weight.detach().clone()
    known = state["decoder.head.weight"]
    head[[HAIR] if len(known) == 1 else range(len(known))] = known
    model.load_state_dict({**state, "decoder.head.weight": head})
    return model


def as_shares(planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resampled planes [H,W,C] -> shares float32 [C,H,W] that sum to 1."""
    shares = np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)
    return np.asarray(shares / np.maximum(shares.sum(0, keepdims=True), np.float32(1)))


def class_shares(classes: NDArray[np.uint8], size: int, outputs: int = len(NAMES11)) -> NDArray[np.float32]:
    """Ids [H,W] -> share of each of the classes in the pixels of a size x size map, [outputs,S,S]."""
    interpolation = cv2.INTER_AREA if max(classes.shape) > size else cv2.INTER_LINEAR
    planes = PLANES[:, :outputs][classes]
    if classes.shape == (size, size):
        return as_shares(planes)
    # OpenCV resizes by area four channels at a time at most.
    parts = [
        cv2.resize(np.ascontiguousarray(planes[..., i : i + 4]), (size, size), interpolation=interpolation)
        for i in range(0, outputs, 4)
    ]
    return as_shares(np.dstack(parts).astype(np.uint8, copy=False))


def class_example(
    sample: Sample,
    size: int,
    rng: np.random.Generator,
    strength: Augmentation | None,
    donor: Sample | None,
    outputs: int = len(NAMES11),
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Picture [S,S,3] and class shares [outputs,S,S], augmented where strengths are given."""
    image, classes, parsing = sample
    if strength is None:
        return resize_area(image, (size, size)), class_shares(classes, size, outputs)
    person = None if donor is None else (donor[0], _times_255(donor[1] != BACKGROUND))
    if parsing is not None and rng.random() < strength.new_background:
        image = replace_background(image, parsing, rng, None if person is None else person[0])
    if rng.random() < strength.new_hair_color:
        image = recolor_hair(image, _times_255(classes == HAIR), rng)
    both = donor is not None and donor[2] is not None and parsing is not None
    # Drawn only where it is asked for: other recipes draw what they always drew.
    if both and strength.companion and rng.random() < strength.companion:
        image, classes = beside(cast(Person, sample), cast(Person, donor), rng, image)
    framing = new_framing((image.shape[0], image.shape[1]), size, rng, strength)
    shares = as_shares(framing.label(PLANES[:, :outputs][classes]))
    if framing.mirrored:
        shares = shares[MIRRORED[:outputs]]
    image, visible = spoil(framing.picture(image), np.full((size, size), 255, np.uint8), rng, strength, person)
    seen = np.divide(visible, 255, dtype=np.float32)
    shares = shares * seen
    shares[BACKGROUND] += 1 - seen
    return image, shares


def _times_255(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def parsing_task(config: ParsingConfig) -> Task[ParsingConfig]:
    return Task(ClassLesson, build_parser, partial(find_parsed_faces, classes=config.outputs), with_classes)


def run(data: Sequence[Path], out: Path, config: ParsingConfig, **how: Any) -> tuple[dict[str, Any], Sources]:
    """`loop.learn` with the recipe's classes."""
    return learn(parsing_task(config), data, out, config, **how)
