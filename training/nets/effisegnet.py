"""EffiSegNet: EfficientNet encoder, five-branch nearest-upsampling decoder, ghost modules.

Spec: segmentation, section 5.

`EffiSegNet(image [N,3,224,224] in [-1,1]) -> hair probability [N,1,224,224]`; `.logits(image)` leaves the sigmoid out.
The encoder is any timm model with five feature levels: `tf_efficientnet_b0` is the documented one,
`tf_efficientnet_lite0` (no squeeze-excite, ReLU6) the one we ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 224
CHANNELS = 64
DOCUMENTED_ENCODER = "tf_efficientnet_b0"
SHIPPED_ENCODER = "tf_efficientnet_lite0"


class ConvReluNorm(nn.Module):
    """conv (no bias) -> ReLU -> batch norm, in this order: the norm comes last in every decoder layer."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


class Ghost(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a depthwise 3x3 over the first half."""

    primary: ConvReluNorm
    cheap: ConvReluNorm

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.primary = ConvReluNorm(channels, channels // 2, 1)
        self.cheap = ConvReluNorm(channels // 2, channels // 2, 3, groups=channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest neighbour to `size`; source index floor(dst * in / out)."""
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode="nearest")


class Decoder(nn.Module):
    """Five encoder levels to one logit map of `size` pixels."""

    def __init__(self, level_channels: Sequence[int], outputs: int = 1, channels: int = CHANNELS) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvReluNorm(c, channels, 3) for c in level_channels)
        self.norm = nn.BatchNorm2d(channels)
        self.ghost1 = Ghost(channels)
        self.ghost2 = Ghost(channels)
        self.head = nn.Conv2d(channels, outputs, 1, bias=False)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        maps = [branch(x) for branch, x in zip(self.branches, levels, strict=True)]
        doubles = all(
            fine.shape[-1] == 2 * coarse.shape[-1] and fine.shape[-2] == 2 * coarse.shape[-2]
            for fine, coarse in pairwise(maps)
        )
        if doubles and size == (2 * maps[0].shape[-2], 2 * maps[0].shape[-1]):
            return self._by_halves(maps, size)
        total = upsample(maps[0], size)
        for x in maps[1:]:
            total = total + upsample(x, size)
        return self.head(self.ghost2(self.ghost1(self.norm(total))))

    def _by_halves(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The same function for whole-factor upsampling, with a quarter of the pixels in most of it.

        Nearest upsampling by whole factors commutes with everything pointwise, so the branches are summed coarse to
        fine and both 1x1 convolutions run before the last upsampling. Batch statistics are those of the full
        map too (every value stands there four times), so it holds while training as well.
        """
        total = maps[-1]
        for finer in reversed(maps[:-1]):
            total = finer + upsample(total, finer.shape[-2:])
        half = self.ghost1.primary(self.norm(total))  # [N, 32, 112, 112]
        cheap = self.ghost1.cheap(upsample(half, size))  # [N, 32, 224, 224]
        weight = self.ghost2.primary.conv.weight
        split = half.shape[1]
        mixed = upsample(F.conv2d(half, weight[:, :split]), size) + F.conv2d(cheap, weight[:, split:])
        first = self.ghost2.primary.norm(F.relu(mixed))
        second = self.ghost2.cheap(first)
        head = self.head.weight
        return F.conv2d(first, head[:, :split]) + F.conv2d(second, head[:, split:])


class EffiSegNet(nn.Module):
    """Hair (or, with `outputs` > 1, class) segmentation student.

    encoder: name of a timm model with five feature levels at strides 2, 4, 8, 16, 32.
    drop_path: stochastic depth of the encoder while training (documented 0.2).
    """

    def __init__(self, encoder: str = DOCUMENTED_ENCODER, outputs: int = 1, drop_path: float = 0.2) -> None:
        super().__init__()
        self.encoder_name = encoder
        self.encoder = timm.create_model(
            encoder,
            features_only=True,
            pretrained=False,
            drop_path_rate=drop_path,
            out_indices=(0, 1, 2, 3, 4),
        )
        self.decoder = Decoder(self.encoder.feature_info.channels(), outputs)

    def logits(self, image: Tensor) -> Tensor:
        """image [N,3,H,W] in [-1,1] -> logits [N,outputs,224,224]. Other sizes than 224 only for compatibility."""
        return self.decoder(self.encoder(image), (SIZE, SIZE))

    def forward(self, image: Tensor) -> Tensor:
        """image [N,3,H,W] in [-1,1] -> probability [N,outputs,224,224]."""
        return torch.sigmoid(self.logits(image))
