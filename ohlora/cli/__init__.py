"""Command line. Each command lives in its module and imports what is heavy only when it runs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from ohlora.cli import animate, bench, bundle, doctor, export, job, recolor, render, score, train
from ohlora.cli.report import BAD_REQUEST, INTERRUPTED, SOME_FAILED, note
from ohlora.errors import OhloraError, OutputError

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
app.add_typer(job.app, name="job")
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


def _open_streams() -> None:
    """Give a process that was started without standard streams (2>&-, pythonw) silent ones.

    The next file that is opened would get the number of a closed one, and whatever a library prints would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, _silent("r" if number == 0 else "w"))


def _silent(mode: str) -> Any:
    return os.fdopen(os.open(os.devnull, os.O_RDWR), mode)


def _flush_output(probe: str = "") -> bool:
    """Whether standard output took all it was given. What it refused is dropped: Python would complain at exit."""
    try:
        sys.stdout.write(probe)
        sys.stdout.flush()
    except OSError as error:
        note(f"ohlora: cannot write the result to standard output: {error.strerror}")
        sys.stdout = _silent("w")
        return False
    return True


def main() -> None:
    """Entry point: run a command, turn errors into one line and an exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    _open_streams()
    try:
        app()
    except SystemExit as end:
        if not _flush_output() and not end.code:
            sys.exit(SOME_FAILED)
        raise
    except OhloraError as error:
        if os.environ.get("OHLORA_TRACEBACK"):
            raise
        note(f"ohlora: {error}")
        sys.exit(SOME_FAILED if isinstance(error, OutputError) else BAD_REQUEST)
    except KeyboardInterrupt:
        note("ohlora: interrupted")
        sys.exit(INTERRUPTED)
    except OSError:
        if _flush_output("\n"):  # it was another file
            raise
        sys.exit(SOME_FAILED)
