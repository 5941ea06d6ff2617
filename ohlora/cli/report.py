"""What a command tells people: notes on the way (standard error), its result at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Option

from ohlora.cli import options

DONE, SOME_FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130  # exit statuses
SHOWN_FAILURES = 20


def note(text: str) -> None:
    typer.echo(text, err=True)


@dataclass(frozen=True, kw_only=True)
class Told:
    """How results are told."""

    json: options.Json = False

    def tell(self, summary: Any, *lines: str) -> None:
        """One JSON object, paths as text, or lines."""
        for line in (json.dumps(summary, default=str),) if self.json else lines:
            typer.echo(line)

    def end(self, summary: Any, failed: Sequence[str], *lines: str, status: int | None = None) -> NoReturn:
        """The same after the first of what failed. Without a status, whether anything did is the exit status."""
        if not self.json:
            for message in failed[:SHOWN_FAILURES]:
                note(f"failed: {message}")
            if len(failed) > SHOWN_FAILURES:
                note(f"... and {len(failed) - SHOWN_FAILURES} more; --json lists them all")
        self.tell(summary, *lines)
        raise typer.Exit((SOME_FAILED if failed else DONE) if status is None else status)

    def interrupted(self) -> None:
        """For machines, the result of a command that was interrupted before it had one."""
        if self.json:
            self.tell({"interrupted": True})


@dataclass(frozen=True, kw_only=True)
class Results(Told):
    """And where they go."""

    out: options.Out = Path("out")


@dataclass(frozen=True, kw_only=True)
class Run(Results):
    """Of work that resumes; none of this changes its files."""

    restart: options.Restart = False

    @property
    def resume(self) -> bool:
        return not self.restart


@dataclass(frozen=True, kw_only=True)
class ImageRun(Run):
    """Of jobs that make many images."""

    workers: options.Workers = None
    contact_sheet: Annotated[
        bool, Option("--contact-sheet", help="Also write contact_sheet.jpg (up to 400 images).")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Training(Run):
    """Of a training that resumes."""

    def trained(self, result: Mapping[str, Any], where: str, length: str, *lines: str, asked: bool = False) -> None:
        """The result; ends as Ctrl-C does when the training was stopped and the user had not `asked` for that."""
        state = "stopped; the same command resumes" if result["stopped"] else "done"
        self.tell(result, f"{where} ({length}; {state})", *lines)
        if result["stopped"] and not asked:
            note("ohlora: interrupted")
            raise typer.Exit(INTERRUPTED)


def indented(content: Mapping[str, Any]) -> str:
    """JSON for people: a recipe with all its values."""
    return json.dumps(content, indent=1)


def table(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table whose first row is the heading."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*rows[0], title=title)
    for row in rows[1:]:
        shown.add_row(*row)
    Console().print(shown)
