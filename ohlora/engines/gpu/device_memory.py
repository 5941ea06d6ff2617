"""Memory on a CUDA device, as engines hand it to each other and to kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DeviceBuffer:
    """Memory on the device that others may read and write in place, by `__cuda_array_interface__`."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    stream: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "data": (self.pointer, False),
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "strides": None,
            "stream": self.stream or None,
        }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no room: every library has an error of its own, and all of them say it in words."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower().replace("_", " ")
        if "out of memory" in text or "failed to allocate memory" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
