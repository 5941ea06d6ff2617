"""Building blocks of the StyleGAN networks (docs/spec/stylegan.md, section 2).

Weights are stored raw and multiplied at run time ("equalised learning rate"): an optimiser sees the raw
values, so the parametrisation is part of every training recipe. `weight_gain` and `bias_gain` hold the
multipliers; both are 1 once they have been folded for inference.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of every leaky ReLU in the StyleGAN networks
EPSILON = 1e-8
RELU_GAIN = math.sqrt(2.0)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2."""
    return F.leaky_relu(x, SLOPE)


def scaled(value: Tensor, gain: float) -> Tensor:
    """`value * gain`; the multiplication is left out when the gain has been folded."""
    return value if gain == 1.0 else value * gain


class Dense(nn.Module):
    """Linear layer [N, inputs] -> [N, outputs] with equalised learning rate, leaky ReLU unless `linear`."""

    def __init__(self, inputs: int, outputs: int, *, lr_mul: float = 1.0, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.weight_gain = (1.0 if linear else RELU_GAIN) / math.sqrt(inputs) * lr_mul
        self.bias_gain = lr_mul
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, scaled(self.weight, self.weight_gain), scaled(self.bias, self.bias_gain))
        return x if self.linear else leaky(x)


class Conv(nn.Module):
    """Square convolution, stride 1, same size, with equalised learning rate; [N,I,H,W] -> [N,O,H,W].

    bias: False in the synthesis layers, where the bias comes after blur and noise.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, gain: float = RELU_GAIN, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight_gain = gain / math.sqrt(inputs * kernel * kernel)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = scaled(self.weight, self.weight_gain)
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


def widen(weight: Tensor) -> Tensor:
    """3x3 kernels [O,I,3,3] -> [O,I,4,4]: the sum of the kernel at the four offsets (0 or 1, 0 or 1)."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


class Blur(nn.Module):
    """Depthwise (1,2,1) x (1,2,1) / 16 with zero padding. A constant, not part of the state."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=self.kernel.shape[0])


def blur_kernel(channels: int) -> Tensor:
    """The blur kernel [channels, 1, 3, 3]; the published files store it, once per channel."""
    line = torch.tensor([1.0, 2.0, 1.0])
    return (torch.outer(line, line) / 16.0).expand(channels, 1, 3, 3).contiguous()


class UpConv(Conv):
    """Doubles the size: nearest x2 and 3x3 convolution in one 4x4 stride-2 transposed convolution, then blur.

    [N,I,H,W] -> [N,O,2H,2W]. Same result as upsampling first, at 4/9 of the multiplications.
    flipped: a transposed convolution applies its kernel turned by 180 degrees. The published networks were
    trained with nearest + convolution up to 64 pixels, and with a transposed convolution of the *unturned*
    kernel from 128 pixels on; so for the small sizes the kernel has to be turned first to mean the same.
    """

    def __init__(self, inputs: int, outputs: int, *, flipped: bool) -> None:
        super().__init__(inputs, outputs, 3, bias=False)
        self.flipped = flipped
        self.blur = Blur(outputs)

    def transposed_kernel(self) -> Tensor:
        """The run-time kernel in the layout of a transposed convolution, [I,O,4,4]."""
        weight = scaled(self.weight, self.weight_gain)
        weight = weight.flip(2, 3) if self.flipped else weight
        return widen(weight).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        blurred: Tensor = self.blur(F.conv_transpose2d(x, self.transposed_kernel(), stride=2, padding=1))
        return blurred


class DownConv(Conv):
    """Halves the size: blur, then 3x3 convolution and 2x2 mean in one 4x4 stride-2 convolution, with bias.

    [N,I,H,W] -> [N,O,H/2,W/2]. No flip here: both published forms are plain correlations and agree.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        self.blur = Blur(inputs)

    def forward(self, x: Tensor) -> Tensor:
        kernel = widen(scaled(self.weight, self.weight_gain * 0.25))
        return F.conv2d(self.blur(x), kernel, self.bias, stride=2, padding=1)


class NoiseBias(nn.Module):
    """Adds noise x strength (per channel) and the bias; the order noise, bias, activation is fixed."""

    noise: Tensor

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__()
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.strength = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [N,C,r,r]; noise [N,1,r,r] in place of the stored one."""
        noise = self.noise if noise is None else noise
        return x + noise * self.strength.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def instance_norm(x: Tensor) -> Tensor:
    """Spatial mean 0, mean square 1 per sample and channel; statistics always in float32."""
    wide = x.float()
    wide = wide - wide.mean((2, 3), keepdim=True)
    return (wide * torch.rsqrt(wide.square().mean((2, 3), keepdim=True) + EPSILON)).to(x.dtype)


class AdaIN(nn.Module):
    """Instance norm, then scale and shift per channel from the layer's w."""

    def __init__(self, channels: int, w_size: int) -> None:
        super().__init__()
        self.affine = Dense(w_size, 2 * channels, linear=True)

    def style(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w [N,w_size] -> (scale, shift), each [N,C,1,1]; the stored scale is an offset from 1."""
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)
        return scale + 1.0, shift

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)
        return instance_norm(x) * scale + shift


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """x [N,C,H,W] -> [N,1,1,1]: how much the samples of a group differ, averaged over C, H, W.

    Groups have min(group_size, N) members; sample n belongs to group n mod (number of groups). N must be a
    multiple.
    """
    members = min(group_size, x.shape[0])
    grouped = torch.unflatten(x, 0, (members, -1))  # [members, groups, C, H, W]
    centred = grouped - grouped.mean(0, keepdim=True)
    spread = (centred.square().mean(0) + EPSILON).sqrt().mean((1, 2, 3))  # [groups]
    return spread.repeat(members).view(-1, 1, 1, 1)
