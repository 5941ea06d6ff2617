"""The networks as they are documented, written out: what the exact rewrites are compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.export.rewrites.generator import synthesis_layers
from ohlora.training.nets.effisegnet import Decoder, EffiSegNet, upsample
from ohlora.training.nets.stylegan import CONFIGS, Generator, GeneratorConfig
from ohlora.training.nets.stylegan_layers import UpConv, scaled


class PlainUpConv(nn.Module):
    """Nearest x2, 3x3 convolution, blur, as the layer is documented."""

    def __init__(self, source: UpConv) -> None:
        super().__init__()
        self.weight, self.gain, self.turned = source.weight, source.weight_gain, not source.flipped
        self.blur = source.blur

    def forward(self, x: Tensor) -> Tensor:
        weight = scaled(self.weight, self.gain)
        weight = weight.flip(2, 3) if self.turned else weight
        blurred: Tensor = self.blur(F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1))
        return blurred


@cache
def generator(config: GeneratorConfig = CONFIGS["original"]) -> Generator:
    """Seeded weights; noise and biases are on, so that their rewrites are part of the differences."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Generator(config).eval()
        for name, value in model.synthesis.named_parameters():
            if name.endswith(("bias", "strength")):
                value.normal_(std=0.1)
        model.synthesis.const.normal_()
    return model


def documented_upsampling(module: Generator) -> Generator:
    """Nearest x2, 3x3 convolution, blur, where the module has the first two in one; from 128 pixels on they were."""
    plain = copy.deepcopy(module)
    for layer in synthesis_layers(plain):
        convolution = getattr(layer, "conv", None)
        if isinstance(convolution, UpConv) and convolution.flipped:
            layer.conv = PlainUpConv(convolution)
    return plain


class DocumentedDecoder(Decoder):
    """All five maps to full size first, then everything there."""

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        maps = [upsample(branch(x), size) for branch, x in zip(self.branches, levels, strict=True)]
        total = maps[0]
        for x in maps[1:]:
            total = total + x
        logits: Tensor = self.head(self.ghost2(self.ghost1(self.norm(total))))
        return logits


def documented_student(module: EffiSegNet) -> EffiSegNet:
    plain = copy.deepcopy(module)
    plain.decoder.__class__ = DocumentedDecoder
    return plain
