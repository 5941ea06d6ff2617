"""MobileStyleGAN: mapping as StyleGAN2's, synthesis of depthwise layers and inverse Haar transforms.

Literal, as published: no gain is folded and no step is merged. The exact rewrites that make it fast are in
`ohlora.bundle.photo.rewrites`. Parameters are named as in `Architecture.shapes`. Demodulation is a constant of the
trained network and sits in the pointwise weights; the noise of every layer is one frozen plane.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.bundle.photo.architecture import BANDS, EPSILON, FFHQ, HAAR, ROOT_TWO, SLOPE, START, Architecture, Block
from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import require_shape

Noise = Callable[[Tensor], Tensor]  # stored plane [1,1,r,r] -> the plane that is added


def frozen(plane: Tensor) -> Tensor:
    """The stored noise itself."""
    return plane


def drawn(generator: torch.Generator) -> Noise:
    """A fresh draw for every plane, normal and with the plane's own root mean square; one for the whole batch."""

    def draw(plane: Tensor) -> Tensor:
        fresh = torch.randn(plane.shape, generator=generator, dtype=torch.float32, device=generator.device)
        return plane.square().mean().sqrt() * fresh.to(plane)

    return draw


@dataclass(frozen=True)
class MobileStyleGANConfig:
    """size: of the image. The network's own and its half are exact (the half is the lowest Haar band); smaller powers
    of two are area means of the half. The other names are those of `GeneratorConfig`.
    """

    architecture: Architecture = field(default_factory=lambda: FFHQ)
    size: int = FFHQ.resolution
    label_size = 0
    split_size = 0
    conditional_truncation = False

    def __post_init__(self) -> None:
        full = self.architecture.resolution
        if self.size not in [full >> k for k in range(full.bit_length() - 3)]:
            raise InvalidInputError(
                f"MobileStyleGANConfig.size must be {full}, {full // 2}, {full // 4} ..., got {self.size}"
            )

    @property
    def resolution(self) -> int:
        return self.size

    @property
    def z_size(self) -> int:
        return self.architecture.z_size

    @property
    def w_size(self) -> int:
        return self.architecture.w_size

    @property
    def layers(self) -> int:
        return self.architecture.layers


def inverse_haar(x: Tensor) -> Tensor:
    """[N,C,R,R] -> [N,C/4,2R,2R]. The first quarter of the channels is LL; the others come in threes, B0, B1 and B2 of
    one output channel.
    """
    coarse = x.shape[1] // BANDS
    low, high = x[:, :coarse, None], x[:, coarse:].reshape(len(x), coarse, BANDS - 1, *x.shape[2:])
    phases = torch.einsum("ncbyx,bp->ncpyx", torch.cat([low, high], 2), x.new_tensor(HAAR))
    return F.pixel_shuffle(phases.flatten(1, 2), 2)


class Mapping(nn.Module):
    """z [N, z_size] -> w [N, w_size]; the length of z does not count."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.z_size
        for i in range(architecture.mapping_layers):
            self.add_module(f"fc{i}", nn.Linear(width, architecture.w_size))
            width = architecture.w_size

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_shape("z", z, self.architecture.z_size)
        if label is not None and label.shape[-1]:
            raise InvalidInputError(f"this generator takes no label, got one of shape {list(label.shape)}")
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
        for layer in self.children():
            x = ROOT_TWO * F.leaky_relu(layer(x), SLOPE)
        return x


class Style(nn.Module):
    """Channels times an affine of w, times a constant. x [N or 1,C,H,W], w [N, w_size] -> [N,C,H,W]."""

    def __init__(self, channels: int, w_size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.affine = nn.Linear(w_size, channels)
        self.scale = scale

    def style(self, w: Tensor) -> Tensor:
        """[N, channels], without the constant."""
        style: Tensor = self.affine(w)
        return style

    def modulated(self, x: Tensor, w: Tensor) -> Tensor:
        return x * (self.style(w) * self.scale)[:, :, None, None]


class Activated(Style):
    """A style before, and noise, bias and leaky ReLU behind what a subclass convolves."""

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, w_size: int) -> None:
        super().__init__(inputs, w_size, 1 / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.zeros(1, 1, resolution, resolution))

    def activated(self, x: Tensor, noise: Noise) -> Tensor:
        return F.leaky_relu(x + noise(self.noise) + self.bias[:, None, None], SLOPE)


class First(Activated):
    """A dense 3x3 convolution. x [1,C,4,4], w [N, w_size] -> [N,C,4,4]."""

    def __init__(self, channels: int, w_size: int) -> None:
        super().__init__(channels, channels, START, w_size)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))

    def forward(self, x: Tensor, w: Tensor, noise: Noise = frozen) -> Tensor:
        return self.activated(F.conv2d(self.modulated(x, w), self.weight, padding=1), noise)


class StyledDepthwise(Activated):
    """Depthwise 3x3, then pointwise. x [N,inputs,R,R], w [N, w_size] -> [N,outputs,R,R]."""

    def __init__(self, inputs: int, outputs: int, resolution: int, w_size: int) -> None:
        super().__init__(inputs, outputs, resolution, w_size)
        self.dw = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pw = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, w: Tensor, noise: Noise = frozen) -> Tensor:
        return self.activated(self.pw(self.dw(self.modulated(x, w))), noise)


class Up(Style):
    """Style, then inverse Haar. x [N,C,R,R], w [N, w_size] -> [N,C/4,2R,2R]."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return inverse_haar(self.modulated(x, w))


