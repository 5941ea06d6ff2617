"""The fused graphs against the runtime's pipeline on random requests, and what fusing costs or saves.

    python -m ohlora.bench.studies.fused_graph --out bench/results/fused_graph.json

100 requests with everything at random: face, truncation, expression, dye; one in eight undyed. Engines run row by row
on both cores; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.bench.runner.machine import machine
from ohlora.bundle import Bundle
from ohlora.engines import open_engine
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.graphs.portrait_requests import portrait_requests, recolor_requests
from ohlora.render.renderer import Renderer

ROUNDS = 5
SIZE = (256, 256)


def compared(made: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    apart = np.abs(made.astype(np.int16) - wanted)
    share = (apart > 0).mean(axis=(1, 2, 3))
    return {
        "requests": len(made),
        "values": int(apart.size),
        "max_levels": int(apart.max()),
        "values_above_one_level": int((apart > 1).sum()),
        "share_different": float(share.mean()),
        "share_different_worst_request": float(share.max()),
    }


def measure(where: str, backend: str, count: int) -> list[dict[str, Any]]:
    """Rows of portrait and recolor with one backend."""
    bundle = Bundle.open(where)
    portraits, pictures = portrait_requests(bundle, count), recolor_requests(SIZE, count)
    rows = []
    with Renderer(bundle, backend=backend, precision="fp32") as renderer, tempfile.TemporaryDirectory() as folder:
        for name, model, asked, output in (
            ("portrait", portrait_graph(bundle), portraits, "image"),
            ("recolor", recolor_graph(bundle, SIZE), pictures, "dyed"),
        ):
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            with open_engine(path, backend=backend) as engine:
                row = compared(engine(**asked.inputs)[output], asked.pipeline(renderer))
                times = []
                for _ in range(ROUNDS):
                    start = time.perf_counter()
                    engine(**asked.inputs)
                    times.append((time.perf_counter() - start) / count)
            per_second = round(1 / statistics.median(times), 1)
            rows.append({"graph": name, "backend": backend, **row, "images_per_second": per_second})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [
        row for backend in ("onnxruntime", "openvino") for row in measure(options.bundle, backend, options.requests)
    ]
    for row in rows:
        print(row)
    if options.out:
        content = {"machine": machine(), "bundle": options.bundle, "rows": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
