"""What all suites are told."""

from __future__ import annotations

from dataclasses import dataclass

from ohlora.bench.runner.subjects import Subject

ITEMS = (1, 10, 100, 500, 5_000, 50_000)
QUICK_ITEMS = (1, 10, 100, 500)


@dataclass(frozen=True)
class Options:
    """subject: what networks are run. quick: fewer forms and smaller jobs, for a look."""

    subject: Subject
    quick: bool = False

    @property
    def items(self) -> tuple[int, ...]:
        """Sizes of the jobs whose time and memory are compared."""
        return QUICK_ITEMS if self.quick else ITEMS
