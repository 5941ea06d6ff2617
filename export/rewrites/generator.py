"""Exact inference rewrites of a StyleGAN generator (docs/spec/stylegan.md, section 2).

Every pass takes a generator in evaluation mode and returns an equal one that computes less; the argument is
left as it is. Equal means the same function at level of detail 0 with stored noise, up to rounding: constants are
folded in float64 and rounded once to the generator's own precision. Later passes expect the earlier ones, in the order
of `rewrite_generator`; `passes` says what each saves, and why others are not made.
"""

from __future__ import annotations

import copy
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.base.types import check_choice
from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import Generator, SynthesisLayer
from ohlora.training.nets.stylegan_layers import (
    EPSILON,
    AdaIN,
    Conv,
    Dense,
    NoiseBias,
    UpConv,
    leaky,
)

Collapse = Literal["transposed", "subpixel"]
COLLAPSES: tuple[Collapse, ...] = ("transposed", "subpixel")
Network = TypeVar("Network", bound=nn.Module)


def synthesis_layers(generator: Generator) -> list[SynthesisLayer]:
    """The style layers in order, typed."""
    return [cast(SynthesisLayer, layer) for layer in generator.synthesis.layers]


def require_finished(what: str, lod: Tensor) -> None:
    """Raises InvalidInputError for a network that stands at another level of detail than 0."""
    if float(lod) != 0.0:
        raise InvalidInputError(
            f"this {what} stands at level of detail {float(lod):g}: only a finished one (level 0) can be rewritten"
        )


@torch.no_grad()
def fold_gains(network: Network) -> Network:
    """The equalised learning rate is multiplied into the weights.

    For discriminators too: they are made of the same layers.
    """
    result = copy.deepcopy(network)
    for module in result.modules():
        if isinstance(module, Dense | Conv):
            module.weight.copy_(module.weight.double() * module.weight_gain)
            module.weight_gain = 1.0
        if isinstance(module, Dense):
            module.bias.copy_(module.bias.double() * module.bias_gain)
            module.bias_gain = 1.0
    return result


def drop_dead_rgb(generator: Generator) -> Generator:
    """ToRGB layers of the coarser blocks are removed: at level of detail 0 only the last draws."""
    result = copy.deepcopy(generator)
    for index in range(len(result.synthesis.to_rgb) - 1):
        result.synthesis.to_rgb[index] = nn.Identity()
    return result


class ConstantOffset(nn.Module):
    """Adds one constant [1, C, r, r]."""

    offset: Tensor

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            raise InvalidInputError("the noise is folded into a constant: use the unfolded generator for random noise")
        return x + self.offset


@torch.no_grad()
def fold_noise(generator: Generator) -> Generator:
    """Stored noise x strength + bias is one constant map per layer: one addition in place of two and a product."""
    result = copy.deepcopy(generator)
    for layer in synthesis_layers(result):
        part: NoiseBias = layer.offset
        strength, bias = (value.double().view(1, -1, 1, 1) for value in (part.strength, part.bias))
        offset = part.noise.double() * strength + bias
        layer.offset = ConstantOffset(offset.to(part.noise.dtype))  # type: ignore[assignment]
    return result


class StyleOnly(nn.Module):
    """What is left of the first layer: style scale and shift of the normalised constant."""

    def __init__(self, adain: AdaIN) -> None:
        super().__init__()
        self.adain = adain

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            raise InvalidInputError("the first layer is precomputed: use the unfolded generator for random noise")
        scale, shift = self.adain.style(w)
        return x * scale + shift


@torch.no_grad()
def precompute_start(generator: Generator) -> Generator:
    """The first layer up to its style is a constant: no activation and no norm at 4 x 4."""
    result = copy.deepcopy(generator)
    first = synthesis_layers(result)[0]
    x = leaky(first.offset(result.synthesis.const)).double()
    x = x - x.mean((2, 3), keepdim=True)
    x = x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + EPSILON)
    result.synthesis.const.copy_(x)
    result.synthesis.layers[0] = StyleOnly(first.adain)
    return result


class TransposedUpConv(nn.Module):
    """Nearest x2 + 3x3 convolution as a stored 4x4 stride-2 transposed convolution, then blur."""

    kernel: Tensor

    def __init__(self, source: UpConv) -> None:
        super().__init__()
        self.register_buffer("kernel", source.transposed_kernel().contiguous())  # [I, O, 4, 4]
        self.blur = copy.deepcopy(source.blur)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blur(F.conv_transpose2d(x, self.kernel, stride=2, padding=1))
        return result


