"""Timing on a CUDA device, and the two ceilings that everything is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

REPEATS = 20


def timed(work: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """Median seconds of one call, by CUDA events, after three calls to warm up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def run_section(name: str, work: Callable[[], None], failed: Callable[[Exception], None]) -> None:
    """One section of a bench: an error is handed to `failed`, and never takes the other sections with it."""
    began = time.perf_counter()
    try:
        work()
    except Exception as error:
        failed(error)
    print(f"-- {name}: {time.perf_counter() - began:.1f} s", flush=True)


def ceilings(device: torch.device) -> dict[str, float]:
    """bf16_tflops of a large matmul; copy_tb_per_s of a large copy on the device, read and written bytes together."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    flops = round(2 * side**3 / timed(lambda: a @ b, device) / 1e12, 1)
    size = 2**30 if device.type == "cuda" else 2**24
    x, y = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    return {"bf16_tflops": flops, "copy_tb_per_s": round(2 * size / timed(lambda: y.copy_(x), device) / 1e12, 3)}
