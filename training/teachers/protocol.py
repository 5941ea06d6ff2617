"""What every face parser offers as a teacher, and how images are brought into a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from ohlora.base.types import Rgb
from ohlora.errors import ImageError
from ohlora.training.data.parsing_classes import EyePoints

SIZE = 224  # of labels, whatever the network's own size
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet

FindEyes = Callable[[Rgb], EyePoints | None]


@dataclass(frozen=True)
class Labels:
    """What students learn: class numbers 0..10, uint8 [N,224,224], and hair probability, float32 [N,224,224]."""

    parsing: NDArray[np.uint8]
    hair: NDArray[np.float32]


class Labeller(Protocol):
    """Whatever labels images for the stage `parse`. `labels`: see `Teacher.labels`.

    name: kind of its weights ("facexformer", "bisenet-19"). weights: sha256 of its file, empty when made from a module.
    """

    @property
    def name(self) -> str: ...

    @property
    def weights(self) -> str: ...

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels: ...


class Teacher(ABC):
    """A face parser, loaded once. Images are uint8 RGB [H,W,3] of any size; another aspect than 1 is stretched.

    One call is one batch. All maps are square. Raises ImageError for an array that is not such an image.
    `name`, `weights`: see `Labeller`. `classes`: names of its own classes, by channel; "hair" is among them.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    size: ClassVar[int]  # pixels a side that its network sees
    resampling: ClassVar[PilImage.Resampling]

    def __init__(self, weights: str, device: torch.device | str) -> None:
        self.weights, self.device = weights, torch.device(device)

    @abstractmethod
    def network(self, images: Tensor) -> Tensor:
        """What `network_input` makes -> class logits [N,classes,S,S]."""

    @abstractmethod
    def soft_labels(self, logits: Tensor) -> Tensor:
        """Class logits -> probabilities [N,classes,s,s] that add up to 1."""

    @abstractmethod
    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """Both labels from one run of the network, in the common 11 classes.

        eyes: where a face detector saw them in each image, in its pixels, or None where it saw none; for parsers that
        mix up left and right. Left out, a teacher that needs them looks itself.
        """

    def _logits(self, images: Sequence[Rgb]) -> Tensor:
        return self.network(network_input(images, self.size, self.resampling, self.device))

    @torch.no_grad()
    def parse(self, images: Sequence[Rgb]) -> NDArray[np.float32]:
        """Class logits at the network's own size, float32 [N,classes,S,S]."""
        return np.asarray(self._logits(images).cpu().numpy())

    @torch.no_grad()
    def probabilities(self, images: Sequence[Rgb]) -> NDArray[np.float32]:
        """Class probabilities as they serve as soft labels, float32 [N,classes,s,s]; they add up to 1."""
        return np.asarray(self.soft_labels(self._logits(images)).cpu().numpy())

    def hair(self, image: Rgb) -> NDArray[np.float32]:
        """Hair probability of one image, float32 [s,s]."""
        return np.asarray(self.probabilities([image])[0, self.classes.index("hair")])


def network_input(images: Sequence[Rgb], size: int, resampling: PilImage.Resampling, device: torch.device) -> Tensor:
    """Stretched to size x size by Pillow, whose filters are antialiased, then ImageNet-normalized: [N,3,size,size].

    Raises ImageError for an array that is not a uint8 RGB image.
    """
    if not len(images):
        raise ImageError("a teacher was given no picture")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"a teacher takes a list of uint8 RGB pictures [H,W,3], got one of {image.dtype} {list(image.shape)}"
            )
    small = [np.asarray(PilImage.fromarray(image).resize((size, size), resampling)) for image in images]
    values = normalized(np.stack(small))
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)


def normalized(image: Rgb) -> NDArray[np.float32]:
    """uint8 [...,3] -> float32, over 255, minus ImageNet's mean, over its deviation."""
    values = np.divide(image, 255, dtype=np.float32)
    return np.asarray((values - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32), dtype=np.float32)
