"""TensorRT engines built without a GPU: seconds, size, layers, for every device that is named.

    python -m ohlora.bench.studies.tensorrt_build --out bench/results/tensorrt_build.json \
        [--model synthesis=FILE.onnx ...]

Networks of a bundle (default demo) in float32, synthesis in fp16, bf16 and int8 too, dynamic batch 1:8:32.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import onnx

from ohlora.bench.runner.study import study
from ohlora.bundle import Bundle
from ohlora.export.bundle.preset import lower_synthesis
from ohlora.export.formats import Batch
from ohlora.export.graphs.portrait import portrait_graph
from ohlora.export.lowering import tensorrt_form
from ohlora.export.precision.presets import preset_named
from ohlora.export.tensorrt.builder import build_engine

BATCH = (1, 8, 32)
DEVICES = ("8.6", "8.9", "12.0")


def models(where: str) -> dict[tuple[str, str], onnx.ModelProto]:
    """(network, precision) -> graph."""
    bundle = Bundle.open(where)
    part = bundle.generator_part()
    synthesis = onnx.load(bundle.file(part.synthesis))
    quantised = lower_synthesis(bundle, preset_named("fast"), "int8", 16, lambda line: None, symmetric=True)
    return {
        ("mapping", "fp32"): onnx.load(bundle.file(part.mapping)),
        ("synthesis", "fp32"): synthesis,
        ("synthesis", "fp16"): tensorrt_form(synthesis, "fp16"),
        ("synthesis", "bf16"): tensorrt_form(synthesis, "bf16"),
        ("synthesis", "int8"): quantised.model,
        ("hair", "fp32"): onnx.load(bundle.file(bundle.hair_part().file)),
        ("portrait", "fp32"): portrait_graph(bundle),
    }


@study(shown=False, model="NAME=FILE.onnx, a further network")
def main(bundle: str = "demo", model: list[str] | None = None) -> dict[str, Any]:
    graphs = models(bundle)
    for text in model or []:
        name, _, file = text.partition("=")
        graphs[name, "fp32"] = onnx.load(file)
        graphs[name, "fp16"] = tensorrt_form(graphs[name, "fp32"], "fp16")
    rows: list[dict[str, Any]] = []
    print(f"{'network':22}{'precision':11}{'device':16}{'s':>7}{'MB':>8}{'layers':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for ((name, precision), graph), devices in itertools.product(graphs.items(), (*zip(DEVICES), DEVICES)):
            engine = Path(folder) / "x.engine"
            built = build_engine(graph.SerializeToString(), engine, batch=Batch(*BATCH), compute_capabilities=devices)
            row = {
                "network": name,
                "precision": precision,
                "devices": list(devices),
                "seconds": round(built.build_seconds, 2),
                "megabytes": round(engine.stat().st_size / 1e6, 1),
                "layers": built.layers,
                "package": f"{built.package} {built.version}",
            }
            rows.append(row)
            shown = "+".join(devices)
            print(f"{name:22}{precision:11}{shown:16}{row['seconds']:7}{row['megabytes']:8}{row['layers']:8}")
    return {"batch": list(BATCH), "rows": rows}


if __name__ == "__main__":
    main()
