"""Command line. Each command lives in its module and imports what is heavy only when it runs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from ohlora.cli import animate, bench, bundle, doctor, export, recolor, render, score, train
from ohlora.errors import OhloraError, OutputError

DONE, SOME_FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="ohlora",
    help="Render virtual portraits in bulk, dye their hair, and train and compile the networks that do it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("recolor")(recolor.recolor)
app.command("render")(render.render)
app.command("animate")(animate.animate)
app.command("score")(score.score)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(bundle.app, name="bundle")
app.add_typer(train.app, name="train")


def _show_version(value: bool) -> None:
    if value:
        from ohlora.base.version import __version__

        typer.echo(f"ohlora {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the full traceback of an error.")] = False,
) -> None:
    if traceback:
        os.environ["OHLORA_TRACEBACK"] = "1"


def _terminate(number: int, frame: Any) -> None:
    # A polite kill (batch systems, containers) ends like Ctrl-C: what is under way is finished and recorded.
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: run a command, turn errors into one line and an exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except OhloraError as error:
        if os.environ.get("OHLORA_TRACEBACK"):
            raise
        print(f"ohlora: {error}", file=sys.stderr)
        sys.exit(SOME_FAILED if isinstance(error, OutputError) else BAD_REQUEST)
    except KeyboardInterrupt:
        print("ohlora: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