class SubpixelUpConv(TransposedUpConv):
    """The same as a 2x2 convolution to 4C channels, depth to space and a crop of one pixel, then blur.

    Output row 2y takes input rows y-1 and y (kernel rows 3 and 1), row 2y+1 takes y and y+1 (kernel rows 2
    and 0). On the input padded by 1 both are 2x2 windows: window i gives output rows 2i-1 and 2i, so the
    first and last are cropped.
    """

    def __init__(self, source: UpConv) -> None:
        super().__init__(source)
        self.kernel = window_kernel(self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(F.conv2d(x, self.kernel, padding=1), 2)  # [N, O, 2H+2, 2W+2]
        result: Tensor = self.blur(x[:, :, 1:-1, 1:-1])
        return result


def window_kernel(kernel: Tensor) -> Tensor:
    """[I,O,4,4] of a stride-2 transposed convolution -> [4O,I,2,2] of the convolution over padded 2x2 windows."""
    wide = kernel.transpose(0, 1)
    rows = {0: [2, 0], 1: [3, 1]}  # sub-row of a window -> kernel rows for its upper and lower input row
    phases = [wide[:, :, rows[i]][:, :, :, rows[j]] for i in (0, 1) for j in (0, 1)]
    # Pixel shuffle reads channel c * 4 + 2i + j.
    return torch.stack(phases, 1).flatten(0, 1).contiguous()


UPSAMPLERS: dict[Collapse, type[TransposedUpConv]] = {"transposed": TransposedUpConv, "subpixel": SubpixelUpConv}


@torch.no_grad()
def collapse_upsampling(generator: Generator, collapse: Collapse = "transposed") -> Generator:
    """Store each upsampling convolution as one kernel on the small input; the blur stays separate."""
    check_choice("collapse", collapse, UPSAMPLERS)
    result = copy.deepcopy(generator)
    for layer in synthesis_layers(result):
        if isinstance(getattr(layer, "conv", None), UpConv):
            layer.conv = UPSAMPLERS[collapse](cast(UpConv, layer.conv))
    return result


class InstanceAdaIN(nn.Module):
    """AdaIN around the runtimes' own instance norm; the 1 added to the style scale sits in the affine's bias.

    The norm stays apart from scale and shift: backends turn it into one kernel with float32 sums and the
    other two into one pass. Passing the style as the norm's parameters, or writing the norm out, measured
    slower in OpenVINO.
    """

    def __init__(self, source: AdaIN) -> None:
        super().__init__()
        self.affine = copy.deepcopy(source.affine)
        self.affine.bias[: source.affine.bias.shape[0] // 2] += 1.0

    def style(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w [N, w_size] -> (scale, shift), each [N, C, 1, 1]."""
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)
        return scale, shift

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)
        return F.instance_norm(x, eps=EPSILON) * scale + shift


@torch.no_grad()
def simplify_adain(generator: Generator) -> Generator:
    """The norm is the runtimes' own operation and the style scale's + 1 sits in the affine's bias."""
    result = copy.deepcopy(generator)
    for layer in synthesis_layers(result):
        layer.adain = InstanceAdaIN(layer.adain)  # type: ignore[assignment]
    return result


def collapse_transposed(generator: Generator) -> Generator:
    """Nearest x2 and 3x3 convolution, 9 taps a pixel, are one stored 4x4 stride-2 transposed convolution of 4."""
    return collapse_upsampling(generator, "transposed")


def collapse_subpixel(generator: Generator) -> Generator:
    """The same as one stored 2x2 convolution to four phases and depth to space, also 4 taps a pixel."""
    return collapse_upsampling(generator, "subpixel")


def rewrite_generator(generator: Generator, collapse: Collapse = "transposed") -> Generator:
    """All passes. The result is for inference at level of detail 0 with stored noise only."""
    require_finished("generator", generator.synthesis.lod)
    for rewrite in (fold_gains, drop_dead_rgb, fold_noise, precompute_start, simplify_adain):
        generator = rewrite(generator)
    return collapse_upsampling(generator, collapse).eval()
