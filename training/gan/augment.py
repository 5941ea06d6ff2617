"""Differentiable augmentation: the same family of random changes for real and generated pictures before the
discriminator sees them, so that few pictures cannot be learnt by heart (after "DiffAugment").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.recipe import pick

SHIFT = 0.125  # largest translation, as a part of the picture
HOLE = 0.5  # side of the cutout, as a part of the picture


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform [N,1,1,1] in [0,1); drawn on the CPU, so a seed means the same on every device."""
    return torch.rand(like.shape[0], 1, 1, 1, generator=generator).to(like)


def color(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness +-0.5, saturation 0 .. 2, contrast 0.5 .. 1.5, each about its own mean."""
    x = x + (_draw(x, generator) - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (_draw(x, generator) * 2) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (_draw(x, generator) + 0.5) + level


def translation(x: Tensor, generator: torch.Generator) -> Tensor:
    """Whole-pixel shift of up to SHIFT, zeros moving in."""
    n, _, height, width = x.shape
    reach = [int(side * SHIFT + 0.5) for side in (height, width)]
    dy, dx = (torch.randint(-r, r + 1, (n,), generator=generator).to(x.device) for r in reach)
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
    rows = torch.arange(height, device=x.device)[None] + reach[0] + dy[:, None]  # [N, H]
    columns = torch.arange(width, device=x.device)[None] + reach[1] + dx[:, None]
    sample = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, generator: torch.Generator) -> Tensor:
    """A square of HOLE times the picture's side, anywhere, set to 0."""
    n, _, height, width = x.shape
    inside = []
    for side in (height, width):
        half = int(side * HOLE) / 2
        centre = torch.randint(0, side + 1, (n, 1), generator=generator).to(x.device)
        inside.append((torch.arange(side, device=x.device)[None] + 0.5 - centre).abs() < half)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x * (~hole)[:, None].to(x.dtype)


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every second picture, by chance."""
    return torch.where(_draw(x, generator) < 0.5, x.flip(3), x)


AUGMENTS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
    "flip": flip,
}


def augment(x: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """x [N,3,H,W] with the named changes in order; gradients flow through.

    Raises InvalidInputError for unknown names.
    """
    for name in names:
        x = pick(AUGMENTS, name, "augmentation")(x, generator)
    return x
