"""What every face parser offers as a teacher, and how pictures are brought into a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from ohlora.errors import ImageError
from ohlora.training.data.parsing_classes import EyePoints

SIZE = 224  # of labels, whatever the network's own size
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet

Image = NDArray[np.uint8]  # RGB [H,W,3]
FindEyes = Callable[[Image], EyePoints | None]


@dataclass(frozen=True)
class Labels:
    """What students learn: class numbers 0..10, uint8 [N,224,224], and hair probability, float32 [N,224,224]."""

    parsing: NDArray[np.uint8]
    hair: NDArray[np.float32]


class Teacher(Protocol):
    """A face parser, loaded once. Pictures are uint8 RGB [H,W,3] of any size; another aspect than 1 is stretched.

    One call is one batch. All maps are square. Raises ImageError for an array that is no such picture.
    """

    @property
    def name(self) -> str:
        """Kind of its weights: "facexformer", "bisenet-19"."""
        ...

    @property
    def weights(self) -> str:
        """sha256 of its weights file; empty when it was made from a module."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its own classes, by channel; "hair" is among them."""
        ...

    def parse(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Class logits at the network's own size, float32 [N,classes,S,S]."""
        ...

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Class probabilities as they serve as soft labels, float32 [N,classes,s,s]; they add up to 1."""
        ...

    def hair(self, image: Image) -> NDArray[np.float32]:
        """Hair probability of one picture, float32 [s,s]."""
        ...

    def labels(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """Both labels from one run of the network, in the common 11 classes.

        eyes: where a face detector saw them in each picture, in its pixels, or None where it saw none; for parsers that
        mix up left and right. Left out, a teacher that needs them looks itself.
        """
        ...

    def parsing11(self, images: Sequence[Image], eyes: Sequence[EyePoints | None] | None = None) -> NDArray[np.uint8]:
        """`labels` without the hair: class numbers 0..10, uint8 [N,224,224]."""
        ...


def require_pictures(images: Sequence[Image]) -> None:
    """Raises ImageError naming the array that is no uint8 RGB picture."""
    if not len(images):
        raise ImageError("a teacher was given no picture")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"a teacher takes a list of uint8 RGB pictures [H,W,3], got one of {image.dtype} {list(image.shape)}"
            )


def network_input(images: Sequence[Image], size: int, resampling: PilImage.Resampling, device: torch.device) -> Tensor:
    """Stretched to size x size by Pillow, whose filters are antialiased, then ImageNet-normalised: [N,3,size,size]."""
    require_pictures(images)
    small = [np.asarray(PilImage.fromarray(image).resize((size, size), resampling)) for image in images]
    values = normalized(np.stack(small))
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)


def normalized(image: Image) -> NDArray[np.float32]:
    """uint8 [...,3] -> float32, over 255, minus ImageNet's mean, over its deviation."""
    values = np.divide(image, 255, dtype=np.float32)
    return np.asarray((values - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32), dtype=np.float32)
