"""What this machine can do at most, and how near the networks come to it: arithmetic and memory, both measured.

Operations are those of convolutions and products, two for each multiplication. Bytes are the least that has to move:
weights, and every such layer's input and output, once, in the width that is computed in.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.bench.runner.records import Row
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import seconds_of
from ohlora.bench.suites.engines import BATCH, latents, portraits
from ohlora.bundle import Bundle
from ohlora.engines import backend_report, open_engine, usable_cores

CEILINGS, POINTS = "ceilings", "networks"
CHANNELS, SIZE, LAYERS = 512, 32, 8  # of the convolutions that arithmetic is measured with: wide, in the caches
COPIED = 256 << 20
ROUNDS = 7
WIDTHS = {"fp32": 4, "bf16": 2, "int8": 1}


def roofline_rows(options: Options) -> Iterator[Row]:
    """Ceilings, then every preset's networks. Needs onnx (the train extra)."""
    copied = copy_rate()
    yield Row("roofline", CEILINGS, "memory copy", "GB/s", value=copied, facts={"ceiling": copied})
    bf16 = any(status.bf16 for status in backend_report(["openvino"]))
    for precision in ("fp32", "bf16") if bf16 else ("fp32",):
        peak = round(arithmetic_rate(precision), 1)
        yield Row("roofline", CEILINGS, f"convolutions {precision}", "GFLOP/s", value=peak, facts={"ceiling": peak})
    for preset, bundle in options.subject.bundles.items():
        yield from points(preset, bundle)


def points(preset: str, bundle: Bundle) -> Iterator[Row]:
    """Both networks of a bundle, batch 8."""
    for name, engine, file, inputs in (
        ("synthesis", bundle.synthesis_engine(), bundle.generator_part().synthesis, {"wp": latents(bundle)}),
        ("student", bundle.hair_engine(), bundle.hair_part().file, {"image": portraits(bundle)}),
    ):
        seconds = fastest(functools.partial(engine, **inputs)) / BATCH
        macs, moved = work_of(bundle.file(file), WIDTHS.get(engine.precision, 4))
        rate = 2 * macs / seconds / 1e9
        engine.close()
        yield Row(
            "roofline", POINTS, f"{name} {preset}, {engine.precision}", "picture", ms=round(1e3 * seconds, 3),
            facts={"gflops": round(rate, 1), "gmac": round(macs / 1e9, 3), "flops_per_byte": round(2 * macs / moved)},
        )  # fmt: skip


def fastest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls: a ceiling is not a median."""
    return float(seconds_of({"": call}, ROUNDS)[""].min())


def copy_rate() -> float:
    """GB/s read and written by all cores, of blocks that no cache holds."""
    cores = usable_cores()
    parts = [(np.ones(COPIED // 8 // cores), np.empty(COPIED // 8 // cores)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        seconds = fastest(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts)))
    return round(2 * COPIED / seconds / 1e9, 2)


def arithmetic_rate(precision: str) -> float:
    """GFLOP/s of the engine that computes fastest here, in convolutions of 512 channels."""
    from ohlora.export.graphs.builder import GraphBuilder

    graph, side = GraphBuilder(), ("float32", ("N", CHANNELS, SIZE, SIZE))
    weight = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 70
    graph.constant("w", weight.astype(np.float32))
    for i in range(LAYERS):
        graph.add("Conv", [f"x{i}", "w"], f"x{i + 1}", pads=[1, 1, 1, 1])
    model = graph.model("convolutions", {"x0": side}, {f"x{LAYERS}": side})
    rows = np.zeros((usable_cores() * 2, CHANNELS, SIZE, SIZE), np.float32)
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        path = Path(folder) / "convolutions.onnx"
        path.write_bytes(model.SerializeToString())
        with open_engine(path, precision=precision) as engine:
            seconds = fastest(lambda: engine(x0=rows))
    return 2 * len(rows) * LAYERS * CHANNELS * CHANNELS * 9 * SIZE * SIZE / seconds / 1e9


def work_of(path: Path, width: int) -> tuple[int, int]:
    """(multiplications, least bytes moved) of one row of an ONNX file. width: bytes of a number."""
    import onnx

    model = onnx.load(path)
    for side in (*model.graph.input, *model.graph.output):
        side.type.tensor_type.shape.dim[0].dim_value = 1
    known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in known.initializer}
    for value in (*known.value_info, *known.input, *known.output):
        shapes[value.name] = tuple(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    macs = numbers = 0
    for node in known.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        x, weight, made = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
        if x and weight and made:
            each = x[-1] if node.op_type in ("MatMul", "Gemm") else math.prod(weight[1:])
            macs += math.prod(x if node.op_type == "ConvTranspose" else made) * each
            numbers += math.prod(x) + math.prod(weight) + math.prod(made)
    return macs, numbers * width
