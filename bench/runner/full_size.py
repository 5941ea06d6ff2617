"""A full-size generator that draws portraits: the demo's network inside one of the published size.

No published checkpoint can be shipped, and seeded weights draw noise: no hair to find, pictures that no JPEG encoder
meets in practice, and nothing that a quality gate could be judged by. So the demo's channels stand inside a network of
the full width, up to its 128 pixels; the other channels are seeded, computed, and read by nothing that the picture
depends on. The block at 256 pixels carries the picture on in 63 of its 64 channels. Its norms take away the picture's
mean and contrast, which its styles give back: they are a linear function of w, fitted to the demo's own pictures.

Every operation of the published network runs at its size; times do not depend on the weights. Qualities do: an
exported checkpoint of yours has to be measured on its own (`ohlora export MY --to bundle --preset fast`).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ohlora
from ohlora.faces import latents_of_seeds
from ohlora.training.nets.stylegan import CONFIGS, Generator, SynthesisLayer
from ohlora.training.nets.stylegan_layers import Conv, Dense
from ohlora.training.unbundle.generator import generator_from_bundle

SEED = 256
FITTED_FACES, CHUNK, RIDGE = 1200, 100, 3.0
# Added to colours in [-1, 1] so that the leaky rectifiers leave them as they are.
ABOVE = 1.6


def full_size_generator() -> Generator:
    """The published network's shape (256 px), drawing the portraits of the demo bundle (128 px)."""
    small = generator_from_bundle("demo")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        full = Generator(CONFIGS["original"]).eval()
        full.mapping.load_state_dict(small.mapping.state_dict())
        full.w_avg.copy_(small.w_avg)
        channels = small.synthesis.const.shape[1]
        full.synthesis.const.normal_()
        full.synthesis.const[:, :channels] = small.synthesis.const
        for inner, outer in zip(small.synthesis.layers, full.synthesis.layers, strict=False):
            _embed(cast(SynthesisLayer, inner), cast(SynthesisLayer, outer))
        _carry_on(small, full)
    return full


def _embed(inner: SynthesisLayer, outer: SynthesisLayer) -> None:
    """`inner` in the first channels of `outer`, which read no others; the rest keeps its random weights."""
    channels = inner.offset.bias.shape[0]
    if isinstance(outer.conv, Conv):
        source = cast(Conv, inner.conv)
        inputs = source.weight.shape[1]
        outer.conv.weight[:channels] = 0
        outer.conv.weight[:channels, :inputs] = source.weight * (source.weight_gain / outer.conv.weight_gain)
    outer.offset.noise.copy_(inner.offset.noise)
    outer.offset.strength.normal_(std=0.1)
    outer.offset.bias.normal_(std=0.1)
    outer.offset.strength[:channels] = inner.offset.strength
    outer.offset.bias[:channels] = inner.offset.bias
    width = outer.offset.bias.shape[0]
    for name in ("weight", "bias"):
        target, value = getattr(outer.adain.affine, name), getattr(inner.adain.affine, name)
        target[:channels] = value[:channels]
        target[width : width + channels] = value[channels:]


def _carry_on(small: Generator, full: Generator) -> None:
    """The block at 256 pixels: colour c in channels c, c + 3, ... with gains of their own, mixed, and averaged."""
    first, second = (cast(SynthesisLayer, layer) for layer in full.synthesis.layers[-2:])
    one, two = cast(Conv, first.conv), cast(Conv, second.conv)
    rgb, small_rgb = (cast(Conv, network.synthesis.to_rgb[-1]) for network in (full, small))
    bias, small_bias = cast(Tensor, rgb.bias), cast(Tensor, small_rgb.bias)
    width = first.offset.bias.shape[0]
    colors = torch.arange(width // 3 * 3) % 3
    count = len(colors)
    gains = [(0.5 + torch.rand(count)) * torch.sign(torch.randn(count)) for _ in range(2)]
    fit = _levels(small)
    picture = small_rgb.weight[:, :, 0, 0] * small_rgb.weight_gain  # [3, demo's channels]
    inputs = picture.shape[1]

    one.weight[:count] = 0
    # Nearest doubling and the centre tap: every pixel twice each way, which the blur then smooths.
    one.weight[:count, :inputs, 1, 1] = gains[0][:, None] * picture[colors] / one.weight_gain
    first.offset.bias[:count] = gains[0] * small_bias[colors] + ABOVE * gains[0].abs()

    same = (colors[:, None] == colors[None]).float() / (count // 3)  # [out, in]: the mean of a colour's channels
    two.weight[:count] = 0
    two.weight[:count, :count, 1, 1] = gains[1][:, None] * same / gains[0] / two.weight_gain
    lifted = (same * (ABOVE * gains[0].abs() / gains[0])).sum(1)
    second.offset.bias[:count] = gains[1] * -lifted + ABOVE * gains[1].abs()

    rgb.weight.zero_()
    rgb.weight[:, :count, 0, 0] = (torch.arange(3)[:, None] == colors) / (count // 3) / gains[1] / rgb.weight_gain
    bias.copy_(-(rgb.weight[:, :count, 0, 0] * rgb.weight_gain * ABOVE * gains[1].abs()).sum(1))

    for layer, gain in ((first, gains[0]), (second, gains[1])):
        # Little, but there: a layer without noise is cheaper than those of a published generator.
        layer.offset.strength[:count] = 0.02 * gain
        _give_back(layer.adain.affine, fit, colors, gain)


def _give_back(affine: Dense, fit: tuple[Tensor, Tensor], colors: Tensor, gain: Tensor) -> None:
    """Styles that undo the norm: contrast x |gain| as scale, mean x gain plus the lift as shift."""
    slopes, offsets = fit  # [w, 6] and [6]: means, then contrasts of the colours
    count, width = len(colors), affine.bias.shape[0] // 2
    affine.weight[:count] = (slopes[:, 3 + colors] * gain.abs()).T / affine.weight_gain
    affine.bias[:count] = offsets[3 + colors] * gain.abs() - 1
    affine.weight[width : width + count] = (slopes[:, colors] * gain).T / affine.weight_gain
    affine.bias[width : width + count] = offsets[colors] * gain + ABOVE * gain.abs()


def _levels(small: Generator) -> tuple[Tensor, Tensor]:
    """Mean and contrast of the three colours as a linear function of w: (slopes [w, 6], offsets [6])."""
    z = torch.from_numpy(latents_of_seeds(range(FITTED_FACES))[0])
    w = small.mapping(z).numpy().astype(np.float64)
    with ohlora.Renderer("demo") as renderer:
        starts = range(0, FITTED_FACES, CHUNK)
        chunks = (renderer.render(ohlora.SeedRange(start, start + CHUNK - 1)) for start in starts)
        facts = np.stack([_facts(picture) for chunk in chunks for picture in chunk])
    centre, target = w.mean(0), facts.mean(0)
    moved = w - centre
    slopes = np.linalg.solve(moved.T @ moved + RIDGE * np.eye(w.shape[1]), moved.T @ (facts - target))
    offsets = target - centre @ slopes
    return torch.from_numpy(slopes).float(), torch.from_numpy(offsets).float()


def _facts(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    values = picture.reshape(-1, 3) / 127.5 - 1
    return np.concatenate([values.mean(0), values.std(0)])
