"""ONNX operations as PyTorch functions: one entry each. `OPS[kind](attributes, given)` gives a function of the inputs.

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
Refusal = Callable[[Attributes, Given], str | None]
Numbers = list[int] | tuple[int, ...]

# ONNX element types.
TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
FAR = 2**31 - 1  # how exporters write "to the end"
_broadcast_shapes: Callable[..., torch.Size] = torch.broadcast_shapes  # untyped there


class UnsupportedOperatorError(Exception):
    """What of an operation cannot be translated."""


def _numbers(value: Tensor) -> list[Any]:
    return list(value.reshape(-1).tolist())


def _op(function: Function, numbers: Sequence[int] = (), refuse: Refusal | None = None) -> Maker:
    """A function of the inputs and, by keyword, of the attributes that it names.

    numbers: places of inputs that it takes as lists of numbers. refuse: what of a node is not translated, or None.
    """
    names = signature(function).parameters

    def make(attributes: Attributes, given: Given) -> Function:
        if refuse is not None and (reason := refuse(attributes, given)):
            raise UnsupportedOperatorError(reason)
        options = {name: value for name, value in attributes.items() if name in names}
        fixed = {place: _numbers(value) for place, value in enumerate(given) if place in numbers and value is not None}

        def read(place: int, value: Tensor | None) -> Any:
            if place not in numbers or value is None:
                return value
            return fixed[place] if place in fixed else _numbers(value)

        if not numbers:
            return (lambda *inputs: function(*inputs, **options)) if options else function
        return lambda *inputs: function(*[read(*entry) for entry in enumerate(inputs)], **options)

    return make


def _halves(pads: Numbers) -> tuple[Numbers, Numbers]:
    """(before, after) of each axis."""
    half = len(pads) // 2
    return pads[:half], pads[half:]


def _outside(pads: Numbers) -> list[int]:
    """As `F.pad` takes them: the last axis first, before and after together."""
    before, after = _halves(pads)
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


def _window(uneven: str = "") -> Refusal:
    """Refuses paddings by rule and, where `uneven` says what it would be, those that differ before and after."""

    def refuse(attributes: Attributes, given: Given) -> str | None:
        if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return f"auto_pad {attributes['auto_pad']}"
        before, after = _halves(attributes.get("pads", []))
        if uneven and "output_shape" in attributes:
            return uneven
        return uneven if before != after else None

    return refuse


def _conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, pads: Numbers = (), strides: Numbers = (1, 1),
    dilations: Numbers = (1, 1), group: int = 1,
) -> Tensor:  # fmt: skip
    before, after = _halves(pads)
    if before != after:
        x, before = F.pad(x, _outside(pads)), ()
    return F.conv2d(x, w, b, strides, before or 0, dilations, group)


def _conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, pads: Numbers = (), strides: Numbers = (1, 1),
    dilations: Numbers = (1, 1), output_padding: Numbers = (0, 0), group: int = 1,
) -> Tensor:  # fmt: skip
    return F.conv_transpose2d(x, w, b, strides, _halves(pads)[0] or 0, output_padding, group, dilations)


def _gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
    transB: int = 0,
) -> Tensor:  # fmt: skip
    if transB and not transA and alpha == beta == 1.0 and c is not None and c.dim() == 1:
        return F.linear(a, b, c)
    product = (a.t() if transA else a) @ (b.t() if transB else b)
    product = product if alpha == 1.0 else product * alpha
    return product if c is None else product + (c if beta == 1.0 else c * beta)


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


def _average(
    x: Tensor, *, kernel_shape: Numbers, strides: Numbers = (1, 1), pads: Numbers = (), ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:  # fmt: skip
    return F.avg_pool2d(x, kernel_shape, strides, _halves(pads)[0] or 0, bool(ceil_mode), bool(count_include_pad))


def _maximum(
    x: Tensor, *, kernel_shape: Numbers, strides: Numbers = (1, 1), pads: Numbers = (), ceil_mode: int = 0
) -> Tensor:
    pooled: Tensor = F.max_pool2d(x, kernel_shape, strides, _halves(pads)[0] or 0, ceil_mode=bool(ceil_mode))
    return pooled


def _resize(
    x: Tensor, region: Tensor | None = None, scales: list[float] | None = None, sizes: list[int] | None = None, *,
    mode: str = "nearest", coordinate_transformation_mode: str = "half_pixel",
) -> Tensor:  # fmt: skip
    """By scales, or to sizes, which may follow the batch."""
    options: dict[str, Any] = {"mode": {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[mode]}
    if mode != "nearest":
        options["align_corners"] = coordinate_transformation_mode == "align_corners"
    if scales:
        return F.interpolate(x, scale_factor=scales[2:], **options)
    return F.interpolate(x, size=sizes[2:] if sizes else None, **options)


def _no_resize(attributes: Attributes, given: Given) -> str | None:
    mode = attributes.get("mode", "nearest")
    place = attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        rounding = attributes.get("nearest_mode", "round_prefer_floor")
        scales = given[2] if len(given) > 2 else None
        whole = scales is not None and all(float(value).is_integer() for value in scales.tolist())
        known = (whole and rounding in ("floor", "round_prefer_floor")) or (place, rounding) == ("asymmetric", "floor")
        return None if known else f"a nearest resize, {place}, {rounding}"
    if mode not in ("linear", "cubic") or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return f"a {mode} resize, {place}"
    if mode == "cubic" and attributes.get("cubic_coeff_a", -0.75) != -0.75:
        return "a cubic of another parameter"
    return None


def _slice(
    x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers | None = None, steps: Numbers | None = None
) -> Tensor:
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        index = [slice(None)] * x.dim()
        step = steps[i] if steps else 1
        index[axes[i] if axes else i] = slice(max(start, -FAR), None if end >= FAR else max(end, -FAR), step)
        x = x[tuple(index)]
    return x


def _backwards(attributes: Attributes, given: Given) -> str | None:
    steps = given[4] if len(given) > 4 else None
    return "a slice backwards" if steps is not None and min(_numbers(steps)) < 1 else None


def _split(x: Tensor, sizes: list[int] | None = None, *, axis: int = 0, num_outputs: int = 1) -> tuple[Tensor, ...]:
    return torch.split(x, sizes or -(-x.shape[axis] // num_outputs), axis)


def _reduce(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Maker:
    def over(x: Tensor, axes: Numbers | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        if axes is None and noop_with_empty_axes:
            return x
        return function(x, tuple(axes if axes is not None else range(x.dim())), bool(keepdims))

    return _op(over, numbers=(1,))


def _reshape(x: Tensor, sizes: Numbers, *, allowzero: int = 0) -> Tensor:
    # Unless allowed, 0 is the input's own size.
    return x.reshape([x.shape[i] if size == 0 and not allowzero else size for i, size in enumerate(sizes)])


def _unsqueeze(x: Tensor, axes: Numbers) -> Tensor:
    return reduce(torch.unsqueeze, sorted(axes), x)


def _gather(attributes: Attributes, given: Given) -> Function:
    axis, index = attributes.get("axis", 0), given[1]
    if index is not None and index.dim() == 0:
        number = int(index)
        return lambda x, *_: x.select(axis, number)

    def gather(x: Tensor, where: Tensor) -> Tensor:
        place = torch.where(where < 0, where + x.shape[axis], where)
        found = x.index_select(axis, place.reshape(-1))
        return found.reshape(*x.shape[:axis], *where.shape, *x.shape[axis + 1 :])

    return gather


def _not_constant_pad(attributes: Attributes, given: Given) -> str | None:
    other = attributes.get("mode", "constant") != "constant" or (len(given) > 3 and given[3] is not None)
    return "padding other than by a constant on all axes" if other else None


def _quantize(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    limits = torch.iinfo(zero.dtype)
    return torch.clamp(torch.round(x / scale) + zero, limits.min, limits.max).to(zero.dtype)


def _not_bytes(attributes: Attributes, given: Given) -> str | None:
    known = len(given) > 2 and given[2] is not None and given[2].dtype in (torch.int8, torch.uint8)
    return None if known else "quantising to other than int8 and uint8"


def _dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(x.dim())] if scale.dim() == 1 else []
    number = x.to(scale.dtype)
    number = number if zero is None else number - zero.to(scale.dtype).reshape(shape)
    return number * scale.reshape(shape)


def _extreme(function: Callable[..., Tensor]) -> Maker:
    def extreme(x: Tensor, *, axis: int = 0, keepdims: int = 1) -> Tensor:
        return function(x, dim=axis, keepdim=bool(keepdims))

    return _op(extreme, refuse=lambda a, _: "the last of equal extremes" if a.get("select_last_index") else None)


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda first, *rest: reduce(function, rest, first)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


# Functions of the inputs alone.
PLAIN: dict[str, Function] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Cos": torch.cos, "Div": _divide, "Equal": torch.eq,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish, "Less": torch.lt, "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul,
    "Max": _many(torch.maximum), "Min": _many(torch.minimum), "Mul": torch.mul, "Neg": torch.neg,
    "Not": torch.logical_not, "Or": torch.logical_or, "Pow": torch.pow, "Reciprocal": torch.reciprocal,
    "Relu": torch.relu, "Round": torch.round, "Sigmoid": torch.sigmoid, "Sin": torch.sin, "Softplus": F.softplus,
    "Sqrt": torch.sqrt, "Sub": torch.sub, "Sum": _many(torch.add), "Tanh": torch.tanh, "Where": torch.where,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True), "Identity": lambda x: x,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Clip": lambda x, low=None, high=None: torch.clamp(x, low, high),
}  # fmt: skip


def _inputs_only(function: Function) -> Maker:
    return lambda attributes, given: function


OPS: dict[str, Maker] = {
    **{name: _inputs_only(function) for name, function in PLAIN.items()},
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "AveragePool": _op(_average, refuse=_window("pooling with uneven padding")),
    "BatchNormalization": _op(
        _batch_norm, refuse=lambda a, _: "a batch norm that learns" if a.get("training_mode") else None
    ),
    "Cast": _op(
        lambda x, *, to: x.to(TYPES[to]),
        refuse=lambda a, _: None if a["to"] in TYPES else f"a cast to element type {a['to']}",
    ),
    "Concat": _op(lambda *parts, axis: torch.cat(parts, axis)),
    "Conv": _op(_conv, refuse=_window()),
    "ConvTranspose": _op(_conv_transpose, refuse=_window("a transposed convolution with uneven padding")),
    "DepthToSpace": _op(
        lambda x, *, blocksize: F.pixel_shuffle(x, blocksize),
        refuse=lambda a, _: None if a.get("mode") == "CRD" else "depth to space in the order DCR",
    ),
    "DequantizeLinear": _op(_dequantize),
    "Expand": _op(lambda x, sizes: x.expand(_broadcast_shapes(x.shape, sizes)), numbers=(1,)),
    "Flatten": _op(lambda x, *, axis=1: x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)),
    "Gather": _gather,
    "Gelu": _op(lambda x, *, approximate="none": F.gelu(x, approximate=approximate)),
    "Gemm": _op(_gemm),
    "HardSigmoid": _op(lambda x, *, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0.0, 1.0)),
    "InstanceNormalization": _op(_instance_norm),
    "LayerNormalization": _op(_layer_norm),
    "LeakyRelu": _op(lambda x, *, alpha=0.01: F.leaky_relu(x, alpha)),
    "MaxPool": _op(_maximum, refuse=_window("pooling with uneven padding")),
    "Mod": _op(lambda a, b, *, fmod=0: torch.fmod(a, b) if fmod else torch.remainder(a, b)),
    "Pad": _op(
        lambda x, pads, value=None, axes=None: F.pad(x, _outside(pads), value=value[0] if value else 0.0),
        numbers=(1, 2),
        refuse=_not_constant_pad,
    ),
    "QuantizeLinear": _op(_quantize, refuse=_not_bytes),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Reshape": _op(_reshape, numbers=(1,)),
    "Resize": _op(_resize, numbers=(2, 3), refuse=_no_resize),
    "Shape": _op(lambda x, *, start=0, end=None: torch.tensor(list(x.shape[start:end]), dtype=torch.int64)),
    "Slice": _op(_slice, numbers=(1, 2, 3, 4), refuse=_backwards),
    "Softmax": _op(lambda x, *, axis=-1: torch.softmax(x, axis)),
    "Split": _op(_split, numbers=(1,)),
    "Squeeze": _op(lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes)), numbers=(1,)),
    "Transpose": _op(lambda x, *, perm=(): x.permute(*(perm or reversed(range(x.dim()))))),
    "Unsqueeze": _op(_unsqueeze, numbers=(1,)),
}
