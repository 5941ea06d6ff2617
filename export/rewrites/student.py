"""Exact inference rewrites of the students (docs/spec/segmentation.md, section 5, rewrites (a) to (e)).

`rewrite_student(EffiSegNet) -> InferenceStudent`: the same function at 224x224, fewer operations. All folding is done
in float64 and rounded once to the student's own precision. The steps, each a function of its own:

    fold_encoder_norms   the encoder
    push_down_decoder    (b) of the decoder

The decoder already works as (a), (c) and (e) say while it is trained (`effisegnet.Decoder`). (d), the depthwise 3x3
over the doubled map as four kernels over the small one, is not done: runtimes are slower with it
(`rewrites.passes.DECLINED`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import CheckpointError
from ohlora.training.nets.effisegnet import SIZE, ConvReluNorm, Decoder, EffiSegNet, probabilities


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Evaluation-mode batch norm as x * scale + shift, float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise CheckpointError("a batch norm without running statistics cannot be folded")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


class StaticConv(nn.Module):
    """Convolution with the batch norm after it folded in; where it has no padding of its own, "same" made constant."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, size: int) -> None:
        super().__init__()
        scale, shift = affine_of(norm)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        own = conv.padding[0]
        if isinstance(own, int) and own:
            self.pads = (own, own)
        else:
            # TensorFlow "same": the odd pixel goes after. For stride 1 both sides are equal.
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            self.pads = (total // 2, total - total // 2)
        before = self.pads[0]
        even = self.pads[0] == self.pads[1]
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride,
            before if even else 0,
            groups=conv.groups,
            bias=True,
            dtype=conv.weight.dtype,
        )
        bias = 0 if conv.bias is None else conv.bias.double()
        with torch.no_grad():
            self.conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
            self.conv.bias.copy_(bias * scale + shift)  # type: ignore[union-attr]
        self.explicit = not even

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, self.pads * 2) if self.explicit else x)
        return result


# (convolution, norm) pairs of timm's EfficientNet blocks, by block type.
FOLDS = {
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "ConvBnAct": (("conv", "bn1"),),
}


def conv1x1(weight: Tensor, bias: Tensor | None = None, kind: torch.dtype = torch.float32) -> nn.Conv2d:
    """A 1x1 convolution from a float64 matrix [out, in], stored as `kind`."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, dtype=kind)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :, None, None])
        if bias is not None:
            layer.bias.copy_(bias)  # type: ignore[union-attr]
    return layer


class InferenceDecoder(nn.Module):
    """The decoder with norms folded and every 1x1 convolution moved before the nearest upsampling it follows."""

    half_scale: Tensor
    half_shift: Tensor
    first_scale: Tensor
    first_shift: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        g1p, g1c = decoder.ghost1.primary, decoder.ghost1.cheap
        g2p, g2c = decoder.ghost2.primary, decoder.ghost2.cheap
        kind = decoder.head.weight.dtype
        total_scale, total_shift = affine_of(decoder.norm)
        reduce = g1p.conv.weight[:, :, 0, 0].double()  # [32, 64]
        constant = total_shift.clone()
        self.branches, self.reduces = nn.ModuleList(), nn.ModuleList()
        layers = [layer for layer in decoder.branches if isinstance(layer, ConvReluNorm)]
        matrices = []
        for layer in layers:
            scale, shift = affine_of(layer.norm)
            constant += total_scale * shift
            matrices.append(reduce * (total_scale * scale))
        for index, (layer, matrix) in enumerate(zip(layers, matrices, strict=True)):
            self.branches.append(layer.conv)
            # The sum of all constants is added once, where the finest branch is.
            self.reduces.append(conv1x1(matrix, reduce @ constant if index == 0 else None, kind))
        self._keep_affine("half", g1p)
        channels = g1c.conv.in_channels
        self.cheap = g1c.conv
        cheap_scale, cheap_shift = affine_of(g1c.norm)
        mix = g2p.conv.weight[:, :, 0, 0].double()
        self.mix_half = conv1x1(mix[:, :channels], mix[:, channels:] @ cheap_shift, kind)
        self.mix_cheap = conv1x1(mix[:, channels:] * cheap_scale, kind=kind)
        self._keep_affine("first", g2p)
        self.second = g2c.conv
        scale, shift = affine_of(g2c.norm)
        head = decoder.head.weight[:, :, 0, 0].double()
        self.head_first = conv1x1(head[:, :channels], head[:, channels:] @ shift, kind)
        self.head_second = conv1x1(head[:, channels:] * scale, kind=kind)

    def _keep_affine(self, name: str, layer: ConvReluNorm) -> None:
        # The affine after these two stays explicit: a zero-padded depthwise convolution follows, and its border
        # must see zeros, not the folded shift.
        kind = layer.norm.weight.dtype
        scale, shift = (v.to(kind).reshape(1, -1, 1, 1) for v in affine_of(layer.norm))
        self.register_buffer(f"{name}_scale", scale)
        self.register_buffer(f"{name}_shift", shift)

    def doubled(self, half: Tensor) -> Tensor:
        """half [N,32,112,112] -> the depthwise convolution over its doubled form, activated, [N,32,224,224]."""
        return F.relu(self.cheap(F.interpolate(half, scale_factor=2, mode="nearest")))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Five levels [N,C_i,112/2^i,...] -> logits [N,outputs,224,224]."""
        parts = [
            reduce(F.relu(branch(x))) for branch, reduce, x in zip(self.branches, self.reduces, levels, strict=True)
        ]
        total = parts[-1]  # [N, 32, 7, 7]
        for finer in reversed(parts[:-1]):
            total = finer + F.interpolate(total, scale_factor=2, mode="nearest")
        half = F.relu(total) * self.half_scale + self.half_shift  # [N, 32, 112, 112]
        mixed = F.interpolate(self.mix_half(half), scale_factor=2, mode="nearest") + self.mix_cheap(self.doubled(half))
        first = F.relu(mixed) * self.first_scale + self.first_shift
        logits: Tensor = self.head_first(first) + self.head_second(F.relu(self.second(first)))
        return logits


