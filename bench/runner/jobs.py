"""Jobs as `ohlora render` and `ohlora recolor` do them, engines already open, in this process."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ohlora
from ohlora.base.values import Ombre
from ohlora.engines import usable_cores
from ohlora.faces import SeedRange
from ohlora.photos.heads import FaceRules
from ohlora.render.job import Look, OutputFormat, RenderJob, make_looks
from ohlora.render.journal import Journal
from ohlora.render.pipeline import Totals, run
from ohlora.render.plan import PhotoPlan, PortraitPlan, output_names
from ohlora.render.sinks import FolderSink

BATCH = 8  # of the commands
OUTPUT = OutputFormat("jpeg")


class Folders:
    """A fresh folder for each job; all are removed at the end, so that removing them is not timed."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="ohlora-bench-")
        self._numbers = itertools.count()

    def new(self) -> Path:
        folder = Path(self._root.name) / str(next(self._numbers))
        folder.mkdir()
        return folder

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        self._root.cleanup()


def render(renderer: ohlora.Renderer, faces: SeedRange, ombres: Sequence[Ombre] | None, out: Path) -> Totals:
    """Dyed portraits as JPEG files with journal and metadata."""
    job = RenderJob(faces, make_looks(None, ombres), OUTPUT)
    plan = PortraitPlan(job)
    return _do(plan, renderer.producer(job), out, renderer.provenance(generator=True))


def recolor(renderer: ohlora.Renderer, files: Sequence[Path], ombre: Ombre, out: Path) -> Totals:
    """Dyed picture files, each taken as a whole portrait."""
    looks = (Look(ombre=ombre),)
    plan = PhotoPlan(list(files), output_names(files, [files[0].parent]), looks, OUTPUT)
    producer = renderer.photo_producer(looks, rules=FaceRules("whole"))
    return _do(plan, producer, out, renderer.provenance(generator=False))


def _do(plan: PortraitPlan | PhotoPlan, producer: Any, out: Path, provenance: dict[str, Any]) -> Totals:
    with Journal.open(out, {"bench": out.name}) as journal:
        sink = FolderSink(out, OUTPUT, provenance)
        pending = list(journal.pending(len(plan)))
        totals = run(plan.units(pending), producer, sink, journal, batch=BATCH, workers=usable_cores())
        journal.finish(len(plan), partial=bool(totals.failed))
    if totals.failed or totals.written != len(plan):
        raise RuntimeError(f"a job of the bench failed: {totals.failed}")
    return totals
