"""ONNX graphs written node by node, with other models laid into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ohlora.export.graphs.from_torch import OPSET

IR_VERSION = 9
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}

# name -> (dtype, shape with "N" for the batch)
Tensors = Mapping[str, tuple[str, Sequence[int | str]]]


@dataclass
class GraphBuilder:
    """Nodes and constants under unique names: each call returns the name of its tensor."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    infos: list[onnx.ValueInfoProto] = field(default_factory=list)
    opset: int = OPSET  # rises with the models that are laid in

    def constant(self, name: str, values: NDArray[np.generic] | np.generic) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def number(self, value: float) -> str:
        """A float32 scalar; equal ones are stored once."""
        name = f"number_{value!r}"
        if all(tensor.name != name for tensor in self.weights):
            self.constant(name, np.float32(value))
        return name

    def integers(self, *values: int) -> str:
        """An int64 vector, as axes, shapes and slices want it."""
        name = "integers_" + "_".join(map(str, values))
        if all(tensor.name != name for tensor in self.weights):
            self.constant(name, np.array(values, np.int64))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def cast(self, x: str, dtype: str, output: str) -> str:
        return self.add("Cast", [x], output, to=_TYPES[dtype])

    def split(self, x: str, names: Sequence[str], label: str, sizes: Sequence[int] = ()) -> list[str]:
        """x [N,D] -> parts of it along the second axis: equal ones, or of `sizes`."""
        inputs, attributes = ([x, self.integers(*sizes)], {}) if sizes else ([x], {"num_outputs": len(names)})
        self.nodes.append(helper.make_node("Split", inputs, list(names), name=label, axis=1, **attributes))
        return list(names)

    def include(self, model: onnx.ModelProto, prefix: str, inputs: Mapping[str, str]) -> dict[str, str]:
        """Lay `model` into this graph, its inputs connected to tensors of it; returns its outputs' names here."""
        inner = onnx.ModelProto()
        inner.CopyFrom(model)
        self.opset = max([self.opset, *(entry.version for entry in model.opset_import)])
        inner = onnx.compose.add_prefix(inner, f"{prefix}.")
        names = {f"{prefix}.{name}": source for name, source in inputs.items()}
        for node in inner.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
        self.nodes.extend(inner.graph.node)
        self.weights.extend(inner.graph.initializer)
        self.infos.extend(inner.graph.value_info)
        return {tensor.name.removeprefix(f"{prefix}."): tensor.name for tensor in inner.graph.output}

    def model(
        self, name: str, inputs: Tensors, outputs: Tensors, properties: Mapping[str, str] | None = None
    ) -> onnx.ModelProto:
        """The finished, checked model."""

        def declared(tensors: Tensors) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(key, _TYPES[kind], shape) for key, (kind, shape) in tensors.items()]

        graph = helper.make_graph(
            self.nodes, name, declared(inputs), declared(outputs), self.weights, value_info=self.infos
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION, producer_name="ohlora"
        )
        if properties:
            helper.set_model_props(model, dict(properties))
        onnx.checker.check_model(model, full_check=True)
        return model
