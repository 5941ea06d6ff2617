"""ONNX operations as PyTorch functions: one entry each. `OPS[kind](attributes, arity)` gives a function of the inputs.

Inputs that say how (axes, sizes, bounds) arrive as tensors too. They are read when the network is built, where they are
constants; shapes that follow the batch are computed on the CPU while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attributes = Mapping[str, Any]
Given = Sequence[Tensor | None]
Function = Callable[..., Any]
Maker = Callable[[Attributes, Given], Function]

# ONNX element types.
TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


FAR = 2**31 - 1  # how exporters write "to the end"
_broadcast_shapes: Callable[..., torch.Size] = torch.broadcast_shapes  # untyped there


class UnsupportedOperatorError(Exception):
    """What of an operation cannot be translated."""


def _ints(value: Tensor | None, default: list[int] | None = None) -> list[int]:
    if value is None:
        if default is None:
            raise UnsupportedOperatorError("a size or axis is computed while the network runs")
        return default
    return [int(number) for number in value.reshape(-1).tolist()]


def _sizes(value: Tensor | None) -> Callable[[Tensor], list[int]]:
    """Reads sizes: once for all where they are constant."""
    fixed = None if value is None else _ints(value)
    return lambda sizes: _ints(sizes) if fixed is None else fixed


def _inputs_only(function: Function) -> Maker:
    return lambda attributes, given: function


def _plain(function: Function, **refused: tuple[Any, str]) -> Maker:
    """A function of the inputs and, by keyword, of the attributes that it names.

    refused: attribute -> the one value that is translated, and what any other would be.
    """
    named = [name for name, one in signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]

    def make(attributes: Attributes, given: Given) -> Function:
        for name, (translated, otherwise) in refused.items():
            if attributes.get(name, translated) != translated:
                raise UnsupportedOperatorError(otherwise)
        options = {name: attributes[name] for name in named if name in attributes}
        return (lambda *inputs: function(*inputs, **options)) if options else function

    return make


def _axes(attributes: Attributes, given: Given, place: int = 1) -> list[int] | None:
    if "axes" in attributes:
        return list(attributes["axes"])
    return _ints(given[place]) if len(given) > place and given[place] is not None else None


def _pads(attributes: Attributes) -> tuple[list[int], list[int]]:
    """(before, after) of each spatial axis."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedOperatorError(f"auto_pad {attributes['auto_pad']}")
    pads = list(attributes.get("pads", []))
    half = len(pads) // 2
    return pads[:half], pads[half:]


def _conv(attributes: Attributes, given: Given) -> Function:
    before, after = _pads(attributes)
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    group = attributes.get("group", 1)
    if before == after:
        padding = before or [0, 0]
        return lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, dilation, group)
    outside = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return lambda x, w, b=None: F.conv2d(F.pad(x, outside), w, b, stride, 0, dilation, group)


def _conv_transpose(attributes: Attributes, given: Given) -> Function:
    before, after = _pads(attributes)
    if before != after or "output_shape" in attributes:
        raise UnsupportedOperatorError("a transposed convolution with uneven padding")
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    extra, group = attributes.get("output_padding", [0, 0]), attributes.get("group", 1)
    padding = before or [0, 0]
    return lambda x, w, b=None: F.conv_transpose2d(x, w, b, stride, padding, extra, group, dilation)


def _gemm(attributes: Attributes, given: Given) -> Function:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    left, right = attributes.get("transA", 0), attributes.get("transB", 0)

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if right and not left and alpha == beta == 1.0 and c is not None and c.dim() == 1:
            return F.linear(a, b, c)
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1.0 else product * alpha
        return product if c is None else product + (c if beta == 1.0 else c * beta)

    return gemm


