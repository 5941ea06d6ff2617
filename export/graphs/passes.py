"""Exact passes over ONNX graphs, for models whose PyTorch module is not at hand: those of a bundle.

subpixel   stride-2 transposed convolutions become 2x2 convolutions, depth to space and a crop
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from ohlora.engines.onnx_torch.onnx_graphs import drop_unused, fold_constants
from ohlora.export.rewrites.generator import window_kernel


def subpixel(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every 4x4 stride-2 pad-1 transposed convolution as a 2x2 convolution to 4C channels, depth to space and a crop.

    The same sums in another order; the form that keeps its speed in int8 (docs/design.md, section 8).
    """
    result = fold_constants(model, CONVOLUTIONS)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        if not _is_upsampling(node, weights):
            nodes.append(node)
            continue
        kernel = torch.from_numpy(numpy_helper.to_array(weights[node.input[1]]).copy())  # [I, O, 4, 4]
        name, source = f"{node.input[1]}_windows", node.output[0]
        result.graph.initializer.append(numpy_helper.from_array(window_kernel(kernel).numpy(), name))
        inputs = [node.input[0], name]
        if len(node.input) > 2:
            bias = numpy_helper.to_array(weights[node.input[2]])
            result.graph.initializer.append(numpy_helper.from_array(np.repeat(bias, 4), f"{node.input[2]}_windows"))
            inputs.append(f"{node.input[2]}_windows")
        conv = helper.make_node("Conv", inputs, [f"{source}_windows"], name=f"{node.name}_windows", pads=[1, 1, 1, 1])
        shuffle = helper.make_node(
            "DepthToSpace", [f"{source}_windows"], [f"{source}_shuffled"], name=f"{node.name}_shuffle",
            blocksize=2, mode="CRD",
        )  # fmt: skip
        bounds = [_vector(result, f"crop_{what}", values) for what, values in CROP.items()]
        crop = helper.make_node("Slice", [f"{source}_shuffled", *bounds], [source], name=f"{node.name}_crop")
        nodes.extend([conv, shuffle, crop])
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return drop_unused(result)


CONVOLUTIONS = ("Conv", "ConvTranspose")
CROP = {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}


def _is_upsampling(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "ConvTranspose" or node.input[1] not in weights:
        return False
    if list(weights[node.input[1]].dims)[2:] != [4, 4]:
        return False
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = found.get("group", 1) == 1 and set(found.get("dilations", [1])) == {1}
    bare = not any(found.get("output_padding", [0])) and "output_shape" not in found
    return bool(plain and bare and found.get("strides") == [2, 2] and found.get("pads") == [1, 1, 1, 1])


def _vector(model: onnx.ModelProto, name: str, values: list[int]) -> str:
    if all(tensor.name != name for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name
