"""Jobs as `ohlora render` and `ohlora recolor` do them, engines already open, in this process."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ohlora
from ohlora.base.values import Ombre
from ohlora.faces import SeedRange
from ohlora.photos.heads import FaceRules
from ohlora.render.job import Look, OutputFormat, RenderJob, make_looks
from ohlora.render.jobs import BATCH, Recoloring, photo_job, portrait_job
from ohlora.render.run_items import Job, Summary, execute

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


def render(renderer: ohlora.Renderer, faces: SeedRange, ombres: Sequence[Ombre] | None, out: Path) -> Summary:
    """Dyed portraits as JPEG files with journal and metadata."""
    return _do(portrait_job(renderer, RenderJob(faces, make_looks(None, ombres), OUTPUT)), out)


def recolor(renderer: ohlora.Renderer, files: Sequence[Path], ombre: Ombre, out: Path) -> Summary:
    """Dyed picture files, each taken as a whole portrait."""
    asked = Recoloring((Look(ombre=ombre),), OUTPUT, FaceRules("whole"))
    return _do(photo_job(renderer, list(files), [files[0].parent], asked, batch=BATCH), out)


def _do(job: Job, out: Path) -> Summary:
    summary = execute(job, out)
    if summary.failures or summary.written != len(job.plan):
        raise RuntimeError(f"a job of the bench failed: {summary.failures}")
    return summary
