"""Stage `distill`: teach a light student the teacher's hair maps (docs/spec/segmentation.md, section 6).

Recipes are rows of `recipes.PRESETS`; the loop (`loop`) is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.augment import augment
from ohlora.training.data.hair_faces import Sample, find_faces
from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER, SIZE, EffiSegNet
from ohlora.training.students.loop import Lesson, Task, learn
from ohlora.training.students.metrics import LOSSES, HairMetrics
from ohlora.training.students.recipes import DistillConfig
from ohlora.training.weights.student import documented_encoder_state, imagenet_encoder_state, load_student


class HairLesson(Lesson):
    """The share of hair in every pixel."""

    outputs, divisor = 1, SIZE * SIZE

    def metrics(self) -> HairMetrics:
        return HairMetrics()

    def example(
        self, sample: Sample, size: int, rng: np.random.Generator, donor: Sample | None
    ) -> tuple[Rgb, NDArray[np.float32]]:
        image, label, parsing = sample
        strength = self.config.augmentation
        if strength is not None:
            image, label = augment(image, label, parsing, size, rng, strength, None if donor is None else donor[:2])
        else:
            image, label = resize_area(image, (size, size)), resize_area(label, (size, size))
        return image, np.divide(label[None], 255, dtype=np.float32)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        return LOSSES[self.config.loss](logits, label) / label.numel()

    def total(self, logits: Tensor, label: Tensor) -> float:
        return float(LOSSES[self.config.loss](logits, label))

    def label(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.divide(resize_area(stored, (SIZE, SIZE))[None], 255, dtype=np.float32)

    def answers(self, logits: Tensor, label: NDArray[np.float32]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
        return zip(torch.sigmoid(logits)[:, 0].cpu().numpy(), label[:, 0], strict=True)


def build_model(config: DistillConfig) -> EffiSegNet:
    torch.manual_seed(config.seed)
    if config.start_from:
        return load_student(Path(config.start_from), drop_path=config.drop_path)
    return new_student(config)


def new_student(config: DistillConfig, outputs: int = 1) -> EffiSegNet:
    """An untrained student with the encoder weights that the recipe starts from."""
    model = EffiSegNet(config.encoder, outputs, drop_path=config.drop_path)
    if config.encoder_weights:
        if config.encoder != DOCUMENTED_ENCODER:
            raise InvalidInputError(f"--encoder-weights are those of {DOCUMENTED_ENCODER}, not of '{config.encoder}'")
        documented_encoder_state(Path(config.encoder_weights), model.encoder)
    elif config.imagenet:
        model.encoder.load_state_dict(imagenet_encoder_state(config.encoder, model.encoder))
    return model


HAIR = Task(HairLesson, build_model, find_faces, view=lambda picture: picture)
run = partial(learn, HAIR)
