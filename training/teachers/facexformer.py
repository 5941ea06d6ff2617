"""FaceXFormer as a teacher: the documented one; its 11 classes are the common ones
(docs/spec/segmentation.md, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling

from ohlora.training.data.parsing_classes import HAIR, NAMES11, EyePoints
from ohlora.training.nets.facexformer import SIZE, FaceXFormer
from ohlora.training.nets.facexformer_parser import ParseGraph
from ohlora.training.teachers.protocol import Image, Labels, network_input


class FaceXFormerTeacher:
    """224x224 in, 224x224 out; see `Teacher`."""

    name = "facexformer"
    classes = NAMES11

    def __init__(self, model: FaceXFormer, weights: str = "", device: torch.device | str = "cpu") -> None:
        self.weights, self.device = weights, torch.device(device)
        self.graph = ParseGraph(model).to(self.device)

    @torch.no_grad()
    def parse(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Class logits float32 [N,11,224,224]."""
        # Antialiased bicubic, as documented: a tensor's resize is neither.
        logits = self.graph(network_input(images, SIZE, Resampling.BICUBIC, self.device))
        return np.asarray(logits.cpu().numpy())

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """float32 [N,11,224,224]"""
        return np.asarray(torch.softmax(torch.from_numpy(self.parse(images)), 1).numpy())

    def hair(self, image: Image) -> NDArray[np.float32]:
        """float32 [224,224]"""
        return self.probabilities([image])[0, HAIR]

    def labels(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """eyes: not needed, left and right are right."""
        probabilities = self.probabilities(images)
        # NumPy's arg-max is the first of equals, as documented.
        return Labels(probabilities.argmax(1).astype(np.uint8), probabilities[:, HAIR])

    def parsing11(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> NDArray[np.uint8]:
        """uint8 [N,224,224]"""
        return self.labels(images).parsing
