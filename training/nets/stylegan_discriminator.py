"""StyleGAN discriminator with optional labels (docs/spec/stylegan.md, sections 4 and 7.2)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import Pyramid, require_shape, with_label
from ohlora.training.nets.stylegan_layers import Conv, Dense, DownConv, leaky, minibatch_std


@dataclass(frozen=True)
class DiscriminatorConfig(Pyramid):
    """Shape of one discriminator.

    label_size: numbers appended to the features before the last layer. group: batch size over which the
    minibatch standard deviation is taken.
    """

    resolution: int = 256
    label_size: int = 0
    group: int = 16
    channel_base: int = 16384
    channel_max: int = 512

    def __post_init__(self) -> None:
        self.require_power_of_two()
        if self.group < 1:
            raise InvalidInputError(f"DiscriminatorConfig.group must be 1 or more, got {self.group}")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """resolution, ..., 8, 4: one block each."""
        return self.rising[::-1]


CONFIGS: dict[str, DiscriminatorConfig] = {
    "original": DiscriminatorConfig(group=4),
    "v1": DiscriminatorConfig(label_size=7),
    "v4": DiscriminatorConfig(label_size=3),
    "v8": DiscriminatorConfig(label_size=7),
    "v9": DiscriminatorConfig(label_size=7),
}


class Block(nn.Module):
    """FromRGB, convolution, halving convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.from_rgb = Conv(3, inputs, 1)
        self.conv = Conv(inputs, inputs)
        self.down = DownConv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.down(leaky(self.conv(x))))


class FinalBlock(nn.Module):
    """FromRGB, minibatch standard deviation, convolution, dense layer: [N,C,4,4] -> features [N,C]."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.from_rgb = Conv(3, channels, 1)
        self.conv = Conv(channels + 1, channels)
        self.dense = Dense(channels * 4 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        spread = minibatch_std(x, self.group).expand(-1, 1, *x.shape[2:])
        features: Tensor = self.dense(leaky(self.conv(torch.cat([x, spread], 1))).flatten(1))
        return features


class Discriminator(nn.Module):
    """Real or generated? image [N,3,R,R] in [-1,1], label [N,label_size] -> raw score [N,1]."""

    lod: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("lod", torch.zeros(()))
        widths = [config.channels(r) for r in config.resolutions]
        self.blocks = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(widths))
        self.blocks.append(FinalBlock(widths[-1], config.group))
        self.score = Dense(widths[-1] + config.label_size, 1, linear=True)

    def features(self, image: Tensor, lod: float | None = None) -> Tensor:
        """image [N,3,R,R] -> [N,C], before the label comes in.

        lod: as in the generator; the score then sees only what a generator at that level can draw.
        Raises InvalidInputError when the batch cannot be cut into groups for the minibatch standard deviation.
        """
        config, count = self.config, image.shape[0]
        require_shape("image", image, 3, config.resolution, config.resolution)
        if count % min(config.group, max(count, 1)):
            raise InvalidInputError(
                f"a batch of {count} images cannot be cut into groups of {config.group} for the minibatch "
                f"standard deviation: use at most {config.group} images or a multiple of it"
            )
        last = len(self.blocks) - 1
        level = float(self.lod) if lod is None else lod
        if not 0 <= level <= last:
            raise InvalidInputError(f"lod must be in [0, {last}] for {config.resolution} pixels, got {level:g}")
        x = image  # replaced by some block, which takes it at every level
        for b, module in enumerate(self.blocks):
            block = cast(Block | FinalBlock, module)
            if b <= level < b + 1:
                x = leaky(block.from_rgb(image))
            elif b - 1 < level < b:
                x = torch.lerp(x, leaky(block.from_rgb(image)), level - math.floor(level))
            if level < b + 1:
                x = block(x)
            if level > b:
                image = F.avg_pool2d(image, 2)
        return x

    def forward(self, image: Tensor, label: Tensor | None = None, *, lod: float | None = None) -> Tensor:
        features = with_label(self.features(image, lod), label, self.config.label_size, "discriminator")
        score: Tensor = self.score(features)
        return score
