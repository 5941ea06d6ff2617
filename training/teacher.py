"""The 19-class parser as a teacher: pictures in, class probabilities and soft hair maps out.

The reference hair maps were made this way: 512x512 pixels, logits times 4 before the soft-max (the published network
leaves its own soft-max unsaturated), 2x2 mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from ohlora.training import checkpoints
from ohlora.training.nets.bisenet import HAIR, BiSeNet

SIZE = 512
SHARPNESS = 4.0
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet


class HairTeacher:
    """Soft hair maps of a face parser, on the CPU."""

    def __init__(self, model: BiSeNet) -> None:
        self.model = model.to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def probabilities(self, image: NDArray[np.uint8], sharpness: float = SHARPNESS) -> NDArray[np.float32]:
        """uint8 RGB [H,W,3] -> class probabilities float32 [19,256,256]; another aspect than 1 is stretched."""
        large = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        values = np.divide(np.asarray(large), 255, dtype=np.float32)
        values = (values - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        tensor = torch.from_numpy(values).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        classes = torch.softmax(self.model.parse(tensor) * sharpness, 1)
        return F.avg_pool2d(classes, 2)[0].numpy()

    def hair(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB [H,W,3] -> hair probability float32 [256,256]."""
        return self.probabilities(image)[HAIR]


def load_teacher(path: Path) -> HairTeacher:
    """The published parser's weights (kind "bisenet-19"). Raises CheckpointError naming the file."""
    model = checkpoints.load("bisenet-19", path)
    assert isinstance(model, BiSeNet)
    return HairTeacher(model)
