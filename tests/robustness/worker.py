"""One process that reads changed inputs: `python -m tests.robustness.worker`, a request and an answer a line (JSON).

Request: {"reader": ..., "folder": ...}. Answer: {"outcome": "read", "refused", "traceback" or "memory", ...}. What
kills or hangs the process is seen by its parent, `fuzz.Worker`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from ohlora.errors import OhloraError
from tests.robustness.readers import READERS

EXTRA_BYTES = 1500 << 20  # of address space that one input may take; the largest image allowed has 300 MB
LONGEST_MESSAGE = 3000


def _limit_memory(extra: int) -> None:
    """Where the system can: so much above what the process has now."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, resource.RLIM_INFINITY))


def _where(error: BaseException) -> str:
    """File and function of the last frame that is the project's own, which tells findings apart."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "robustness" not in frame.filename and "site-packages" not in frame.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].name}" if own else "tests"


def answer(reader: str, folder: Path) -> dict[str, Any]:
    """What a reader makes of the files in `folder`."""
    try:
        READERS[reader].read(folder)
    except OhloraError as error:
        text = str(error)
        outcome = "refused" if 0 < len(text) <= LONGEST_MESSAGE else "message"
        return {"outcome": outcome, "error": type(error).__name__, "message": text[:300], "where": _where(error)}
    except MemoryError as error:
        return {"outcome": "memory", "error": "MemoryError", "message": str(error)[:300], "where": _where(error)}
    except Exception as error:
        return {
            "outcome": "traceback", "error": type(error).__name__, "message": str(error)[:300], "where": _where(error),
            "trace": "".join(traceback.format_exception(error))[-3000:],
        }  # fmt: skip
    return {"outcome": "read"}


def main() -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    seen: set[str] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request["reader"] in seen:  # the first input of a reader loads its libraries: not limited
            _limit_memory(EXTRA_BYTES)
        result = answer(request["reader"], Path(request["folder"]))
        _limit_memory(1 << 45)
        seen.add(request["reader"])
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
