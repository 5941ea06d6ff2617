"""Stage `parsing`: teach the light student all eleven classes of a face from a teacher's class maps.

Network, loop, sources and split are those of `distill`; label, loss and figures are those of class maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.training.data.hair_faces import LabelledPicture, Sample
from ohlora.training.data.parsing_classes import HAIR
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.distill import new_student
from ohlora.training.students.loop import Lesson, Task, learn
from ohlora.training.students.parsing.examples import CLASSES, class_example, class_shares
from ohlora.training.students.parsing.faces import find_parsed_faces, with_classes
from ohlora.training.students.parsing.metrics import ParsingMetrics
from ohlora.training.students.parsing.recipes import ParsingConfig
from ohlora.training.students.sources import REAL, Sources
from ohlora.training.weights.student import load_student

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


PARSING = Task(ClassLesson, build_parser, find_parsed_faces, with_classes)
run = partial(learn, PARSING)
