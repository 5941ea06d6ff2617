"""z, label, expression -> w as graph nodes, in every latent space (`ohlora.latents.mapping` is the same in NumPy)."""

from __future__ import annotations

import numpy as np
import onnx

from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.latents.directions import Directions
from ohlora.latents.gradient_network import GradientNetwork


def edited_latent(
    graph: GraphBuilder,
    mapping: onnx.ModelProto,
    mapping_end: onnx.ModelProto | None,
    directions: Directions | None,
    label_size: int,
) -> str:
    """Name of w float32 [N,W]. Reads the graph inputs z, label, expression and group, as far as there are such."""
    given = {"z": "z", "label": "label"} if label_size else {"z": "z"}
    if directions is None:
        return graph.include(mapping, "mapping", given)["w"]
    strengths = graph.split("expression", PROPERTIES, f"{PROPERTIES[0]}_split")
    space = directions.space
    if space == "z":
        start = graph.add("Concat", ["z", "label"], "z_label", axis=1) if label_size else "z"
        edited = _moved(graph, start, start, directions, strengths)
        if not label_size:
            return graph.include(mapping, "mapping", {"z": edited})["w"]
        sizes = directions.size - label_size, label_size
        graph.split(edited, ["z_edited", "label_edited"], "z_split", sizes)
        return graph.include(mapping, "mapping", {"z": "z_edited", "label": "label_edited"})["w"]
    made = graph.include(mapping, "mapping", given)
    if space == "w":
        return _moved(graph, made["w"], made["w"], directions, strengths)
    if mapping_end is None:
        if space == "mapping_split1" or directions.networks:
            raise InvalidInputError(f"directions in {space} need the mapping_end network: build the bundle again")
        return _moved(graph, made["w"], made["w"], directions, strengths, fold=True)
    if space == "mapping_split1":
        split = made["mapping_split1"]
        edited = _moved(graph, split, split, directions, strengths)
        return graph.include(mapping_end, "mapping_end", {"mapping_split1": edited})["w"]
    read = made["w"]
    if directions.networks:
        read = graph.include(mapping_end, "mapping_end", {"mapping_split1": made["mapping_split1"]})["mapping_split2"]
    return _moved(graph, made["w"], read, directions, strengths, fold=True)


def _moved(
    graph: GraphBuilder, start: str, read: str, directions: Directions, strengths: list[str], fold: bool = False
) -> str:
    """start + sum of strength x direction. read: what networks read. fold: the halves of a direction are added."""
    # As the runtime adds them: in float64, rounded once. Where a backend has no float64 it is the last bit.
    strengths = [graph.cast(one, "float64", f"{one}_exact") for one in strengths]
    total, size = graph.cast(start, "float64", "latent_exact"), directions.size
    for name, strength in zip(PROPERTIES, strengths, strict=True):
        if network := directions.networks.get(name):
            move = _gradient(graph, read, network, name)
            if fold:
                halves = graph.split(move, [f"{name}_branch1", f"{name}_branch2"], f"{name}_halves")
                move = graph.add("Add", halves, f"{name}_folded")
            move = graph.cast(move, "float64", f"{name}_direction_exact")
        else:
            table = np.stack([directions.vectors[name][group] for group in directions.groups])
            if fold:
                table = table[:, : size // 2] + table[:, size // 2 :]
            stored = graph.constant(f"directions.{name}", table.astype(np.float64))
            move = stored if len(table) == 1 else graph.add("Gather", [stored, "group"], f"{name}_direction", axis=0)
        step = graph.add("Mul", [strength, move], f"{name}_move")
        total = graph.add("Add", [total, step], f"latent_after_{name}")
    return graph.cast(total, "float32", "edited_latent")


def _gradient(graph: GraphBuilder, x: str, network: GradientNetwork, name: str) -> str:
    """Unit gradient of the network's score at x [N,D], times its scale; zeros where it is flat."""

    def made(kind: str, inputs: list[str], what: str, **attributes: object) -> str:
        return graph.add(kind, inputs, f"{name}_{what}", **attributes)

    def weight(what: str, values: np.ndarray) -> str:
        return graph.constant(f"{name}.{what}", values)

    fc1, bias1, fc2, bias2, fc_final, _ = network.arrays.values()
    w1, w2 = weight("fc1", fc1), weight("fc2", fc2)
    one = graph.number(1.0)
    first = made("Tanh", [made("Gemm", [x, w1, weight("bias1", bias1)], "hidden1", transB=1)], "first")
    second = made("Tanh", [made("Gemm", [first, w2, weight("bias2", bias2)], "hidden2", transB=1)], "second")
    slope2 = made("Sub", [one, made("Mul", [second, second], "squares2")], "slope2")
    back = made("Mul", [slope2, weight("fc_final", fc_final)], "back2")
    slope1 = made("Sub", [one, made("Mul", [first, first], "squares1")], "slope1")
    back = made("Mul", [slope1, made("MatMul", [back, w2], "through2")], "back1")
    gradient = made("MatMul", [back, w1], "gradient")
    length = made("ReduceL2", [gradient, graph.integers(1)], "length", keepdims=1)
    # A flat place has gradient 0: divided by anything but 0 it stays 0.
    safe = made("Max", [length, graph.number(1e-30)], "safe_length")
    unit = made("Div", [gradient, safe], "unit")
    return made("Mul", [unit, graph.number(network.scale)], "scaled")
