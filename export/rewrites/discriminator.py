"""Exact inference rewrites of a StyleGAN discriminator, and its graph (docs/spec/stylegan.md, section 4).

The minibatch standard deviation makes a score depend on the whole batch. The graph either keeps that definition
(statistics "batch") or scores every picture as a batch of its own ("alone").
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.export.rewrites.generator import fold_gains, require_finished
from ohlora.training.nets.stylegan_discriminator import Block, Discriminator, FinalBlock
from ohlora.training.nets.stylegan_layers import EPSILON, DownConv, leaky, scaled, widen

Statistics = Literal["batch", "alone"]


def drop_dead_from_rgb(module: Discriminator) -> Discriminator:
    """FromRGB layers of all blocks but the first are removed: at level of detail 0 only that one sees the picture."""
    result = copy.deepcopy(module)
    for block in result.blocks[1:]:
        block.from_rgb = nn.Identity()
    return result


class StoredDownConv(nn.Module):
    """Blur, then 3x3 convolution and 2x2 mean as one stored 4x4 stride-2 convolution."""

    kernel: Tensor

    def __init__(self, source: DownConv) -> None:
        super().__init__()
        self.register_buffer("kernel", widen(scaled(source.weight, source.weight_gain * 0.25)).contiguous())
        self.bias = source.bias
        self.blur = copy.deepcopy(source.blur)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.blur(x), self.kernel, self.bias, stride=2, padding=1)


@torch.no_grad()
def store_downsampling(module: Discriminator) -> Discriminator:
    """3x3 convolution and 2x2 mean, 36 taps a pixel, are one stored 4x4 stride-2 convolution of 16."""
    result = copy.deepcopy(module)
    for block in result.blocks[:-1]:
        block.down = StoredDownConv(cast(DownConv, block.down))
    return result


def rewrite_discriminator(module: Discriminator) -> Discriminator:
    """All passes. The result is for inference at level of detail 0 only; `module` is left as it is.

    Raises InvalidInputError for a discriminator that stands at another level.
    """
    require_finished("discriminator", module.lod)
    return store_downsampling(drop_dead_from_rgb(fold_gains(module))).eval()


class DiscriminatorGraph(nn.Module):
    """image (and label float32 [N,L]) -> score float32 [N,1], of a rewritten discriminator.

    image: uint8 [N,R,R,3] RGB, or float32 [N,3,R,R] in [-1,1].
    """

    def __init__(self, rewritten: Discriminator, statistics: Statistics) -> None:
        super().__init__()
        self.network, self.statistics = rewritten, statistics

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        if image.dtype == torch.uint8:
            image = image.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0
        first = cast(Block, self.network.blocks[0])
        x = leaky(first.from_rgb(image))
        for block in self.network.blocks[:-1]:
            x = block(x)
        last = cast(FinalBlock, self.network.blocks[-1])
        if self.statistics == "batch":
            spread = batch_spread(x, last.group)
        else:
            spread = torch.full_like(x[:, :1, :1, :1], EPSILON**0.5)  # one sample does not differ from itself
        x = torch.cat([x, spread.expand(-1, 1, *x.shape[2:])], 1)
        x = last.dense(leaky(last.conv(x)).flatten(1))
        score: Tensor = self.network.score(x if label is None else torch.cat([x, label], 1))
        return score


def batch_spread(x: Tensor, group: int) -> Tensor:
    """`stylegan_layers.minibatch_std` as ONNX nodes for any batch size; only for export.

    The tracer would freeze the size of the groups, which min(group, N) makes depend on the batch. A batch that cannot
    be cut into groups fails in the Reshape, as the module refuses it.
    """
    symbolic = torch.onnx.ops.symbolic
    flat = x.flatten(1)
    count, width = flat.shape
    size = symbolic("Shape", (x,), {"start": 0, "end": 1}, dtype=torch.int64, shape=(1,))
    members = symbolic("Min", (size, torch.tensor([group])), dtype=torch.int64, shape=(1,))
    shape = torch.cat([members, torch.tensor([-1, width])])
    several = torch.sym_min(count, group)
    grouped = symbolic("Reshape", (flat, shape), dtype=x.dtype, shape=(several, count // several, width))
    centred = grouped - grouped.mean(0, keepdim=True)
    spread = (centred.square().mean(0) + EPSILON).sqrt().mean(1)  # [groups]
    return symbolic("Tile", (spread, members), dtype=x.dtype, shape=(count,))[:, None, None, None]
