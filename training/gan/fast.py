"""The same networks, computed faster while they train. Weights and results stay those of the modules.

Measured with AMX bf16, 128 pixels, forward and backward: the convolutions take a tenth of the time, the maps between
them nine tenths. So what pays is fewer passes over memory: the generator's loops fused (`compiled`, 2.8 times as fast)
and memory that is not given back to the system after each map (`keep_freed_memory`). Other forms of the blur (two 2x2
means, shifted sums) and of the up-convolution (nearest + 3x3, sub-pixel) were no faster; the modules' own stay.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ohlora.errors import InvalidInputError

M = TypeVar("M", bound=nn.Module)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def in_channels_last(module: M, device: torch.device) -> M:
    """`module` on `device`, its kernels in the memory order that the convolutions like best."""
    module.to(device)
    module.to(memory_format=torch.channels_last)
    return module


def compiled(function: Callable[..., Any], wanted: bool, device: torch.device) -> Callable[..., Any]:
    """`function` with its loops fused, or as it is when not wanted. Raises InvalidInputError without a compiler."""
    if not wanted:
        return function
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise InvalidInputError("compiled training needs a C++ compiler (g++): install one, or use --no-compile")
    return torch.compile(function, dynamic=False)


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks, for this process: new maps then cost no page faults. False on other systems."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**28))
