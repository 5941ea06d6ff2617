"""The 19-class BiSeNet as a teacher: pictures in, class probabilities, soft hair maps and 11-class maps out.

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
from torch.nn import functional as F

from ohlora.training.data.parsing_classes import NAMES19, EyePoints, eyes_inside, map_19_to_11
from ohlora.training.nets.bisenet import HAIR, BiSeNet
from ohlora.training.teachers.protocol import SIZE, FindEyes, Image, Labels, network_input

INPUT = 512
MAP = INPUT // 2
SHARPNESS = 4.0
# Row or column of the 256 map that a 224 map takes, as in the reference maps for property scores.
_NEAREST = np.arange(SIZE) * MAP // SIZE


def detected_eyes(image: Image) -> EyePoints | None:
    """Eye points of the largest face that MTCNN finds, in pixels; None without a face."""
    from ohlora.training.teachers.mtcnn import detect

    found = detect(image)
    return eyes_inside(found.landmarks[0], (0, 0), (1, 1)) if len(found) else None


class BiSeNetTeacher:
    """512x512 in and out, soft labels of 256x256; see `Teacher`.

    find_eyes: tells left from right in 11-class maps; None: from the map itself (`parsing_classes.eyes_from_map`).
    """

    name = "bisenet-19"
    classes = NAMES19

    def __init__(
        self,
        model: BiSeNet,
        weights: str = "",
        device: torch.device | str = "cpu",
        find_eyes: FindEyes | None = detected_eyes,
    ) -> None:
        self.weights, self.device, self.find_eyes = weights, torch.device(device), find_eyes
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def _logits(self, images: Sequence[Image]) -> torch.Tensor:
        return self.model.parse(network_input(images, INPUT, Resampling.BILINEAR, self.device))

    @torch.no_grad()
    def parse(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Class logits float32 [N,19,512,512], as the network gives them."""
        return np.asarray(self._logits(images).cpu().numpy())

    @torch.no_grad()
    def probabilities(self, images: Sequence[Image], sharpness: float = SHARPNESS) -> NDArray[np.float32]:
        """float32 [N,19,256,256]; sharpness: factor of the logits."""
        classes = torch.softmax(self._logits(images) * sharpness, 1)
        return np.asarray(F.avg_pool2d(classes, 2).cpu().numpy())

    def hair(self, image: Image) -> NDArray[np.float32]:
        """float32 [256,256]"""
        return self.probabilities([image])[0, HAIR]

    def maps11(
        self,
        images: Sequence[Image],
        probabilities: NDArray[np.float32],
        eyes: Sequence[EyePoints | None] | None = None,
    ) -> NDArray[np.uint8]:
        """Class numbers 0..10, uint8 [N,256,256], of `probabilities(images)`. eyes: see `Teacher.labels`."""
        if eyes is None:
            eyes = [None if self.find_eyes is None else self.find_eyes(image) for image in images]
        maps = []
        for image, classes, points in zip(images, probabilities, eyes, strict=True):
            height, width = image.shape[:2]
            inside = None if points is None else eyes_inside(np.array(points), (0, 0), (MAP / width, MAP / height))
            maps.append(map_19_to_11(classes.argmax(0).astype(np.uint8), inside))
        return np.stack(maps)

    def labels(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """Classes from the 256 maps by nearest pixel, hair by area."""
        probabilities = self.probabilities(images)
        parsing = self.maps11(images, probabilities, eyes)[:, _NEAREST][:, :, _NEAREST]
        hair = [cv2.resize(one[HAIR], (SIZE, SIZE), interpolation=cv2.INTER_AREA) for one in probabilities]
        return Labels(parsing, np.clip(np.stack(hair), 0, 1))

    def parsing11(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> NDArray[np.uint8]:
        """uint8 [N,224,224]"""
        return self.labels(images, eyes).parsing
