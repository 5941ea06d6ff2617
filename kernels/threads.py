"""Pictures in parallel: a thread pool over GIL-free work.

Numba's own `parallel=True` must not be entered from several threads at once, and renderers do just that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar, cast

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# A thread's share should outweigh handing it over (about 20 us): a picture of 256x256 takes 100 us and more.
PIXELS_PER_TASK = 100_000
SHARES = 2


def compiled(**options: Any) -> Callable[[FunctionT], FunctionT]:
    """Decorator: by Numba, without the GIL, kept in its cache on disk. options: more of `numba.njit`'s."""
    from numba import njit

    return cast("Callable[[FunctionT], FunctionT]", njit(nogil=True, cache=True, **options))


def usable_cores() -> int:
    """Cores this process may use, which containers and job schedulers keep below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(work: Callable[[int], None], count: int, pixels: int, threads: int | None) -> None:
    """Call work(0) .. work(count - 1), in parallel where it pays. pixels: in all of them together."""
    usable = usable_cores() if threads is None else threads
    if min(usable, count, pixels // PIXELS_PER_TASK) < 2:
        for i in range(count):
            work(i)
        return

    def share(part: range) -> None:
        for i in part:
            work(i)

    # A few shares a thread: little to hand over, and little to wait for at the end.
    step = max(1, count // (SHARES * usable))
    parts = [range(start, min(start + step, count)) for start in range(0, count, step)]
    list(_pool(usable).map(share, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="ohlora-kernel")
