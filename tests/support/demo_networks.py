"""The networks of the demo bundle and its fused graphs, with inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ohlora.bundle import Bundle
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.graphs.portrait_requests import portrait_requests, recolor_requests

RNG = np.random.default_rng(0)


def demo_network(name: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """mapping, synthesis, hair, portrait or recolor: its graph, and two or three rows for it."""
    bundle = Bundle.open("demo")
    if name == "portrait":
        return portrait_graph(bundle), portrait_requests(bundle, 3).inputs
    if name == "recolor":
        return recolor_graph(bundle, (96, 64)), recolor_requests((96, 64), 3).inputs
    if name == "hair":
        images = RNG.integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
        return onnx.load(bundle.file("hair.onnx")), {"image": images}
    part = bundle.generator_part()
    if name == "mapping":
        return onnx.load(bundle.file(part.mapping)), {"z": RNG.standard_normal((3, part.z_size)).astype(np.float32)}
    wp = 0.5 * RNG.standard_normal((2, part.num_layers, part.w_size)).astype(np.float32)
    return onnx.load(bundle.file(part.synthesis)), {"wp": wp}
