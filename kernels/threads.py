"""Pictures in parallel: a thread pool over GIL-free work.

Numba's own `parallel=True` must not be entered from several threads at once, and renderers do just that.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from ohlora.kernels.user_folders import cache_folder

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# A thread's share should outweigh handing it over (about 20 us): a picture of 256x256 takes 100 us and more.
PIXELS_PER_TASK = 100_000
SHARES = 2


def compiled(**options: Any) -> Callable[[FunctionT], FunctionT]:
    """Decorator: by Numba, without the GIL, kept in a cache on disk where one can be written.

    options: more of `numba.njit`'s.
    """
    from numba import njit

    def decorate(function: FunctionT) -> FunctionT:
        dispatcher = njit(nogil=True, **options)(function)
        _keep_compiled(dispatcher)
        return cast(FunctionT, dispatcher)

    return decorate


def _keep_compiled(dispatcher: Any) -> None:
    """Enable Numba's cache: where $NUMBA_CACHE_DIR says, else beside the source, else in the user's cache folder.

    Numba alone raises where it can write in none of its places, and makes a folder named '~' for a user without a home.
    """
    from numba import config

    named = config.CACHE_DIR
    beside = Path(dispatcher.py_func.__code__.co_filename).with_name("__pycache__")
    if not named and not _can_write(beside):
        folder = cache_folder("numba")
        if folder is None or not _can_write(folder):
            return
        config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError):
        pass  # compiled anew in each process
    finally:
        config.CACHE_DIR = named


@cache  # of a folder of kernels, not of each
def _can_write(folder: Path) -> bool:
    """As Numba finds out: by a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def usable_cores() -> int:
    """Cores this process may use, at least 1: those of its affinity mask, and no more than its CPU quota pays for.

    Job schedulers set the mask, containers the quota, which is read once.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


@cache
def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs that the control groups of this process grant it (Linux, both versions); infinity without a limit.

    root: of the file system that is read. The smallest limit of a group and those above it holds. A container may see
    its own group at the top, though `/proc/self/cgroup` names it by its path on the host: paths that are not there are
    passed over.
    """
    return min(_quotas(root), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in groups:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        inside = PurePosixPath(path.lstrip("/"))
        for group in (mount / inside, *(mount / above for above in inside.parents)):
            try:
                if controllers:
                    quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (group / "cpu.max").read_text().split()
                if float(quota) > 0 and float(period) > 0:
                    yield float(quota) / float(period)
            except (OSError, ValueError):  # no such group, or "max"
                continue


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


# A forked process has none of its parent's threads: a pool of theirs would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
