"""FaceXFormer as a teacher: the documented one; its 11 classes are the common ones
(docs/spec/segmentation.md, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

from ohlora.base.types import Rgb
from ohlora.training.data.parsing_classes import HAIR, NAMES11, EyePoints
from ohlora.training.nets.facexformer import SIZE, FaceXFormer
from ohlora.training.nets.facexformer_parser import ParseGraph
from ohlora.training.teachers.protocol import Labels, Teacher


class FaceXFormerTeacher(Teacher):
    """224x224 in, 224x224 out."""

    # Antialiased bicubic, as documented: a tensor's resize is neither.
    name, classes, size, resampling = "facexformer", NAMES11, SIZE, Resampling.BICUBIC

    def __init__(self, model: FaceXFormer, weights: str = "", device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        self.graph = ParseGraph(model).to(self.device)

    def network(self, images: Tensor) -> Tensor:
        logits: Tensor = self.graph(images)
        return logits

    def soft_labels(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits.cpu(), 1)

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """eyes: not needed, left and right are right."""
        probabilities = self.probabilities(images)
        # NumPy's arg-max is the first of equals, as documented.
        return Labels(probabilities.argmax(1).astype(np.uint8), probabilities[:, HAIR])
