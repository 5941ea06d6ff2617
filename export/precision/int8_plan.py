"""Which convolutions may be int8: as many as the gate allows, the cheapest in quality per operation saved first.

Each convolution is quantised alone and what it costs is measured; errors of several add up nearly. Sorted by cost per
operation, the longest list that passes the real gate is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.precision.quantize import ConvNode, Range, Rows, calibrate, convolutions, quantize

# Kernels below this share of the network's operations are left alone: converting to int8 and back costs what they save.
SMALL = 0.002
JUDGED_ON = 2  # calibration rows that the cost of single convolutions is measured on


@dataclass(frozen=True)
class Int8Plan:
    """model: the quantised one. chosen: its int8 convolutions; share: of the multiplications that they do."""

    model: onnx.ModelProto
    chosen: tuple[str, ...]
    candidates: int
    share: float
    symmetric: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "int8_convolutions": len(self.chosen),
            "convolutions": self.candidates,
            "int8_share_of_operations": round(self.share, 4),
            "activations": "int8" if self.symmetric else "uint8",
        }


def plan_int8(
    model: onnx.ModelProto,
    calibration: Sequence[Rows],
    passes: Callable[[onnx.ModelProto], bool],
    *,
    symmetric: bool = False,
) -> Int8Plan | None:
    """The plan, or None when not even one convolution passes.

    model: constants folded, upsampling in sub-pixel form. calibration: rows (batch 1) that ranges are taken from.
    passes: whether a quantised model passes the gate. symmetric: as TensorRT needs it.
    """
    found = convolutions(model, calibration[0])
    total = sum(conv.macs for conv in found)
    found = [conv for conv in found if conv.macs >= SMALL * total]
    ranges = calibrate(model, found, calibration, symmetric)
    order = _by_cost(model, found, ranges, calibration[:JUDGED_ON], symmetric)
    best: Int8Plan | None = None
    low, high = 0, len(order)  # `low` convolutions pass, more than `high` do not
    while low < high:
        middle = high if best is None and high == len(order) else (low + high + 1) // 2
        made = quantize(model, order[:middle], ranges, symmetric)
        if passes(made):
            share = sum(conv.macs for conv in order[:middle]) / total
            best = Int8Plan(made, tuple(conv.name for conv in order[:middle]), len(found), share, symmetric)
            low = middle
        else:
            high = middle - 1
    return best


def _by_cost(
    model: onnx.ModelProto, convs: list[ConvNode], ranges: dict[str, Range], rows: Sequence[Rows], symmetric: bool
) -> list[ConvNode]:
    """Sorted by squared error of the outputs per multiplication saved; small first."""
    exact = [_outputs(model, row) for row in rows]

    def cost(conv: ConvNode) -> float:
        alone = quantize(model, [conv], ranges, symmetric)
        errors = [np.mean(np.square(_outputs(alone, row) - wanted)) for row, wanted in zip(rows, exact, strict=True)]
        return float(np.mean(errors)) / conv.macs

    costs = {conv.name: cost(conv) for conv in convs}
    return sorted(convs, key=lambda conv: costs[conv.name])


def _outputs(model: onnx.ModelProto, row: Rows) -> NDArray[np.float64]:
    return np.concatenate([value.astype(np.float64).ravel() for value in run_graph(model, row)])
