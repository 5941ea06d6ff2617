"""What a command tells people: notes on the way (standard error), its result at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Option

from ohlora.base.text import escape
from ohlora.cli import options

if TYPE_CHECKING:
    from rich.text import Text

DONE, SOME_FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130  # exit statuses
SHOWN_FAILURES = 20


def say(text: str, err: bool = False) -> None:
    """Print a line; what strangers put into names and descriptions reaches no terminal as a command."""
    typer.echo(escape(text), err=err)


def note(text: str) -> None:
    say(text, err=True)


@dataclass(frozen=True, kw_only=True)
class Told:
    """How results are told."""

    json: options.Json = False

    def tell(self, summary: Any, *lines: str) -> None:
        """One JSON object, paths as text, or lines."""
        for line in (json.dumps(summary, default=str),) if self.json else lines:
            say(line)

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

    drawn = Table(title=None if title is None else plain(title))
    for name in rows[0]:
        drawn.add_column(plain(name))
    for row in rows[1:]:
        drawn.add_row(*(plain(cell) for cell in row))
    Console().print(drawn)


def plain(text: object) -> Text:
    """A cell as it is: '[train]' is no markup, a control character no command."""
    from rich.text import Text

    return Text(escape(str(text)))
