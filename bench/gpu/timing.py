"""Timing on a CUDA device, the two ceilings that everything is held against, and the rows of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ohlora.bench.runner.timing import seconds_of

REPEATS = 20


def timed(work: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """Median seconds of one call, by CUDA events, after three calls to warm up."""
    if device.type != "cuda":
        return float(np.median(seconds_of({"": work}, repeats, warm=3)[""]))
    event: Callable[..., Any] = torch.cuda.Event
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(np.median(times))


def ceilings(device: torch.device) -> dict[str, float]:
    """bf16_tflops of a large matmul; copy_tb_per_s of a large copy on the device, read and written bytes together."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    flops = round(2 * side**3 / timed(lambda: a @ b, device) / 1e12, 1)
    size = 2**30 if device.type == "cuda" else 2**24
    x, y = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    return {"bf16_tflops": flops, "copy_tb_per_s": round(2 * size / timed(lambda: y.copy_(x), device) / 1e12, 3)}


class Report:
    """Rows collected, and printed as they come."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ceilings: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def fail(self, what: str, error: Exception, **row: Any) -> None:
        self.add(what=what, **row, failed=f"{type(error).__name__}: {str(error)[:400]}")

    def measure_ceilings(self) -> None:
        self.ceilings = ceilings(self.device)
        print(self.ceilings, flush=True)

    def section(self, name: str, work: Callable[[], None]) -> None:
        """An error in it is a row, and never takes the other sections with it."""
        began = time.perf_counter()
        try:
            work()
        except Exception as error:
            self.fail(name, error)
        print(f"-- {name}: {time.perf_counter() - began:.1f} s", flush=True)

    def result(self, device: str, **facts: Any) -> dict[str, Any]:
        torch_version = torch.__version__
        return {"device": device, "torch": torch_version, **facts, "ceilings": self.ceilings, "rows": self.rows}
