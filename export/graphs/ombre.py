"""Hair finding and the ombre dye as graph nodes (docs/spec/ombre.md).

Equal to `ohlora.photos.segmentation` and `ohlora.kernels.ombre`.
"""

from __future__ import annotations

import numpy as np
import onnx

from ohlora.export.graphs.builder import GraphBuilder
from ohlora.export.graphs.resize_matrices import area_matrix, cubic_matrix
from ohlora.kernels.ombre import CONTRAST, HAIR_ROW, THRESHOLD, hue_table
from ohlora.photos.segmentation import fit, mirrored


def student_picture(graph: GraphBuilder, image: str, size: tuple[int, int], side: int) -> str:
    """image uint8 [N,H,W,3] of `size` -> the student's picture uint8 [N,side,side,3], as
    `ohlora.photos.segmentation.student_input` makes it.
    """
    inner = fit(*size)
    planes = graph.add("Transpose", [graph.cast(image, "float32", "hair_levels")], "hair_planes", perm=[0, 3, 1, 2])
    if inner != size:
        planes = _resize(graph, planes, size, inner, "student")
        if size == (2 * inner[0], 2 * inner[1]):
            # OpenCV halves bytes in integers, and rounds a half up there.
            up = graph.add("Add", [planes, graph.number(0.5)], "student_half_up")
            rounded = graph.add("Floor", [up], "student_rounded")
        else:
            rounded = graph.add("Round", [planes], "student_rounded")
        planes = graph.add("Clip", [rounded, graph.number(0.0), graph.number(255.0)], "student_levels")
    for axis, length in ((2, inner[0]), (3, inner[1])):
        if length != side:
            index = graph.constant(f"mirrored_{axis}", mirrored(length, (side - length) // 2))
            planes = graph.add("Gather", [planes, index], f"student_padded_{axis}", axis=axis)
    small = graph.add("Transpose", [planes], "student_pixels", perm=[0, 2, 3, 1])
    return graph.cast(small, "uint8", "student_image")


def add_hair(graph: GraphBuilder, image: str, finder: onnx.ModelProto, size: tuple[int, int], side: int) -> str:
    """image uint8 [N,H,W,3] of `size` -> hair float32 [N,h,w], the longer side `side`, by the student `finder`."""
    inner = fit(*size)
    picture = student_picture(graph, image, size, side)
    hair = graph.include(finder, "student", {"image": picture})["hair"]
    if inner == (side, side):
        return hair
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    starts, ends = graph.integers(top, left), graph.integers(top + inner[0], left + inner[1])
    return graph.add("Slice", [hair, starts, ends, graph.integers(1, 2)], "hair_cropped")


def add_ombre(
    graph: GraphBuilder, image: str, hair: str, size: tuple[int, int], hair_size: tuple[int, int], output: str
) -> str:
    """image uint8 [N,H,W,3], hair float32 [N,h,w], graph input ombre [N,3] -> `output` uint8 [N,H,W,3]."""
    color, height, grad = graph.split("ombre", ["color", "height", "grad_height"], "color_split")
    number = graph.number
    # Coverage (docs/spec/ombre.md, section 3): 0..255 on the picture's own pixels.
    scaled = graph.add("Mul", [hair, number(255.0)], "hair_255")
    resized = _resize(graph, scaled, hair_size, size, "coverage")
    contrast = graph.add("Sub", [resized, number(float(THRESHOLD))], "over_threshold")
    contrast = graph.add("Mul", [contrast, number(float(CONTRAST))], "contrast")
    coverage = graph.add("Clip", [contrast, number(0.0), number(255.0)], "coverage")  # [N,H,W]
    weights = _row_weights(graph, coverage, height, grad, color, size[0])  # [N,H]
    alpha = graph.add("Mul", [coverage, graph.add("Unsqueeze", [weights, graph.integers(2)], "row_alpha")], "alpha")
    alpha = graph.add("Unsqueeze", [alpha, graph.integers(3)], "pixel_alpha")  # [N,H,W,1]
    # Hue: truncated, 1.0 is red again. A negative colour is no dye and takes hue 0, whose weight is 0.
    degrees = graph.add("Max", [graph.add("Mul", [color, number(360.0)], "degrees"), number(0.0)], "hue_degrees")
    index = graph.add("Mod", [graph.cast(degrees, "int64", "hue_index"), graph.integers(360)], "hue")
    table = graph.constant("hue_table", hue_table().astype(np.float32))
    tint = graph.add("Gather", [table, index], "tint", axis=0)  # [N,1,3]
    tint = graph.add("Unsqueeze", [tint, graph.integers(1)], "pixel_tint")  # [N,1,1,3]
    # Dyed value (docs/spec/ombre.md, section 5), in the documented order: in float32 it truncates to the same
    # byte for every byte and hue.
    levels = graph.cast(image, "float32", "levels")
    part = graph.add("Mul", [levels, number(0.35)], "own_part")
    part = graph.add("Add", [part, graph.add("Mul", [tint, number(0.25)], "tint_part")], "both_parts")
    part = graph.add("Add", [levels, graph.add("Sub", [part, number(38.25)], "tint_change")], "tinted")
    dyed = graph.add("Floor", [graph.add("Clip", [part, number(0.0), number(255.0)], "tinted_levels")], "dyed_levels")
    change = graph.add("Mul", [alpha, graph.add("Sub", [dyed, levels], "change")], "weighted_change")
    blended = graph.add("Add", [levels, change], "blended")
    return graph.cast(blended, "uint8", output)  # truncates: no value is negative


def _row_weights(graph: GraphBuilder, coverage: str, height: str, grad: str, color: str, rows: int) -> str:
    """Weight of each row over 255, [N,H] (docs/spec/ombre.md, section 4): 0 above the gradient, 1 below it, 0
    everywhere without hair.
    """
    number, axes = graph.number, graph.integers(1)
    strongest = graph.add("ReduceMax", [coverage, graph.integers(2)], "row_strength", keepdims=0)  # [N,H]
    is_hair = graph.add("GreaterOrEqual", [strongest, number(float(HAIR_ROW))], "is_hair_row")
    y = graph.constant("rows", np.arange(rows, dtype=np.float32)[None])
    first_hair = graph.add("Where", [is_hair, y, number(float(rows))], "hair_rows_or_end")
    top = graph.add("ReduceMin", [first_hair, axes], "top", keepdims=1)
    last_hair = graph.add("Where", [is_hair, y, number(-1.0)], "hair_rows_or_none")
    bottom = graph.add("ReduceMax", [last_hair, axes], "bottom", keepdims=1)  # [N,1]

    def row_at(start: str, share: str, name: str) -> str:
        length = graph.add("Sub", [bottom, start], f"{name}_length")
        place = graph.add("Add", [start, graph.add("Mul", [length, share], f"{name}_offset")], f"{name}_place")
        return graph.add("Floor", [place], name)

    first = row_at(top, graph.add("Sub", [number(1.0), height], "undyed_share"), "gradient_start")
    full = row_at(first, grad, "gradient_end")
    length = graph.add("Max", [graph.add("Sub", [full, first], "gradient_rows"), number(1.0)], "gradient_length")
    rise = graph.add("Div", [graph.add("Sub", [y, first], "rows_in"), length], "rise")
    rise = graph.add("Max", [rise, number(0.0)], "rise_from_zero")
    below = graph.add("GreaterOrEqual", [y, full], "below_gradient")
    weight = graph.add("Where", [below, number(1.0), rise], "row_weight")
    found = graph.add("GreaterOrEqual", [bottom, number(0.0)], "has_hair")
    asked = graph.add("GreaterOrEqual", [color, number(0.0)], "is_dyed")
    applies = graph.add("And", [found, asked], "applies")
    weight = graph.add("Where", [applies, weight, number(0.0)], "applied_weight")
    return graph.add("Div", [weight, number(255.0)], "row_alpha_share")


def _resize(graph: GraphBuilder, x: str, source: tuple[int, int], target: tuple[int, int], name: str) -> str:
    """x [...,H,W] -> [...,h,w]: area when a side shrinks on pictures, cubic on maps and when enlarging."""
    shrinks = name == "student" and (source[0] > target[0] or source[1] > target[1])
    make = area_matrix if shrinks else cubic_matrix
    rows, columns = (make(*pair) for pair in zip(source, target, strict=True))
    across = graph.add("MatMul", [x, graph.constant(f"{name}_columns", columns.T)], f"{name}_across")
    return graph.add("MatMul", [graph.constant(f"{name}_rows", rows), across], f"{name}_resized")