class SynthesisBlock(nn.Module):
    """x [N,C,R/2,R/2] and its two rows of wp -> [N,C',R,R]."""

    def __init__(self, block: Block, w_size: int) -> None:
        super().__init__()
        self.up = Up(block.inputs, w_size)
        self.conv1 = StyledDepthwise(block.coarse, block.outputs, block.resolution, w_size)
        self.conv2 = StyledDepthwise(block.outputs, block.outputs, block.resolution, w_size)

    def forward(self, x: Tensor, first: Tensor, second: Tensor, noise: Noise = frozen) -> Tensor:
        x = self.conv1(self.up(x, first), first, noise)
        features: Tensor = self.conv2(x, second, noise)
        return features


class Head(Style):
    """x [N,C,R,R], w [N, w_size] -> image [N,3,2R,2R], or the lowest band's [N,3,R,R], which is its exact 2x2 mean."""

    def __init__(self, channels: int, w_size: int) -> None:
        super().__init__(channels, w_size, 1 / math.sqrt(channels))
        self.weight = nn.Parameter(torch.randn(3 * BANDS, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3 * BANDS))

    def forward(self, x: Tensor, w: Tensor, *, low: bool = False) -> Tensor:
        x = self.modulated(x, w)
        if low:
            return F.conv2d(x, self.weight[:3], self.bias[:3]) / 2
        return inverse_haar(F.conv2d(x, self.weight, self.bias))


class Synthesis(nn.Module):
    """wp [N, layers, w_size] -> image [N,3,size,size], nominally in [-1, 1] but not clipped."""

    def __init__(self, config: MobileStyleGANConfig) -> None:
        super().__init__()
        self.config = config
        architecture, width = config.architecture, config.w_size
        self.const = nn.Parameter(torch.randn(1, architecture.start, START, START))
        self.first = First(architecture.start, width)
        for block in architecture.blocks:
            self.add_module(block.name, SynthesisBlock(block, width))
        self.head = Head(architecture.channels[-1], width)

    def features(self, wp: Tensor, resolution: int | None = None, noise: Noise = frozen) -> Tensor:
        """[N,C,R,R]: what block `resolution` gives, or the last one."""
        require_shape("wp", wp, self.config.layers, self.config.w_size)
        x: Tensor = self.first(self.const, wp[:, 0], noise)
        for block in self.config.architecture.blocks:
            if block.resolution <= (resolution or self.config.architecture.resolution):
                x = self.get_submodule(block.name)(x, wp[:, block.row], wp[:, block.row + 1], noise)
        return x

    def forward(self, wp: Tensor, *, noise: Noise = frozen) -> Tensor:
        x = self.features(wp, noise=noise)
        full = self.config.architecture.resolution
        image: Tensor = self.head(x, wp[:, -1], low=self.config.size < full)
        return F.avg_pool2d(image, full // 2 // self.config.size) if self.config.size < full // 2 else image


class MobileStyleGAN(nn.Module):
    """Mapping, truncation and synthesis. `w_avg` [w_size] is the mean w that truncation pulls to."""

    w_avg: Tensor

    def __init__(self, config: MobileStyleGANConfig | None = None) -> None:
        super().__init__()
        self.config = config or MobileStyleGANConfig()
        self.mapping = Mapping(self.config.architecture)
        self.synthesis = Synthesis(self.config)
        self.register_buffer("w_avg", torch.zeros(self.config.w_size))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The published tensors, by the names of `Architecture.shapes`."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items() if name != "w_avg"}

    def sized(self, size: int) -> MobileStyleGAN:
        """A copy for images of `size` pixels, its own or fewer: for more it may lack the bands (`unbundle`).

        Raises InvalidInputError for another size.
        """
        if size > self.config.size:
            raise InvalidInputError(f"this generator makes images of {self.config.size} pixels or fewer, not {size}")
        copied = copy.deepcopy(self)
        copied.config = copied.synthesis.config = replace(self.config, size=size)
        return copied

    def broadcast(self, w: Tensor) -> Tensor:
        """One w [N, w_size] for every layer -> wp [N, layers, w_size]; wp is passed through."""
        if w.ndim == 3:
            require_shape("wp", w, self.config.layers, self.config.w_size)
            return w
        require_shape("w", w, self.config.w_size)
        return w[:, None].expand(-1, self.config.layers, -1)

    def truncate(self, w: Tensor, psi: float = 1.0, layers: int | None = None) -> Tensor:
        """w [N, w_size] or wp -> wp, whose first `layers` rows (None: all) become w_avg + psi (w - w_avg)."""
        wp = self.broadcast(w)
        layers = self.config.layers if layers is None else layers
        if not 0 <= layers <= self.config.layers:
            raise InvalidInputError(f"truncation layers must be in [0, {self.config.layers}], got {layers}")
        if psi >= 1.0 or layers == 0:
            return wp
        return torch.cat([self.w_avg + psi * (wp[:, :layers] - self.w_avg), wp[:, layers:]], 1)

    def draw(self, wp: Tensor) -> Tensor:
        """wp [N, layers, w_size] -> image [N, 3, size, size]."""
        image: Tensor = self.synthesis(wp)
        return image

    def forward(self, z: Tensor, label: Tensor | None = None, *, psi: float = 1.0, noise: Noise = frozen) -> Tensor:
        """z [N, z_size] -> image [N, 3, size, size]."""
        image: Tensor = self.synthesis(self.truncate(self.mapping(z, label), psi), noise=noise)
        return image
