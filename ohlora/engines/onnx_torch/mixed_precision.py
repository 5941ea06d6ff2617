"""An ONNX graph in float16 or bfloat16 (`lower`), for engines that take precision from the graph (TensorRT 11).

Convolutions, matrix products and what lies between them are computed in the low type. float32 stay: statistics
(instance norm, means, roots, soft-max, sigmoid), what turns numbers into bytes, inputs and outputs.
"""

from __future__ import annotations

from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ohlora.engines.onnx_torch.onnx_graphs import drop_unused, fold_constants
from ohlora.errors import EngineError

Low = Literal["float16", "bfloat16"]
_ONNX = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
# bfloat16 convolutions exist from this version of the operation set on; no operation used has changed its meaning.
BFLOAT16_OPSET = 22
_NUMPY = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Computed in the type of what comes in; a float32 partner is rounded.
FOLLOWING = frozenset({
    "Add", "Sub", "Mul", "Relu", "LeakyRelu", "PRelu", "Clip", "Max", "Min", "HardSigmoid", "HardSwish", "MaxPool",
    "Neg", "DepthToSpace", "Slice", "Transpose", "Reshape", "Flatten", "Resize", "Concat", "Split", "Squeeze",
    "Unsqueeze",
    "Gather", "Expand", "Pad", "Identity",
})  # fmt: skip


def lower(model: onnx.ModelProto, dtype: Low) -> onnx.ModelProto:
    """A copy of `model` in `dtype`. Raises EngineError for weights that do not fit into it."""
    model = fold_constants(model)
    return _Lowering(onnx.shape_inference.infer_shapes(model), dtype).result()


class _Lowering:
    def __init__(self, model: onnx.ModelProto, dtype: Low) -> None:
        self.model, self.dtype = model, dtype
        graph = model.graph
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.low: set[str] = set()  # tensors that are computed in the low type
        self.made: dict[tuple[str, bool], str] = {}  # (tensor, low) -> its copy in the other type
        self.nodes: list[onnx.NodeProto] = []
        self.exact = self._towards_bytes()

    def _towards_bytes(self) -> set[str]:
        """Names of nodes between the last matrix product and a cast to bytes: levels want all their bits."""
        producer = {name: node for node in self.model.graph.node for name in node.output}
        found: set[str] = set()
        casts = [n for n in self.model.graph.node if n.op_type == "Cast" and _cast_to(n) != TensorProto.FLOAT]
        open_names = [name for node in casts for name in node.input]
        while open_names:
            node = producer.get(open_names.pop())
            if node is not None and node.name not in found and node.op_type in FOLLOWING:
                found.add(node.name)
                open_names.extend(node.input)
        return found

    def result(self) -> onnx.ModelProto:
        for node in self.model.graph.node:
            self._convert(node)
        graph = self.model.graph
        for value in graph.output:
            if value.name in self.low:  # outputs keep their name and type
                raw = f"{value.name}_{self.dtype}"
                for node in self.nodes:
                    node.output[:] = [raw if name == value.name else name for name in node.output]
                    node.input[:] = [raw if name == value.name else name for name in node.input]
                self.nodes.append(
                    helper.make_node("Cast", [raw], [value.name], name=f"{raw}_out", to=TensorProto.FLOAT)
                )
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        drop_unused(self.model)
        if self.dtype == "bfloat16":
            opset = next(entry for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))
            opset.version = max(opset.version, BFLOAT16_OPSET)
            self.model.ir_version = max(self.model.ir_version, 10)
        onnx.checker.check_model(self.model, full_check=True)
        return self.model

    def _convert(self, node: onnx.NodeProto) -> None:
        floats = [name for name in node.input if self.types.get(name) == TensorProto.FLOAT]
        carried = any(name in self.low for name in floats)
        low = node.op_type in MATRIX or (node.op_type in FOLLOWING and carried)
        low = low and bool(floats) and node.name not in self.exact
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        # A resize's region and scales stay float32 whatever the picture is.
        typed = node.input[:1] if node.op_type == "Resize" else node.input
        for place, name in enumerate(typed):
            if self.types.get(name) == TensorProto.FLOAT:
                copied.input[place] = self._as(name, low)
        self.nodes.append(copied)
        if low:
            self.low.update(name for name in node.output if self.types.get(name) == TensorProto.FLOAT)

    def _as(self, name: str, low: bool) -> str:
        """The tensor in the type that is wanted; a constant is stored so, anything else is cast once."""
        if (name in self.low) == low:
            return name
        key = (name, low)
        if key not in self.made:
            kind = self.dtype if low else "float32"
            self.made[key] = f"{name}_{kind}"
            if name in self.constants:
                self._store(name, self.made[key])
            else:
                to = _ONNX[self.dtype] if low else TensorProto.FLOAT
                cast = helper.make_node("Cast", [name], [self.made[key]], name=f"{self.made[key]}_cast", to=to)
                self.nodes.append(cast)
        return self.made[key]

    def _store(self, name: str, stored: str) -> None:
        value = numpy_helper.to_array(self.constants[name])
        with np.errstate(over="ignore"):
            rounded = value.astype(_NUMPY[self.dtype])
        if not np.isfinite(rounded.astype(np.float32)).all():
            raise EngineError(f"{name} reaches {np.abs(value).max():.3g}, too much for {self.dtype}: use bf16 or fp32")
        self.model.graph.initializer.append(numpy_helper.from_array(rounded, stored))


def _cast_to(node: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
