"""EffiSegNet: EfficientNet encoder, five-branch nearest-upsampling decoder, ghost modules.

See docs/spec/segmentation.md, section 5.

`EffiSegNet(image [N,3,224,224] in [-1,1]) -> hair probability [N,1,224,224]`; with several outputs, probabilities of
classes that exclude each other (soft-max). `.logits(image)` leaves sigmoid or soft-max out. The encoder is any timm
model with five feature levels: `tf_efficientnet_b0` is the documented one, `tf_efficientnet_lite0` (no squeeze-excite,
ReLU6) the one we ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.choices import DOCUMENTED_ENCODER as DOCUMENTED_ENCODER
from ohlora.training.nets.choices import SHIPPED_ENCODER as SHIPPED_ENCODER
from ohlora.training.nets.choices import STUDENT_SIZE

SIZE = STUDENT_SIZE
CHANNELS = 64
STRIDES = [2, 4, 8, 16, 32]  # of the five levels; the decoder's whole-factor upsampling needs them


class ConvReluNorm(nn.Module):
    """conv (no bias) -> ReLU -> batch norm, in this order: the norm comes last in every decoder layer."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(F.relu(self.conv(x)))
        return out


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
        logits: Tensor = self.head(self.ghost2(self.ghost1(self.norm(total))))
        return logits

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


def make_encoder(name: str, drop_path: float) -> nn.Module:
    """A timm model that gives five feature levels at strides 2, 4, 8, 16, 32, with random weights.

    drop_path: stochastic depth; encoders that know none are made without it. Raises InvalidInputError for an unknown
    name or a model with other levels.
    """
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:5])
        raise InvalidInputError(
            f"unknown encoder '{name}': timm has no such model{f' (it has {near} ...)' if near else ''}"
        )
    found: list[int] = []
    for first in (0, 1):  # some families also give a level at full size
        levels = tuple(range(first, first + len(STRIDES)))
        try:
            encoder = feature_encoder(name, drop_path, levels)
        except (IndexError, AttributeError, RuntimeError):  # what timm raises for models without that many levels
            break
        found = list(encoder.feature_info.reduction())  # type: ignore[operator, union-attr]
        if found == STRIDES:
            return encoder
    strides = f"has strides {found}" if found else "has fewer levels"
    raise InvalidInputError(
        f"encoder '{name}' does not fit: five feature levels at strides {STRIDES} are needed, it {strides}. Take an "
        "EfficientNet, MobileNet, ResNet or RegNet, for example"
    )


def feature_encoder(name: str, drop_path: float, levels: tuple[int, ...]) -> nn.Module:
    options = {"features_only": True, "pretrained": False, "out_indices": levels}
    try:
        encoder: nn.Module = timm.create_model(name, drop_path_rate=drop_path, **options)
    except TypeError:
        encoder = timm.create_model(name, **options)
    return encoder


class EffiSegNet(nn.Module):
    """Hair (or, with `outputs` > 1, class) segmentation student.

    encoder: name of a timm model with five feature levels at strides 2, 4, 8, 16, 32.
    drop_path: stochastic depth of the encoder while training (documented 0.2).
    Raises InvalidInputError for an encoder that does not fit.
    """

    def __init__(self, encoder: str = DOCUMENTED_ENCODER, outputs: int = 1, drop_path: float = 0.2) -> None:
        super().__init__()
        self.encoder_name, self.outputs = encoder, outputs
        self.encoder = make_encoder(encoder, drop_path)
        self.decoder = Decoder(self.encoder.feature_info.channels(), outputs)  # type: ignore[operator, union-attr]

    def logits(self, image: Tensor) -> Tensor:
        """image [N,3,H,W] in [-1,1] -> logits [N,outputs,224,224]. Other sizes than 224 only for compatibility."""
        logits: Tensor = self.decoder(self.encoder(image), (SIZE, SIZE))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """image [N,3,H,W] in [-1,1] -> probability [N,outputs,224,224]: sigmoid of one output, soft-max of several."""
        return probabilities(self.logits(image))


def probabilities(logits: Tensor) -> Tensor:
    """[N,1,H,W] -> sigmoid; [N,C,H,W] -> soft-max over the classes."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1)
