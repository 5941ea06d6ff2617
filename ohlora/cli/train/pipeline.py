"""`ohlora train pipeline`: the documented chain, stage by stage, from one file of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from ohlora.cli.report import Results, note

Names = Annotated[list[str] | None, Option("--only", help="Run this stage alone. Repeatable.")]


def pipeline(
    *,
    preset: Annotated[
        str | None, Option(help="demo (20 minutes on two cores) or documented; default: the file's, or demo.")
    ] = None,
    settings: Annotated[Path | None, Option(help="YAML file, read over the preset.")] = None,
    changes: Annotated[list[str] | None, Option("--set", help="SECTION.FIELD=VALUE over both. Repeatable.")] = None,
    only: Names = None,
    until: Annotated[str | None, Option(help="This stage and what it needs.")] = None,
    start: Annotated[str | None, Option("--from", help="This stage and what needs it.")] = None,
    force: Annotated[list[str] | None, Option(help="Make this stage again though nothing changed. Repeatable.")] = None,
    write_settings: Annotated[Path | None, Option(help="Write all settings, explained, to this file and stop.")] = None,
    list_stages: Annotated[bool, Option("--list", help="Show the stages and stop.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would run and stop.")] = False,
    how: Results = Results(out=Path("runs/pipeline")),
) -> None:
    """Sample, filter, score and fine-tune v1 to v9, in order. Finished stages are skipped, stopped ones go on.

    Example: `ohlora train pipeline --preset demo --out runs/demo`

    Example: `ohlora train pipeline --preset documented --write-settings my.yaml`, fill in the files, then
    `ohlora train pipeline --settings my.yaml --until sample-10k --out runs/mine`
    """
    from ohlora.training.pipeline import settings as files
    from ohlora.training.pipeline.presets import DEFAULT, PRESETS
    from ohlora.training.pipeline.sections import PipelineSettings

    chosen = files.load_settings(
        PipelineSettings, PRESETS, preset=preset, file=settings, changes=changes or (), default=DEFAULT
    )
    if write_settings is not None:
        files.write_settings(write_settings, files.template(chosen))
        typer.echo(f"settings -> {write_settings}")
        return
    from ohlora.training.pipeline.engine import run_stages
    from ohlora.training.pipeline.report import REPORT_HTML, write_report
    from ohlora.training.pipeline.stages import GRAPH

    if list_stages:
        rows = [
            {"stage": s.name, "about": s.about, "needs": list(s.needs), "settings": list(s.settings)} for s in GRAPH
        ]
        how.tell(rows, *(f"{r['stage']:<22} {r['about']}" for r in rows))
        return
    selected = GRAPH.select(only=only or (), until=until, start=start, skip=chosen.skip)
    report: dict[str, Any] = {}
    states = run_stages(
        GRAPH,
        chosen,
        how.out,
        selected=selected,
        force=force or (),
        dry=dry_run,
        note=note,
        opened=lambda: files.save_settings(how.out, chosen),
        finished=lambda made: report.update(write_report(how.out, made, chosen)),
    )
    asked = {stage.name: states[stage.name] for stage in selected}
    summary: dict[str, Any] = {
        "out": str(how.out),
        "stages": {name: {"state": s.state, "why": s.why, "seconds": round(s.seconds, 1)} for name, s in asked.items()},
    }
    if not dry_run:
        summary |= {"report": str(how.out / REPORT_HTML), "warnings": report["warnings"], "figures": report["figures"]}
    if dry_run:
        lines = [f"{name:<22} {s.state}{f' ({s.why})' if s.why else ''}" for name, s in asked.items()]
    else:
        ran, seconds = sum(s.seconds > 0 for s in asked.values()), sum(s.seconds for s in asked.values())
        lines = [f"{ran} of {len(asked)} stages ran, {seconds:.0f} s; report -> {how.out / REPORT_HTML}"]
    how.end(summary, [] if dry_run else report["warnings"], *lines)
