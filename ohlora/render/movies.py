"""Animations and videos in bulk: one moving picture after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ohlora.base.interrupts import interrupts_held
from ohlora.base.types import Rgb
from ohlora.base.values import Face
from ohlora.bundle.files import file_sha256
from ohlora.errors import ImageError, PlaceError
from ohlora.io.images import read_image
from ohlora.io.marking import Mark
from ohlora.io.video import expected_frames
from ohlora.photos.heads import FaceRules
from ohlora.render.job import Look
from ohlora.render.moving_portrait import MovingPortrait
from ohlora.render.pipeline import Results
from ohlora.render.plan import Output, PhotoPlan, Plan, Source, SourceUnit, result_name
from ohlora.render.renderer import Renderer
from ohlora.render.run_items import Advance
from ohlora.render.sinks import FolderSink, Picture, dye, job_backends


class VideoPlan(PhotoPlan):
    """As `PhotoPlan`, of videos, which keep their suffix."""

    noun, step = "videos", "frames"
    counts: ClassVar[dict[str, str]] = {"frames": "units"}

    def steps(self, pending: Collection[int]) -> int:
        return sum(expected_frames(unit.source) for unit in self.units(pending))


@dataclass(frozen=True)
class AnimationPlan(Plan):
    """An animation of each source, with the same frames."""

    noun, step = "animations", "frames"
    counts: ClassVar[dict[str, str]] = {"frames": "units"}

    sources: Sequence[Source]
    suffix: str
    frames: int
    mark: Mark

    def __len__(self) -> int:
        return len(self.sources)

    def steps(self, pending: Collection[int]) -> int:
        return len(pending) * self.frames

    def units(self, pending: Iterable[int]) -> Iterator[SourceUnit]:
        for item in pending:
            source = self.sources[item]
            output = Output(item, result_name(source.name, self.suffix), None, {"source": source.label})
            yield SourceUnit(source.subject, (output,))


@dataclass(frozen=True)
class MovieExecutor:
    """An executor (`run_items.Executor`) of moving pictures, which are too large to be held.

    write: makes all files of a unit, each complete or not at all, and returns what their metadata say; it is given the
    unit, the files' paths, the mark of a file that is made or changed, what is to be called with each few frames, and
    what before the files take their places: from
    then on a Ctrl-C waits until they are recorded.
    """

    write: Callable[[Any, list[Path], Mark | None, Advance, Callable[[], None]], dict[str, Any]]

    def run(self, plan: Any, pending: Collection[int], sink: FolderSink, results: Results, workers: int) -> None:
        def count(frames: int) -> None:
            results.units += frames
            results.advance(frames)

        held = contextlib.ExitStack()

        def finish() -> None:
            held.enter_context(interrupts_held())

        for unit in map(partial(_placed, sink, results), plan.units(pending)):
            if not unit.outputs:
                continue
            paths = [sink.path(output) for output in unit.outputs]
            with held:
                try:
                    facts = self.write(unit, paths, sink.mark_of(True), count, finish)
                except (ImageError, PlaceError) as error:
                    for output in unit.outputs:
                        results.fail(output.item, str(error), steps=0)
                    continue
                for output, path in zip(unit.outputs, paths, strict=True):
                    row = sink.row(output, facts, path.stat().st_size, file_sha256(path))
                    results.done(output.item, row, steps=0)


def _placed(sink: FolderSink, results: Results, unit: SourceUnit) -> SourceUnit:
    """The unit without outputs that have no place, which fail before frames are made for them."""
    kept = []
    for output in unit.outputs:
        try:
            if sink.path(output).is_dir():
                raise PlaceError(f"cannot write {sink.folder / output.file_name}: a folder stands there: move it away")
        except PlaceError as error:
            results.fail(output.item, str(error), steps=0)
        else:
            kept.append(output)
    return replace(unit, outputs=tuple(kept))


def moving_frames(renderer: Renderer, subject: Face | Path, looks: Sequence[Look]) -> Iterator[Rgb]:
    """uint8 RGB frames [H,W,3] of one face or picture file; hair is found once per distinct picture."""
    if isinstance(subject, Path):
        image = read_image(subject)
        found = renderer.photo_reader(FaceRules("whole")).find(image)
        picture = Picture(image, found.facts, found.heads)
        for look, backend in zip(looks, job_backends(), strict=False):
            yield dye(picture, look.ombre, backend=backend)
        return
    dyed = any(look.ombre is not None for look in looks)
    moves = any(not look.expression.neutral for look in looks)
    yield from MovingPortrait(renderer, subject, dyed=dyed, moves=moves).frames(looks)
