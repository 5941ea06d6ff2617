"""Random numbers that depend on a key alone. (`seeds` has no part in it: recipes use that, and load no PyTorch.)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def normal(key: tuple[int, ...], count: int, size: int) -> NDArray[np.float32]:
    """Standard normal numbers [count, size] of a key."""
    return np.random.default_rng(key).standard_normal((count, size)).astype(np.float32)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """PyTorch draws from `seed` inside; the caller's random stream (and a CUDA device's) is as before afterwards."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        yield
