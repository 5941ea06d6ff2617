"""What a stage tells people: notes on the way (standard error), its result at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import typer

SHOWN_FAILURES = 20


def note(text: str) -> None:
    typer.echo(text, err=True)


def indented(content: Mapping[str, Any]) -> str:
    """JSON for people: a recipe with all its values."""
    return json.dumps(content, indent=1)


def answer(as_json: bool, summary: Any, *lines: str) -> None:
    """The result: one JSON object, or lines."""
    for line in (json.dumps(summary),) if as_json else lines:
        typer.echo(line)


def end(as_json: bool, summary: Mapping[str, Any], failed: Sequence[str], *lines: str) -> NoReturn:
    """The result after the first of what failed. The exit status says whether anything did."""
    if not as_json:
        for why in failed[:SHOWN_FAILURES]:
            note(why)
        if len(failed) > SHOWN_FAILURES:
            note(f"... and {len(failed) - SHOWN_FAILURES} more; --json lists them all")
    answer(as_json, summary, *lines)
    raise typer.Exit(1 if failed else 0)


def trained(as_json: bool, result: Mapping[str, Any], *lines: str, asked: bool = False) -> None:
    """The result of a training; ends as Ctrl-C does when it was stopped and the user had not `asked` for that."""
    answer(as_json, result, *lines)
    if result["stopped"] and not asked:
        raise KeyboardInterrupt


def state(result: Mapping[str, Any]) -> str:
    """How a training ended."""
    return "stopped; the same command resumes" if result["stopped"] else "done"


def table(rows: Sequence[Sequence[str]], title: str) -> None:
    """Print a table whose first row is the heading."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*rows[0], title=title)
    for row in rows[1:]:
        shown.add_row(*row)
    Console().print(shown)