def _instance_norm(x: Tensor, scale: Tensor, shift: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    # Written out, so that a compiler sees two sums and one product, and fuses what is around them.
    axes = tuple(range(2, x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return (x - mean) * torch.rsqrt(variance + epsilon) * scale.reshape(shape) + shift.reshape(shape)


def _batch_norm(
    x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def _layer_norm(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, *, epsilon: float = 1e-5, axis: int = -1
) -> Tensor:
    return F.layer_norm(x, x.shape[axis:], scale, shift, epsilon)


def _pool(function: Callable[..., Tensor]) -> Maker:
    def make(attributes: Attributes, given: Given) -> Function:
        before, after = _pads(attributes)
        if before != after:
            raise UnsupportedOperatorError("pooling with uneven padding")
        kernel, stride = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        ceil, padding = bool(attributes.get("ceil_mode", 0)), before or [0, 0]
        if function is F.avg_pool2d:
            counted = bool(attributes.get("count_include_pad", 0))
            return lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, counted)
        return lambda x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)

    return make


def _resize(attributes: Attributes, given: Given) -> Function:
    """By scales, or to sizes, which may follow the batch."""
    mode = attributes.get("mode", "nearest")
    where = attributes.get("coordinate_transformation_mode", "half_pixel")
    options: dict[str, Any] = {"mode": {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)}
    scales = given[2] if len(given) > 2 else None
    if mode == "nearest":
        rounding = attributes.get("nearest_mode", "round_prefer_floor")
        whole = scales is not None and all(float(value).is_integer() for value in scales.tolist())
        if rounding not in ("floor", "round_prefer_floor") or not (
            whole or (where, rounding) == ("asymmetric", "floor")
        ):
            raise UnsupportedOperatorError(f"a nearest resize, {where}, {rounding}")
    elif mode in ("linear", "cubic") and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if mode == "cubic" and attributes.get("cubic_coeff_a", -0.75) != -0.75:
            raise UnsupportedOperatorError("a cubic of another parameter")
        options["align_corners"] = where == "align_corners"
    else:
        raise UnsupportedOperatorError(f"a {mode} resize, {where}")
    if scales is not None and scales.numel():
        factors = [float(value) for value in scales.tolist()]
        return lambda x, *_: F.interpolate(x, scale_factor=factors[2:], **options)
    read = _sizes(given[3] if len(given) > 3 else None)
    return lambda x, region, factors, sizes: F.interpolate(x, size=read(sizes)[2:], **options)


def _slice(attributes: Attributes, given: Given) -> Function:
    starts, ends = _ints(given[1]), _ints(given[2])
    axes = _ints(given[3], list(range(len(starts)))) if len(given) > 3 else list(range(len(starts)))
    steps = _ints(given[4], [1] * len(starts)) if len(given) > 4 else [1] * len(starts)
    if any(step < 1 for step in steps):
        raise UnsupportedOperatorError("a slice backwards")

    def cut(x: Tensor, *_: Tensor) -> Tensor:
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            index = [slice(None)] * x.dim()
            index[axis] = slice(max(start, -FAR), None if end >= FAR else max(end, -FAR), step)
            x = x[tuple(index)]
        return x

    return cut


def _split(attributes: Attributes, given: Given) -> Function:
    axis = attributes.get("axis", 0)
    if len(given) > 1 and given[1] is not None:
        sizes = _ints(given[1])
        return lambda x, *_: torch.split(x, sizes, axis)
    count = attributes["num_outputs"]
    return lambda x: torch.split(x, -(-x.shape[axis] // count), axis)


def _reduce(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Maker:
    def make(attributes: Attributes, given: Given) -> Function:
        axes, keep = _axes(attributes, given), bool(attributes.get("keepdims", 1))
        if axes is None and attributes.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: function(x, tuple(axes if axes is not None else range(x.dim())), keep)

    return make


def _cast(attributes: Attributes, given: Given) -> Function:
    to = TYPES.get(attributes["to"])
    if to is None:
        raise UnsupportedOperatorError(f"a cast to element type {attributes['to']}")
    return lambda x: x.to(to)


def _reshape(attributes: Attributes, given: Given) -> Function:
    literal = bool(attributes.get("allowzero", 0))  # else 0 is the input's own size
    read = _sizes(given[1])

    def reshape(x: Tensor, wanted: Tensor) -> Tensor:
        return x.reshape([x.shape[i] if size == 0 and not literal else size for i, size in enumerate(read(wanted))])

    return reshape


def _unsqueeze(attributes: Attributes, given: Given) -> Function:
    axes = sorted(_axes(attributes, given) or [])

    def unsqueeze(x: Tensor, *_: Tensor) -> Tensor:
        for axis in axes:
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _squeeze(attributes: Attributes, given: Given) -> Function:
    axes = _axes(attributes, given)
    return (lambda x, *_: x.squeeze()) if axes is None else (lambda x, *_: x.squeeze(tuple(axes)))


def _gather(attributes: Attributes, given: Given) -> Function:
    axis = attributes.get("axis", 0)
    index = given[1]
    if index is not None and index.dim() == 0:
        number = int(index)
        return lambda x, *_: x.select(axis, number)

    def gather(x: Tensor, where: Tensor) -> Tensor:
        place = torch.where(where < 0, where + x.shape[axis], where)
        found = x.index_select(axis, place.reshape(-1))
        return found.reshape(*x.shape[:axis], *where.shape, *x.shape[axis + 1 :])

    return gather


def _depth_to_space(attributes: Attributes, given: Given) -> Function:
    size = attributes["blocksize"]
    if attributes.get("mode", "DCR") != "CRD":
        raise UnsupportedOperatorError("depth to space in the order DCR")
    return lambda x: F.pixel_shuffle(x, size)


def _pad(attributes: Attributes, given: Given) -> Function:
    if attributes.get("mode", "constant") != "constant" or (len(given) > 3 and given[3] is not None):
        raise UnsupportedOperatorError("padding other than by a constant on all axes")
    pads = _ints(given[1])
    half = len(pads) // 2
    outside = [side for pair in zip(reversed(pads[:half]), reversed(pads[half:]), strict=True) for side in pair]
    value = float(given[2]) if len(given) > 2 and given[2] is not None else 0.0
    return lambda x, *_: F.pad(x, outside, value=value)


def _quantize(attributes: Attributes, given: Given) -> Function:
    zero = given[2]
    if zero is None or zero.dtype not in (torch.int8, torch.uint8):
        raise UnsupportedOperatorError("quantising to other than int8 and uint8")
    low, high = (-128, 127) if zero.dtype == torch.int8 else (0, 255)
    offset, kind = float(zero), zero.dtype
    return lambda x, scale, *_: torch.clamp(torch.round(x / scale) + offset, low, high).to(kind)


def _dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(x.dim())] if scale.dim() == 1 else []
    number = x.to(scale.dtype)
    number = number if zero is None else number - zero.to(scale.dtype).reshape(shape)
    return number * scale.reshape(shape)


def _extreme(function: Callable[..., Tensor]) -> Maker:
    def extreme(x: Tensor, *, axis: int = 0, keepdims: int = 1) -> Tensor:
        return function(x, dim=axis, keepdim=bool(keepdims))

    return _plain(extreme, select_last_index=(0, "the last of equal extremes"))


def _expand(attributes: Attributes, given: Given) -> Function:
    read = _sizes(given[1])
    return lambda x, wanted: x.expand(_broadcast_shapes(x.shape, read(wanted)))


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Maker:
    return _plain(lambda first, *rest: reduce(function, rest, first))


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


# Functions of the inputs alone.
PLAIN: dict[str, Function] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Cos": torch.cos, "Div": _divide, "Equal": torch.eq,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish, "Less": torch.lt, "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul,
    "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or, "Pow": torch.pow,
    "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round, "Sigmoid": torch.sigmoid,
    "Sin": torch.sin, "Softplus": F.softplus, "Sqrt": torch.sqrt, "Sub": torch.sub, "Tanh": torch.tanh,
    "Where": torch.where, "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True), "Identity": lambda x: x,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Clip": lambda x, low=None, high=None: torch.clamp(x, low, high),
}  # fmt: skip

OPS: dict[str, Maker] = {
    **{name: _inputs_only(function) for name, function in PLAIN.items()},
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "AveragePool": _pool(F.avg_pool2d),
    "BatchNormalization": _plain(_batch_norm, training_mode=(0, "a batch norm that learns")),
    "Cast": _cast,
    "Concat": _plain(lambda *parts, axis: torch.cat(parts, axis)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _plain(_dequantize),
    "Expand": _expand,
    "Flatten": _plain(lambda x, *, axis=1: x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)),
    "Gather": _gather,
    "Gelu": _plain(lambda x, *, approximate="none": F.gelu(x, approximate=approximate)),
    "Gemm": _gemm,
    "HardSigmoid": _plain(lambda x, *, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0.0, 1.0)),
    "InstanceNormalization": _plain(_instance_norm),
    "LayerNormalization": _plain(_layer_norm),
    "LeakyRelu": _plain(lambda x, *, alpha=0.01: F.leaky_relu(x, alpha)),
    "Max": _many(torch.maximum),
    "MaxPool": _pool(F.max_pool2d),
    "Min": _many(torch.minimum),
    "Mod": _plain(lambda a, b, *, fmod=0: torch.fmod(a, b) if fmod else torch.remainder(a, b)),
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _plain(lambda x, *, start=0, end=None: torch.tensor(list(x.shape[start:end]), dtype=torch.int64)),
    "Slice": _slice,
    "Softmax": _plain(lambda x, *, axis=-1: torch.softmax(x, axis)),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _many(torch.add),
    "Transpose": _plain(lambda x, *, perm=(): x.permute(*(perm or reversed(range(x.dim()))))),
    "Unsqueeze": _unsqueeze,
}
