"""The fused graphs against the runtime's pipeline on random requests, and what fusing costs or saves.

    python -m ohlora.bench.studies.fused_graph --out bench/results/fused_graph.json

100 requests with everything at random: face, truncation, expression, dye; one in eight undyed. Engines run row by row
on both cores; medians.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ohlora.base.types import Backend
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import seconds_of
from ohlora.bundle import Bundle
from ohlora.engines import open_engine
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.graphs.portrait_requests import Requests, portrait_requests, recolor_requests
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


def measure(where: str, backend: Backend, count: int) -> list[dict[str, Any]]:
    """Rows of portrait and recolor with one backend."""
    bundle, rows = Bundle.open(where), []
    cases: dict[str, tuple[onnx.ModelProto, Requests, str]] = {
        "portrait": (portrait_graph(bundle), portrait_requests(bundle, count), "image"),
        "recolor": (recolor_graph(bundle, SIZE), recolor_requests(SIZE, count), "dyed"),
    }
    with Renderer(bundle, backend=backend, precision="fp32") as renderer, tempfile.TemporaryDirectory() as folder:
        for name, (model, asked, output) in cases.items():
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            with open_engine(path, backend=backend) as engine:
                row = compared(engine(**asked.inputs)[output], asked.pipeline(renderer))
                taken = seconds_of({name: partial(engine, **asked.inputs)}, ROUNDS, warm=0)[name]
            rate = round(count / float(np.median(taken)), 1)
            rows.append({"graph": name, "backend": backend, **row, "images_per_second": rate})
            print(rows[-1], flush=True)
    return rows


@study(shown=False)
def main(bundle: str = "demo", requests: int = 100) -> dict[str, Any]:
    backends: tuple[Backend, ...] = ("onnxruntime", "openvino")
    rows = [row for backend in backends for row in measure(bundle, backend, requests)]
    return {"bundle": bundle, "rows": rows}


if __name__ == "__main__":
    main()
