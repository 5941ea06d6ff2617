"""`ohlora job`: what the folder of a job holds, and whether its files are still what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from ohlora.cli import options
from ohlora.cli.report import Told

app = typer.Typer(no_args_is_help=True, help="Look into the folder of a job: `render`, `recolor` or `animate`.")
Folder = Annotated[Path, Argument(help="The job's --out.")]


@app.command("status")
@options.grouped
def status(*, folder: Folder, told: Told) -> None:
    """Say what was asked of a job, how much is done and what failed. Reads alone, while it runs too.

    Example: `ohlora job status portraits`
    """
    from ohlora.render.job_folder import job_status

    found = job_status(folder)
    state = "under way" if found.running else "not running"
    lines = [f"{found.command}: {found.finished} finished, {len(found.failures)} failed; {state}"]
    told.tell(found.to_json(), *lines, *(f"failed: {message}" for message in found.failures))


@app.command("verify")
@options.grouped
def verify(*, folder: Folder, told: Told) -> None:
    """Compare each file with the size and SHA-256 that the metadata have of it. Exit status 1 where one differs.

    Example: `ohlora job verify portraits`
    """
    from ohlora.render.job_folder import verify_job

    checked, problems = verify_job(folder)
    summary = {"folder": str(folder), "checked": checked, "failed": len(problems), "failures": problems}
    told.end(summary, problems, f"{checked} files compared with their metadata; {len(problems)} failed")
