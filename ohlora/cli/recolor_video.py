"""The part of `ohlora recolor` that dyes videos: one after the other, resumable as pictures are."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.base.types import Rounding
from ohlora.base.values import Ombre
from ohlora.cli.execute import SHOWN_FAILURES, open_journal
from ohlora.cli.progress import Progress
from ohlora.cli.sources import fingerprint
from ohlora.errors import ImageError
from ohlora.io.video import expected_frames
from ohlora.photos.heads import FaceRules
from ohlora.photos.video import Smoothing, recolor_video
from ohlora.render.job import Look, look_record
from ohlora.render.renderer import Renderer


@dataclass(frozen=True)
class VideoSetting:
    """How videos are dyed and reported."""

    smoothing: Smoothing
    rules: FaceRules
    quality: int
    rounding: Rounding
    max_pixels: int
    restart: bool
    as_json: bool


def recolor_videos(
    renderer: Renderer,
    paths: Sequence[Path],
    names: Sequence[str],
    ombres: Sequence[Ombre | None],
    out: Path,
    request: dict[str, Any],
    provenance: dict[str, Any],
    setting: VideoSetting,
) -> None:
    """Dye each video with each ombre, then raise typer.Exit with the status. Item k is video k // len(ombres).

    A video is read once for all dyes that are still to do; finished files are kept on a resume.
    """
    whole = {
        **request,
        "sources": [[str(path.absolute()), *fingerprint(path)] for path in paths],
        "smoothing": [setting.smoothing.past, setting.smoothing.every],
    }
    count = len(ombres)
    total = len(paths) * count
    digits = max(4, len(str(count - 1)))
    written = 0
    with open_journal(out, whole, setting.restart) as journal:
        remove_leftovers(out)
        pending = list(journal.pending(total))
        waiting = sorted({item // count for item in pending})
        frames = sum(expected_frames(paths[index]) for index in waiting)
        progress = Progress(frames, "frames", quiet=setting.as_json and not sys.stderr.isatty())
        with progress:
            for index in waiting:
                items = [item for item in pending if item // count == index]
                targets = []
                for item in items:
                    number = "" if count == 1 else f"_{item % count:0{digits}d}"
                    path = out / f"{names[index]}{number}{paths[index].suffix.lower()}"
                    remove_leftovers(make_folder(path.parent))
                    targets.append((path, ombres[item % count]))
                try:
                    result = recolor_video(
                        paths[index],
                        targets,
                        renderer.hair_engine,
                        rules=setting.rules,
                        smoothing=setting.smoothing,
                        quality=setting.quality,
                        rounding=setting.rounding,
                        max_pixels=setting.max_pixels,
                        advance=progress.advance,
                    )
                except ImageError as error:
                    for item in items:
                        journal.record_failure(item, str(error))
                    continue
                for item, (path, ombre) in zip(items, targets, strict=True):
                    data = path.read_bytes()
                    row = {
                        "file_name": path.relative_to(out).as_posix(),
                        "source": paths[index].name,
                        "ombre": look_record(Look(ombre=ombre))["ombre"],
                        **result.facts(),
                        "bytes": len(data),
                        "sha256": hashlib.sha256(data).hexdigest(),
                        **provenance,
                    }
                    journal.record(item, row)
                    written += 1
        failed = list(journal.failed.values())
        journal.finish(total, partial=bool(failed))
    report(out, total, written, total - len(pending), failed, progress, setting.as_json)


def report(
    out: Path, total: int, written: int, resumed: int, failed: list[str], progress: Progress, as_json: bool
) -> None:
    """Print what happened and raise typer.Exit(0 or 1)."""
    if as_json:
        summary = {
            "out": str(out),
            "videos": total,
            "written": written,
            "already_there": resumed,
            "failed": len(failed),
            "frames": progress.done,
            "seconds": round(progress.seconds, 3),
            "frames_per_second": round(progress.rate, 2),
            "failures": failed,
        }
        typer.echo(json.dumps(summary))
    else:
        for message in failed[:SHOWN_FAILURES]:
            print(f"failed: {message}", file=sys.stderr)
        speed = f"{progress.done} frames in {progress.seconds:.1f} s ({progress.rate:.1f}/s)"
        parts = [f"{written} videos, {speed} -> {out}"]
        parts += [f"{resumed} were there already"] if resumed else []
        parts += [f"{len(failed)} failed"] if failed else []
        typer.echo("; ".join(parts))
    raise typer.Exit(1 if failed else 0)
