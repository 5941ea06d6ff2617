"""Commands in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ohlora.engines.cache import CACHE_VARIABLE

# A process that does nothing but start the command: children's peaks add up in one, and a child counts what its parent
# held when it was started.
MEASURE = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run([sys.executable, "-m", "ohlora", *sys.argv[1:]], capture_output=True, text=True)
wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([done.returncode, done.stdout, done.stderr, wall, cpu, peak]))
"""


class FailedError(RuntimeError):
    """A command that ended with another status than 0; the message is what it said."""


class Finished(NamedTuple):
    """summary: the last line that the command printed, as JSON. peak: resident bytes."""

    summary: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak: int


def run_python(arguments: Sequence[str], cache: Path | None = None) -> str:
    """Standard output of Python with these arguments, and `cache` for engines. Raises FailedError."""
    environment = os.environ | ({} if cache is None else {CACHE_VARIABLE: str(cache)})
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise FailedError(f"`{' '.join(arguments)[:200]}` failed: {done.stderr.strip()}")
    return done.stdout


def run_command(arguments: Sequence[str], cache: Path | None = None) -> str:
    """Standard output of `ohlora` with these arguments. Raises FailedError."""
    return run_python(["-m", "ohlora", *arguments], cache)


def measured_command(arguments: Sequence[str], cache: Path | None = None) -> Finished:
    """`ohlora` with these arguments and --json, and what it took. Raises FailedError."""
    out = run_python(["-c", MEASURE, *arguments, "--json"], cache)
    status, output, errors, wall, cpu, peak = json.loads(out)
    if status:
        raise FailedError(errors.strip())
    return Finished(json.loads(output.strip().splitlines()[-1]), wall, cpu, peak)
