"""ONNX models of one operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def one_node(
    kind: str, inputs: list[np.ndarray], constants: list[np.ndarray | None], attributes: dict[str, Any]
) -> Any:
    """A model of one node: `inputs` vary, `constants` are stored in it, None is an input left out."""
    names = [f"x{i}" for i in range(len(inputs))]
    stored = [("" if value is None else f"c{i}") for i, value in enumerate(constants)]
    outputs = ["y0", "y1"] if kind == "Split" else ["y0"]
    node = helper.make_node(kind, [*names, *stored], outputs, name="node", **attributes)
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs, strict=True)
    ]
    weights = [numpy_helper.from_array(v, name) for name, v in zip(stored, constants, strict=True) if v is not None]
    graph = helper.make_graph([node], "one", declared, [onnx.ValueInfoProto(name=n) for n in outputs], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
