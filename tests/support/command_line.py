"""The commands, run as a user runs them, and what they left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from typer.testing import CliRunner

from ohlora.cli import app, main

ROOT = Path(__file__).resolve().parents[2]


def ohlora(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ohlora", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def status_of(*arguments: object) -> int:
    """Exit status of the command, run in this process, whose handling of signals stays."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(sys, "argv", ["ohlora", *map(str, arguments)]):
            main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return 0


def output_of(*arguments: object) -> str:
    """Standard output and error of the command, run in this process; its exceptions come through."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def summary(*arguments: object, status: int = 0) -> dict[str, Any]:
    return json.loads(ohlora(*arguments, "--json", status=status).stdout)


def files(folder: Path) -> dict[str, bytes]:
    """Every result below `folder` by name; the journal's own files are not results."""
    found = (p for p in folder.rglob("*") if p.is_file() and ".ohlora" not in p.relative_to(folder).parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
