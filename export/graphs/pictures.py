"""Networks that see pictures, as graphs that take bytes: what prepares a picture is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.training.teachers.protocol import DEVIATION, MEAN


def signed(image: Tensor) -> Tensor:
    """uint8 [N,H,W,3] -> float32 [N,3,H,W] in [-1,1]. What is float32 [N,3,H,W] already stays as it is."""
    return image.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0 if image.dtype == torch.uint8 else image


def unit_scale(image: Tensor) -> Tensor:
    """uint8 [N,H,W,3] -> float32 [N,3,H,W] in [0,1]."""
    return image.permute(0, 3, 1, 2).float() / 255.0


def score_scale(image: Tensor) -> Tensor:
    """uint8 [N,H,W,3] -> float32 [N,3,H,W] in [-1,1], in the documented order of operations."""
    return (unit_scale(image) - 0.5) / 0.5


class PictureGraph(nn.Module):
    """image uint8 [N,S,S,3] RGB, and label float32 [N,L] where there is one -> what `read` makes of them.

    read: from the prepared picture (and the label). parts: the modules that it uses, under the names that their weights
    have in the graph.
    """

    def __init__(
        self, read: Callable[..., Any], prepare: Callable[[Tensor], Tensor] = signed, **parts: nn.Module
    ) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.steps = prepare, read  # in a tuple: a module among them is no part by that

    def forward(self, image: Tensor, label: Tensor | None = None) -> Any:
        prepare, read = self.steps
        x = prepare(image)
        return read(x) if label is None else read(x, label)


class TeacherGraph(PictureGraph):
    """image uint8 [N,S,S,3] RGB -> class ids uint8 [N,S,S]; ImageNet normalisation inside, one product and one sum.

    logits: of a normalised picture [N,3,S,S]. parts: see `PictureGraph`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, logits: Callable[[Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__(lambda x: first_class(logits(x)), self._normalized, **parts)
        mean, deviation = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        self.register_buffer("scale", (1 / (255 * deviation)).float())
        self.register_buffer("shift", (-mean / deviation).float())

    def _normalized(self, image: Tensor) -> Tensor:
        return image.permute(0, 3, 1, 2).float() * self.scale + self.shift


def first_class(logits: Tensor) -> Tensor:
    """Class logits [N,C,H,W] -> class ids uint8 [N,H,W], the first of equal maxima."""
    return logits.argmax(1).to(torch.uint8)
