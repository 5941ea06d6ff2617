"""The hair student of a bundle as a trainable module: for those who have the bundle only, not its checkpoint.

A bundle's network holds folded weights (`ohlora.export.rewrites.student`). The folds are undone up to equality of the
function: convolutions take the folded weights, and norms keep only what no convolution can hold. How a product was
split into convolution and norm is lost and chosen anew; training goes on from the same function.

Files that older versions wrote hold the depthwise convolution over the doubled map as four kernels; its one kernel is
found by least squares, exact up to the files' rounding to float16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from ohlora.bundle import Bundle
from ohlora.engines import open_engine
from ohlora.engines.selftest import load_probe
from ohlora.errors import BundleError
from ohlora.training.nets.effisegnet import CHANNELS, EffiSegNet

Array = NDArray[np.float64]
HALF = CHANNELS // 2
# Largest difference of a probability from the bundle's engine: an inverted fold is exact up to float16 rounding.
TOLERANCE = 2e-3
# Doubled rows of one side as sums of the taps they meet: [phase and small row, tap].
GATHER = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float64)


def student_from_bundle(bundle: str | Path) -> EffiSegNet:
    """The hair student of a bundle (folder, or 'demo') as a trainable module on the CPU, float32, in evaluation mode.

    Checked against the bundle's own engine on the bundle's probe. Raises BundleError for a bundle whose student is not
    one that `ohlora bundle build` exported in floating point, or when the maps differ.
    """
    opened = Bundle.open(bundle)
    part = opened.hair_part()
    named = re.fullmatch(r"EffiSegNet \((\w+), \d+ channels\)", part.architecture)
    if named is None:
        raise BundleError(f"the hair finder of bundle '{opened.name}' is no EffiSegNet but '{part.architecture}'")
    path = opened.file(part.file)
    student = EffiSegNet(named[1], drop_path=0.0).eval()
    try:
        _fill(student, onnx.load_from_string(path.read_bytes()))
    except (StopIteration, ValueError, IndexError, RuntimeError) as error:
        what = str(error) or "layers are missing"
        raise BundleError(
            f"{path} is no student that `ohlora bundle build` exported in floating point: {what}"
        ) from error
    pictures = load_probe(opened.file(part.probe), "hair").inputs["image"]
    with open_engine(path, backend="onnxruntime") as engine, torch.inference_mode():
        wanted = engine(image=pictures)["hair"]
        made = student(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)[:, 0].numpy()
    difference = float(np.abs(made - wanted).max())
    if not difference <= TOLERANCE:
        raise BundleError(f"the student taken from {path} differs from it by {difference:.4f}: build the bundle again")
    return student


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Stored tensors by name, also through the casts behind halved ones."""
    if any("Quantize" in node.op_type for node in model.graph.node):
        raise ValueError("it computes in int8")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    return {name: value.astype(np.float64) for name, value in stored.items() if value.dtype.kind == "f"}


def _fill(student: EffiSegNet, model: onnx.ModelProto) -> None:
    constants = _constants(model)
    nodes = (node for node in model.graph.node if node.op_type == "Conv")
    convs = iter([tuple(constants.get(name) for name in (*node.input[1:], "")[:2]) for node in nodes])
    # Scales and shifts per channel, in the order of the graph: after the sum of the branches, after the mix.
    affine = [
        constants[name].ravel()
        for node in model.graph.node
        if node.op_type in ("Mul", "Add")
        for name in node.input
        if name in constants and constants[name].shape == (1, HALF, 1, 1)
    ]
    if len(affine) != 4:
        raise ValueError(f"{len(affine)} of 4 scales and shifts found")
    with torch.no_grad():
        for conv, norm in _encoder_layers(student.encoder):
            weight, bias = next(convs)
            _set(conv.weight, weight)
            _norm(norm, shift=bias)
        _fill_decoder(student, convs, affine)
    if next(convs, None) is not None:
        raise ValueError("it has more convolutions than its encoder's name says")


