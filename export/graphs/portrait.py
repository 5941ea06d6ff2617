"""One file for production: portrait.onnx renders a dyed face, recolor.onnx dyes a picture. Standard operations only.

    portrait.onnx  z float32 [N,Z], label float32 [N,L] (absent when L = 0), truncation float32 [N,2] (psi, layers),
                   expression float32 [N,3] (eyes, mouth, pose; of bundles with directions),
                   group int64 [N] (index of the face's direction group, where there are several),
                   ombre float32 [N,3] (color, height, grad_height; a negative color leaves the hair as it is)
                   -> image uint8 [N,R,R,3] RGB, hair float32 [N,224,224]; without a hair finder no ombre and no hair
    recolor.onnx   image uint8 [N,H,W,3] RGB, ombre float32 [N,3] -> dyed uint8 [N,H,W,3], hair float32 [N,h,w]

portrait.onnx names the bundle's own psi in its metadata (ohlora.psi), and dyes by the map as it is, edges not refined.

Both are made of a bundle's own networks, byte for byte, and what the runtime does between them in NumPy and Numba.
Latents are added up in float64, as the runtime does; dyeing is float32, and where a product falls exactly on a row or a
hue, the neighbouring one may be taken.
"""

from __future__ import annotations

import numpy as np
import onnx

from ohlora.bundle import Bundle
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.export.graphs.expression import edited_latent
from ohlora.export.graphs.ombre import add_hair, add_ombre
from ohlora.photos.segmentation import fit

INPUT_OMBRE = {"ombre": ("float32", ("N", 3))}


def portrait_graph(
    bundle: Bundle, *, synthesis: onnx.ModelProto | None = None, hair: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """portrait.onnx of a bundle. synthesis, hair: take the place of its own, to fuse networks of lower precision.

    Raises BundleError without a generator.
    """
    part, directions = bundle.generator_part(), bundle.direction_set()
    graph = GraphBuilder()
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = {"z": ("float32", ("N", part.z_size))}
    if part.label_size:
        inputs["label"] = ("float32", ("N", part.label_size))
    inputs["truncation"] = ("float32", ("N", 2))
    if directions is not None:
        inputs["expression"] = ("float32", ("N", 3))
        if directions.vectors and len(directions.groups) > 1:
            inputs["group"] = ("int64", ("N",))
    end = _load(bundle, part.mapping_end) if part.mapping_end else None
    w = edited_latent(graph, _load(bundle, part.mapping), end, directions, part.label_size)
    wp = truncated(graph, w, bundle.w_avg(), part.num_layers)
    image = graph.include(synthesis or _load(bundle, part.synthesis), "synthesis", {"wp": wp})["image"]
    side = part.resolution
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {"image": ("uint8", ("N", side, side, 3))}
    if hair is None and bundle.manifest.hair is None:
        graph.add("Identity", [image], "image")
    else:
        inputs |= INPUT_OMBRE
        size = bundle.hair_part().input_size
        mask = add_hair(graph, image, hair or _load(bundle, bundle.hair_part().file), (side, side), size)
        graph.add("Identity", [mask], "hair")
        outputs["hair"] = ("float32", ("N", size, size))
        add_ombre(graph, image, mask, (side, side), (size, size), output="image")
    said = {"ohlora.psi": f"{part.psi:g}"}  # of callers that choose none, on all layers
    return graph.model("portrait", inputs, outputs, _properties(bundle, "portrait") | said)


def recolor_graph(bundle: Bundle, size: tuple[int, int], *, hair: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """recolor.onnx for pictures of `size` (height, width), each taken as one portrait.

    Raises BundleError without a hair finder, InvalidInputError for sizes too narrow for a portrait.
    """
    height, width = size
    if min(size) < 8 or max(size) > 4096:
        raise InvalidInputError(f"pictures of {width}x{height}: sides must be in [8, 4096]")
    side = bundle.hair_part().input_size
    graph = GraphBuilder()
    found = add_hair(graph, "image", hair or _load(bundle, bundle.hair_part().file), size, side)
    graph.add("Identity", [found], "hair")
    add_ombre(graph, "image", found, size, fit(height, width), output="dyed")
    inputs = {"image": ("uint8", ("N", height, width, 3))} | INPUT_OMBRE
    outputs = {"dyed": ("uint8", ("N", height, width, 3)), "hair": ("float32", ("N", *fit(height, width)))}
    return graph.model("recolor", inputs, outputs, _properties(bundle, "recolor"))


def truncated(graph: GraphBuilder, w: str, mean: np.ndarray, layers: int) -> str:
    """w [N,W] -> wp [N,layers,W]: the first layers drawn towards the mean, the rest exactly w."""
    psi, cut = graph.split("truncation", ["psi", "truncated_layers"], "psi_split")
    number = graph.constant("layer_numbers", np.arange(layers, dtype=np.float32)[None])
    mean_row = graph.constant("w_avg", mean.astype(np.float32)[None])
    drawn = graph.add("And", [graph.add("Less", [number, cut], "layer_is_cut"),
                              graph.add("Less", [psi, graph.number(1.0)], "psi_below_one")], "drawn")  # fmt: skip
    nearer = graph.add("Mul", [graph.add("Sub", [w, mean_row], "from_mean"), psi], "nearer")
    nearer = graph.add("Add", [mean_row, nearer], "truncated_w")
    layer = graph.integers(1)
    choose = graph.add("Unsqueeze", [drawn, graph.integers(2)], "drawn_layers")  # [N,layers,1]
    rows = [graph.add("Unsqueeze", [x, layer], f"{x}_layer") for x in (nearer, w)]
    return graph.add("Where", [choose, *rows], "wp")


def _load(bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load(bundle.file(name))


def _properties(bundle: Bundle, role: str) -> dict[str, str]:
    return {"ohlora.role": role, "ohlora.bundle": bundle.name, "ohlora.bundle_sha256": bundle.identity}