class InferenceStudent(nn.Module):
    """image float32 [N,3,224,224] in [-1,1] -> probability [N,outputs,224,224]; evaluation only, 224 only.

    `.logits(image)` leaves sigmoid or soft-max out.
    """

    def __init__(self, encoder: nn.Module, decoder: InferenceDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(image))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        return probabilities(self.logits(image))


@torch.no_grad()
def fold_encoder_norms(model: EffiSegNet) -> EffiSegNet:
    """Every batch norm of the encoder sits in the convolution before it, and 'same' padding is constant.

    Encoders of other families (no stem and blocks of EfficientNet's kind) are left as they are: runtimes fold their
    plain norms. Raises CheckpointError for blocks of an unknown type.
    """
    result = copy.deepcopy(model).eval()
    encoder, size = result.encoder, SIZE
    if not (hasattr(encoder, "conv_stem") and hasattr(encoder, "blocks")):
        return result

    def fold(owner: nn.Module, conv_name: str, norm_name: str, size: int) -> int:
        conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
        setattr(owner, conv_name, StaticConv(conv, norm, size))
        setattr(owner, norm_name, getattr(norm, "act", nn.Identity()))  # most of timm's norms carry the activation
        return int(-(-size // conv.stride[0]))

    size = fold(encoder, "conv_stem", "bn1", size)
    for block in (block for stage in encoder.blocks for block in stage):  # type: ignore[union-attr]
        pairs = FOLDS.get(type(block).__name__)
        if pairs is None:
            raise CheckpointError(
                f"cannot fold encoder blocks of type {type(block).__name__}: only EfficientNet encoders are rewritten"
            )
        for conv_name, norm_name in pairs:
            size = fold(block, conv_name, norm_name, size)
    return result


@torch.no_grad()
def push_down_decoder(model: EffiSegNet) -> InferenceStudent:
    """The decoder's norms sit in the 1x1 convolutions after them, which run before the upsampling they followed."""
    result = copy.deepcopy(model).eval()
    return InferenceStudent(result.encoder, InferenceDecoder(result.decoder)).eval()


def rewrite_student(model: EffiSegNet) -> InferenceStudent:
    """An equal, smaller module for 224x224 pictures. `model` is left as it is.

    Raises CheckpointError for EfficientNets with blocks of an unknown type.
    """
    return push_down_decoder(fold_encoder_norms(model))
