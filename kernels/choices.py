"""The options of the kernels, by name. What is refused at run time is what these types do not list."""

from __future__ import annotations

import importlib
from typing import Any, Literal, TypeAlias, get_args

Backend: TypeAlias = Literal["auto", "cpu", "cuda", "reference"]
Rounding: TypeAlias = Literal["truncate", "nearest"]
Algorithm: TypeAlias = Literal["v1", "v2", "hairstyle"]


def backend_module(kernel: str, backend: Backend, auto: Backend = "cpu") -> Any:
    """The module of a kernel's backend; auto: what that means here. Numba is imported when it is used."""
    check("backend", backend, get_args(Backend))
    return importlib.import_module(f"ohlora.kernels.{kernel}.{auto if backend == 'auto' else backend}")


def check(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")


def check_threads(threads: int | None) -> None:
    """Raises ValueError."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
