"""The 19-class BiSeNet as a teacher: images in, class probabilities, soft hair maps and 11-class maps out.

The reference maps were made this way: 512x512 pixels, logits times 4 before the soft-max (the published network leaves
its own soft-max unsaturated), 2x2 mean, arg-max of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.training.data.parsing_classes import NAMES19, EyePoints, eyes_inside, map_19_to_11
from ohlora.training.nets.bisenet import HAIR, BiSeNet
from ohlora.training.teachers.protocol import SIZE, FindEyes, Labels, Teacher, network_input

INPUT = 512
MAP = INPUT // 2
SHARPNESS = 4.0
# Channels of the mirrored image: the two brows, eyes and ears change places.
_MIRRORED = [NAMES19.index({"_a": name[:-1] + "b", "_b": name[:-1] + "a"}.get(name[-2:], name)) for name in NAMES19]
# Row or column of the 256 map that a 224 map takes, as in the reference maps for property scores.
_NEAREST = np.arange(SIZE) * MAP // SIZE


def detected_eyes(image: Rgb) -> EyePoints | None:
    """Eye points of the largest face that MTCNN finds, in pixels; None without a face."""
    from ohlora.training.teachers.mtcnn import detect

    faces = detect(image)
    return eyes_inside(faces.landmarks[0], (0, 0), (1, 1)) if len(faces) else None


class BiSeNetTeacher(Teacher):
    """512x512 in and out, soft labels of 256x256.

    find_eyes: tells left from right in 11-class maps; None: from the map itself (`parsing_classes.eyes_from_map`).
    """

    name, classes, size, resampling = "bisenet-19", NAMES19, INPUT, Resampling.BILINEAR

    def __init__(
        self,
        model: BiSeNet,
        weights: str = "",
        device: torch.device | str = "cpu",
        find_eyes: FindEyes | None = detected_eyes,
    ) -> None:
        super().__init__(weights, device)
        self.find_eyes = find_eyes
        self.model = model.to(memory_format=torch.channels_last).to(self.device).eval()

    def network(self, images: Tensor) -> Tensor:
        return self.model.parse(images)

    def soft_labels(self, logits: Tensor) -> Tensor:
        return F.avg_pool2d(torch.softmax(logits * SHARPNESS, 1), 2)

    @torch.no_grad()
    def best_probabilities(self, images: Sequence[Rgb], precision: str = "fp32") -> NDArray[np.float32]:
        """The network at its best: at its own size, the logits of each image and of its mirror image averaged.

        precision: "fp32", or "bf16" for a third of the time where the CPU has it.
        Returns class probabilities float32 [N,19,512,512].
        """
        x = network_input(images, self.size, self.resampling, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            straight, mirrored = self.network(x), self.network(x.flip(3))
        logits = (straight.float() + mirrored.float().flip(3)[:, _MIRRORED]) / 2
        return np.asarray(torch.softmax(logits * SHARPNESS, 1).cpu().numpy())

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """Classes from the 256 maps by nearest pixel, hair by area."""
        if eyes is None:
            eyes = [None if self.find_eyes is None else self.find_eyes(image) for image in images]
        parsing, hair = [], []
        for image, classes, points in zip(images, self.probabilities(images), eyes, strict=True):
            height, width = image.shape[:2]
            inside = None if points is None else eyes_inside(np.array(points), (0, 0), (MAP / width, MAP / height))
            parsing.append(map_19_to_11(classes.argmax(0).astype(np.uint8), inside)[_NEAREST][:, _NEAREST])
            hair.append(cv2.resize(classes[HAIR], (SIZE, SIZE), interpolation=cv2.INTER_AREA))
        return Labels(np.stack(parsing), np.clip(np.stack(hair), 0, 1))
