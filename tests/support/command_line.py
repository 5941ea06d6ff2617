"""The commands, run as a user runs them, and what they left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def ohlora(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ohlora", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def summary(*arguments: object, status: int = 0) -> dict[str, Any]:
    return json.loads(ohlora(*arguments, "--json", status=status).stdout)


def files(folder: Path) -> dict[str, bytes]:
    """Every result below `folder` by name; the journal's own files are not results."""
    found = (p for p in folder.rglob("*") if p.is_file() and ".ohlora" not in p.relative_to(folder).parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
