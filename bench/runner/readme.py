"""The README's performance table from the committed result file.

python -m ohlora.bench.runner.readme [--result bench/results/bench.json] [--readme README.md] [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ohlora.bench.runner.records import Run
from ohlora.bench.runner.report import readme_block, update_readme


def in_step(readme: Path, result: Path) -> bool:
    """Whether the README shows the result."""
    return readme_block(Run.load(result)) in readme.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=Path("bench/results/bench.json"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 when they differ")
    given = parser.parse_args()
    if given.check:
        if not in_step(given.readme, given.result):
            sys.exit(f"{given.readme} does not show {given.result}: run python -m ohlora.bench.runner.readme")
        return
    changed = update_readme(given.readme, Run.load(given.result))
    print(f"{given.readme}: {'table written' if changed else 'already shows it'}")


if __name__ == "__main__":
    main()
