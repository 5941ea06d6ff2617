"""ONNX graphs that an engine reads itself: constants folded, unused parts dropped. Needs the package onnx."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ohlora.engines.onnxruntime_backend import open_session


def fold_constants(model: onnx.ModelProto, kinds: Iterable[str] = ()) -> onnx.ModelProto:
    """A model in which every node depends on an input. Values are ONNX Runtime's, unoptimised.

    kinds: fold only what nodes of these operations read ("Conv"); other constants stay in their stored, smaller form.
    """
    kinds = frozenset(kinds)
    known = {tensor.name for tensor in model.graph.initializer}
    constant, rest = [], []
    for node in model.graph.node:
        if all(name in known for name in node.input if name):
            constant.append(node)
            known.update(node.output)
        else:
            rest.append(node)
    made = {name for node in constant for name in node.output}
    read = {name for node in rest if not kinds or node.op_type in kinds for name in node.input}
    if not kinds:
        read |= {tensor.name for tensor in model.graph.output}
    wanted = sorted(made & read)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if wanted:
        values = _run_constants(model, constant, wanted)
        result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    kept = [node for node in constant if kinds and not set(node.output) & set(wanted)]
    del result.graph.node[:]
    result.graph.node.extend([*kept, *rest])
    return drop_unused(result)


def _run_constants(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]
) -> dict[str, NDArray[np.generic]]:
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(nodes, "constants", [], outputs, list(model.graph.initializer))
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    part = onnx.shape_inference.infer_shapes(drop_unused(part))
    session = open_session(part.SerializeToString(), optimized=False)
    return dict(zip(wanted, session.run(wanted, {}), strict=True))


def drop_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without nodes, initialisers and noted shapes that no output depends on. In place; returned for chaining."""
    graph = model.graph
    read = {tensor.name for tensor in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if read & set(node.output):
            read.update(node.input)
            nodes.append(node)
    nodes.reverse()
    made = {name for node in nodes for name in node.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    values = [value for value in graph.value_info if value.name in made]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.value_info.extend(values)
    return model
