"""What a run computes on: device and precision, from the section `machine`."""

from __future__ import annotations

from functools import cache

import torch
from lightning.fabric import Fabric

from ohlora.engines import backend_report
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.pipeline.graph import Work

FULL, HALF, AUTO = "fp32", "bf16", "auto"


@cache
def fast_precision(cuda: bool) -> str:
    """bf16 where the device has instructions for it, else fp32."""
    if cuda:
        return HALF if torch.cuda.is_bf16_supported() else FULL
    return HALF if any(row.bf16 for row in backend_report()) else FULL


def device_of(work: Work) -> torch.device:
    there = work.machine.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if there else "cpu")


def precision_of(work: Work) -> str:
    """fp32 or bf16."""
    wanted: str = work.machine.precision
    return fast_precision(device_of(work).type == "cuda") if wanted == AUTO else wanted


def fabric_of(work: Work) -> Fabric:
    """One process on the device that is asked for."""
    return make_fabric(work.machine.accelerator, precision=precision_of(work))
