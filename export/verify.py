"""`ohlora export --verify`: what was exported, run beside PyTorch in the same process, in one table.

PyTorch runs the exported float32 graph operation by operation (the torch backend, no compilation); every engine sees
the same rows. ms: median of single rows; images/s: a batch with all threads.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Report
from ohlora.engines import BACKENDS, Engine, backend_report, usable_cores
from ohlora.errors import EngineError
from ohlora.export.exporter import Request, Written, export
from ohlora.export.graphs.from_torch import open_model
from ohlora.export.lowering import serialized
from ohlora.export.networks.compare import Kind, figures
from ohlora.export.networks.entry import Arrays
from ohlora.export.sources import Source, bundle_source

BATCH = 8
REPEATS = 5
BASELINE = "torch"


@dataclass(frozen=True)
class Row:
    """One engine of one network. parity: against PyTorch, in words. ms, per_second: None where it could not run.

    speedup: images/s over PyTorch's.
    """

    model: str
    engine: str
    precision: str
    megabytes: float
    parity: str
    ms: float | None
    per_second: float | None
    speedup: float | None
    note: str = ""


def verify_export(
    source: Source, request: Request, written: Sequence[Written], report: Report = lambda line: None
) -> list[Row]:
    """Rows of all networks, PyTorch's first for each. A bundle's are those of its own networks."""
    if request.to == "bundle":
        # Every network against its float32 source is in the manifest; here they are run.
        with tempfile.TemporaryDirectory(prefix="ohlora-verify-") as temporary:
            again, own = Request(to="onnx", out=Path(temporary) / "made"), bundle_source(request.out, (256, 256))
            return verify_export(own, again, export(own, again, report), report)
    rows: list[Row] = []
    for one in written:
        report(f"verifying {one.name}")
        rows += network_rows(one, request.to)
    return rows


def network_rows(one: Written, to: str) -> list[Row]:
    """PyTorch's row of the float32 graph, then those of the engines that take this format here."""
    graph, lowered = one.lowered.graph, one.lowered
    megabytes = sum(path.stat().st_size for path in one.files) / 1e6
    if graph.rows_depend:
        text = "a row depends on its batch, and these engines compute rows one by one"
        return [Row(one.name, "-", lowered.precision, megabytes, "-", None, None, None, text)]
    inputs = graph.inputs(BATCH)
    rows: list[Row] = []
    wanted: NDArray[Any] | None = None
    for backend, precision in [(BASELINE, "fp32"), *_ways(to, lowered.runtime)]:
        # PyTorch spreads one row over all threads itself.
        model, threads = (graph.model, 1) if backend == BASELINE else (serialized(lowered), None)
        try:
            engine = open_model(model, backend=backend, precision=precision, threads=threads)
        except EngineError as error:
            note = shorten(str(error), 60, placeholder="...")
            rows.append(Row(one.name, backend, precision, megabytes, "-", None, None, None, note))
            continue
        with engine:
            result = engine(**inputs)[graph.output]
            milliseconds, per_second = _timed(engine, inputs)
        text = "-" if wanted is None else parity_text(graph.kind, result, wanted)
        base = rows[0].per_second if rows else None
        speedup = per_second / base if base else None
        rows.append(Row(one.name, engine.backend, engine.precision, megabytes, text, milliseconds, per_second, speedup))
        wanted = result if backend == BASELINE else wanted
    return rows


def _ways(to: str, runtime: str) -> list[tuple[str, str]]:
    """(backend, precision) of the float part: what is installed, and the recorded precision where it runs."""
    usable = [status for status in backend_report() if status.available and status.name != BASELINE]
    asked = [status for status in usable if to in ("onnx", "triton", status.name)]
    ways = [(str(status.name), "fp32") for status in asked]
    return ways + [(str(status.name), runtime) for status in asked if runtime != "fp32" and status.bf16]


def _timed(engine: Engine, inputs: Arrays) -> tuple[float, float]:
    """(median ms of one row, images/s of batches)."""
    row = {name: np.ascontiguousarray(value[:1]) for name, value in inputs.items()}
    engine(**row)
    single, batches = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine(**row)
        single.append(time.perf_counter() - start)
        start = time.perf_counter()
        engine(**inputs)
        batches.append(time.perf_counter() - start)
    return 1e3 * statistics.median(single), len(next(iter(inputs.values()))) / statistics.median(batches)


def parity_text(kind: Kind, made: NDArray[Any], wanted: NDArray[Any]) -> str:
    """The figure that matters for what the output is."""
    found = figures(kind, made, wanted)
    if kind == "image":
        return f"{found['psnr_db']:.1f} dB, {found['max_grey_levels']:.0f} levels, {found['share_different']:.3%}"
    if kind == "mask":
        return f"IoU {found['iou']:.4f}, {found['max_abs_error']:.1e}"
    if kind == "classes":
        return f"{found['share_different']:.3%} of pixels"
    return f"{found['max_abs_error']:.1e}"


def show(rows: Sequence[Row]) -> None:
    """The table, with what it was measured on above."""
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "engine", "precision", "MB", "parity", "ms", "images/s", "vs PyTorch")
    for row in rows:
        figures = [
            "-" if row.ms is None else f"{row.ms:.2f}",
            "-" if row.per_second is None else f"{row.per_second:.1f}",
            row.note or ("baseline" if row.speedup is None else f"{row.speedup:.1f}x"),
        ]
        table.add_row(row.model, row.engine, row.precision, f"{row.megabytes:.1f}", row.parity, *figures)
    names = ", ".join(backend.name for backend in BACKENDS)
    console = Console()
    console.print(f"{usable_cores()} cores; batch {BATCH}, median of {REPEATS}; backends known: {names}")
    console.print(table)