def _encoder_layers(encoder: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    conv: nn.Conv2d | None = None
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            conv = module
        elif isinstance(module, nn.BatchNorm2d):
            if conv is None:
                raise ValueError("its encoder is no EfficientNet")
            yield conv, module
            conv = None


def _fill_decoder(student: EffiSegNet, convs: Iterator[Any], affine: list[Array]) -> None:
    decoder = student.decoder
    branches, reduces = [], []
    for _ in decoder.branches:
        branches.append(next(convs)[0])
        reduces.append(next(convs))
    matrix, scales = _shared([weight[:, :, 0, 0] for weight, _ in reduces])
    for layer, weight, scale in zip(decoder.branches, branches, scales, strict=True):
        _set(layer.conv.weight, weight)  # type: ignore[union-attr, arg-type]
        _norm(layer.norm, scale=scale)  # type: ignore[arg-type]
    _norm(decoder.norm, shift=_solved(matrix, reduces[0][1]))
    g1, g2 = decoder.ghost1, decoder.ghost2
    _set(g1.primary.conv.weight, matrix[:, :, None, None])
    _norm(g1.primary.norm, scale=affine[0], shift=affine[1])
    cheap, half, half_bias, mixed = _ghost(convs)
    _set(g1.cheap.conv.weight, cheap if cheap.shape[0] == HALF else _from_phases(cheap))
    _set(g2.primary.conv.weight, np.concatenate([half, mixed], 1)[:, :, None, None])
    _norm(g1.cheap.norm, shift=_solved(mixed, half_bias))
    _norm(g2.primary.norm, scale=affine[2], shift=affine[3])
    second, first, bias, last = _ghost(convs)
    _set(g2.cheap.conv.weight, second)
    _set(decoder.head.weight, np.concatenate([first, last], 1)[:, :, None, None])
    _norm(g2.cheap.norm, shift=_solved(last, bias))


def _ghost(convs: Iterator[Any]) -> tuple[Array, Array, Array, Array]:
    """The next three: (depthwise kernels, matrix of the first half, its bias, matrix of the depthwise half)."""
    three = [next(convs) for _ in range(3)]
    depthwise = next(weight for weight, _ in three if weight.shape[2] == 3)
    first, bias = next(pair for pair in three if pair[1] is not None)
    last = next(weight for weight, bias in three if weight.shape[2] == 1 and bias is None)
    return depthwise, first[:, :, 0, 0], bias, last[:, :, 0, 0]


def _shared(matrices: list[Array]) -> tuple[Array, list[Array]]:
    """Matrices that are one, but for a factor to each column: (that one, the factors)."""
    stacked = np.stack(matrices)  # [branches, 32, 64]
    largest = np.linalg.norm(stacked, axis=1).argmax(0)
    shared = np.take_along_axis(stacked, largest[None, None], 0)[0]
    squares = np.maximum(np.square(shared).sum(0), np.finfo(np.float64).tiny)
    return shared, list((stacked * shared).sum(1) / squares)


def _from_phases(kernels: Array) -> Array:
    """[4C,1,3,3] over the small map, ordered for depth to space -> [C,1,3,3] over the doubled one."""
    channels = kernels.shape[0] // 4
    rows = kernels.reshape(channels, 2, 2, 3, 3).transpose(0, 1, 3, 2, 4).reshape(channels, 36)
    solved = _solved(np.kron(GATHER, GATHER), rows.T)
    return np.ascontiguousarray(solved.T.reshape(channels, 1, 3, 3))


def _solved(matrix: NDArray[Any], wanted: Array) -> Array:
    """The smallest x with the least |matrix @ x - wanted|."""
    return np.asarray(np.linalg.lstsq(matrix, wanted, rcond=None)[0], dtype=np.float64)


def _set(target: Tensor, value: Array | None) -> None:
    if value is None or tuple(value.shape) != tuple(target.shape):
        found = "none" if value is None else list(value.shape)
        raise ValueError(f"a weight of shape {list(target.shape)} was looked for, found was {found}")
    target.copy_(torch.from_numpy(value))


def _norm(norm: nn.BatchNorm2d, scale: Array | None = None, shift: Array | None = None) -> None:
    """A norm that multiplies by `scale` and adds `shift` (1 and 0 where None)."""
    cast(Tensor, norm.running_mean).zero_()
    cast(Tensor, norm.running_var).fill_(1.0)
    gain = float(np.sqrt(1.0 + norm.eps))
    _set(norm.weight, np.full(norm.weight.shape[0], gain) if scale is None else scale * gain)
    _set(norm.bias, np.zeros(norm.bias.shape[0]) if shift is None else shift)
