"""A training in a process of its own that a signal ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def terminated(code: str, when: Callable[[], bool], seconds: float = 300) -> int:
    """Run Python code until `when` is true, send SIGTERM -> the exit status. Fails when it ends by itself before."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        deadline = time.monotonic() + seconds
        while not when() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)
    finally:
        process.kill()
        process.wait()
