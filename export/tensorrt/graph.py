"""Graph changes that TensorRT needs: bytes are inputs and outputs only, exactly; float64 becomes float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ohlora.engines.onnx_torch.onnx_graphs import drop_unused, fold_constants

UINT8 = TensorProto.UINT8


def bytes_outside(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every uint8 tensor but inputs and outputs becomes float32 with the same whole values.

    A cast to bytes truncates, and our graphs clip to 0..255 before it: inside, it is a floor.
    """
    result = onnx.shape_inference.infer_shapes(_without_float64(fold_constants(model)))
    graph = result.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    bytes_in = [value.name for value in graph.input if types[value.name] == UINT8]
    bytes_out = [value.name for value in graph.output if types[value.name] == UINT8]
    renamed = {name: f"{name}_as_float32" for name in (*bytes_in, *bytes_out)}
    nodes = [_cast(name, renamed[name], TensorProto.FLOAT) for name in bytes_in]
    for node in graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        if node.op_type == "Cast":
            copied = _without_bytes(copied, types)
        copied.input[:] = [renamed.get(name, name) for name in copied.input]
        copied.output[:] = [renamed.get(name, name) for name in copied.output]
        nodes.append(copied)
    nodes += [_cast(renamed[name], name, UINT8) for name in bytes_out]
    changed = {name for name, kind in types.items() if kind == UINT8}
    kept = [value for value in graph.value_info if value.name not in changed]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(kept)
    drop_unused(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _without_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """float64 becomes float32, which is all that TensorRT has: latents may differ in their last bit. In place."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
    kept = [value for value in graph.value_info if value.type.tensor_type.elem_type != TensorProto.DOUBLE]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return model


def _without_bytes(node: onnx.NodeProto, types: dict[str, int]) -> onnx.NodeProto:
    """A cast to or from bytes when bytes are float32."""
    source, to = types.get(node.input[0]), next(entry.i for entry in node.attribute if entry.name == "to")
    if to == UINT8:
        if source in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            if source != TensorProto.FLOAT:
                raise ValueError(f"{node.name} casts a lower type to bytes: levels are made in float32")
            return helper.make_node("Floor", node.input, node.output, name=node.name)
        return _cast(node.input[0], node.output[0], TensorProto.FLOAT, node.name)
    if source == UINT8 and to == TensorProto.FLOAT:
        return helper.make_node("Identity", node.input, node.output, name=node.name)
    return node


def _cast(source: str, target: str, to: int, name: str | None = None) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=name or f"{target}_cast", to=to)
