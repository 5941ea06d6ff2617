"""What figures were measured on, and the settings that every bench shares."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

from ohlora.base.installation import installed_version
from ohlora.engines import usable_cores

PACKAGES = ("ohlora", "torch", "numpy", "numba", "onnxruntime", "openvino", "opencv-python-headless")


def machine() -> dict[str, Any]:
    """CPU, usable cores, Python and the versions of what is installed."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": usable_cores(), "python": platform.python_version(), "versions": versions()}


def versions() -> dict[str, str]:
    return {name: version for name in PACKAGES if (version := installed_version(name))}


def keep_memory() -> bool:
    """Let glibc keep freed memory; whether it does.

    By default it gives large blocks back to the system after each operation, depending on what ran before; page faults
    then take more time than the arithmetic of eager PyTorch, and rows cannot be compared. The baselines gain by it.
    """
    trim_threshold, most_mapped = -1, -4  # of malloc.h
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(trim_threshold, 2**31 - 1) and library.mallopt(most_mapped, 0))


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether times of the two may be compared, not ratios only."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores"))
