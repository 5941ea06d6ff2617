"""Whole jobs, from seed or file to file: the documented way, and this package at every preset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import ohlora
from ohlora.base.types import Rgb
from ohlora.base.values import Expression, Ombre
from ohlora.bench.runner import jobs
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Facts, Group, Work
from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image, read_image
from ohlora.photos.segmentation import resize_area
from ohlora.render.job import Look, RenderJob

if TYPE_CHECKING:
    from ohlora.bench.baselines.documented import DocumentedWay

FIRST = 8_000_000  # seeds of the timed faces
COLOR, DYE = 0.5, Ombre(0.5, 0.7, 0.5)
DOCUMENTED = "documented way"
UNIQUE, FEW = 32, 4  # faces of a turn: ours, and of ways that take a third of a second each
DYES, FILES, FRAMES, JUDGED = 1000, 192, 48, 8
SIDE = 256  # of the files that are recoloured
UNIQUE_GOALS = {"balanced": 6.0, "fast": 10.0}
SWEEP_GOAL, RECOLOR_GOAL = 200.0, 15.0


def job_groups(options: Options) -> Iterator[Group]:
    """Unique portraits, a sweep of dyes, recolouring of files, an animation."""
    yield portraits(Ways(options))
    yield sweep(Ways(options))
    yield recolor(Ways(options))
    yield animation(Ways(options))


class Ways:
    """What a group's works share: renderers at every preset, the slow ways, folders to write to."""

    def __init__(self, options: Options) -> None:
        self.quick, self.documented, self.stack = options.quick, options.subject.documented, ExitStack()
        self.folders = self.stack.enter_context(jobs.Folders())
        self.renderers = {
            preset: self.stack.enter_context(ohlora.Renderer(bundle))
            for preset, bundle in options.subject.bundles.items()
        }
        self.last = list(self.renderers)[-1]
        self._faces = itertools.count(FIRST)

    def seeds(self, count: int) -> range:
        """Faces that were not made before: nothing is found in a cache."""
        first = next(self._faces)
        for _ in range(count - 1):
            next(self._faces)
        return range(first, first + count)

    def slow(self) -> dict[str, DocumentedWay]:
        """The documented way, and what PyTorch and ONNX Runtime make of it without this package."""
        if self.documented is None:
            return {}
        from ohlora.bench.baselines.documented import DocumentedWay, PlainOnnxRuntime

        ways = {DOCUMENTED: self.documented}
        if not self.quick:
            modules = self.documented.generator, self.documented.student
            ways["eager PyTorch, batch 8, channels last"] = DocumentedWay(*modules, batch=8, channels_last=True)
            ways["plain ONNX Runtime, batch 1"] = PlainOnnxRuntime(*modules)
        return ways

    def slow_portraits(self, way: DocumentedWay, count: int, accuracy: Callable[[], Facts] | None = None) -> Work:
        return Work(lambda: way.render(self.seeds(count), COLOR, self.folders.new()), count, accuracy)

    def only_documented(self) -> dict[str, Work]:
        """It makes a portrait anew for each picture."""
        return {} if self.documented is None else {DOCUMENTED: self.slow_portraits(self.documented, FEW)}

    def render(self, renderer: ohlora.Renderer, faces: int, dyes: Sequence[Ombre], goal: float | None) -> Work:
        def call() -> None:
            jobs.render(renderer, faces_of(renderer, self.seeds(faces)), dyes, self.folders.new())

        judged = self.accuracy(lambda seeds: list(renderer.render(faces_of(renderer, seeds), ombres=[DYE])))
        return Work(call, faces * len(dyes), judged, goal)

    def accuracy(self, dyed: Callable[[range], Sequence[Rgb]]) -> Callable[[], Facts] | None:
        """Dyed portraits of a few faces against the documented way's."""
        seeds, documented = range(FIRST - JUDGED, FIRST), self.documented
        return None if documented is None else lambda: closeness(documented.dyed(seeds, COLOR), dyed(seeds))

    def group(self, name: str, unit: str, works: dict[str, Work]) -> Group:
        return Group("pipeline", name, unit, works, DOCUMENTED if DOCUMENTED in works else None, self.stack)


def closeness(wanted: Sequence[Rgb], made: Sequence[Rgb]) -> Facts:
    from ohlora.export.precision.quality import psnr

    first, second = np.stack(wanted), np.stack(made)
    found = psnr(first, second)
    levels = float(np.abs(first.astype(np.int16) - second).max())
    return {"psnr_db": float(found.mean()), "worst_db": float(found.min()), "max_levels": levels}


def faces_of(renderer: ohlora.Renderer, seeds: Sequence[int]) -> ohlora.SeedRange:
    return ohlora.SeedRange(seeds[0], seeds[-1], renderer.label_size)


def portraits(ways: Ways) -> Group:
    works = {}
    for name, way in ways.slow().items():
        judged = None if name == DOCUMENTED else ways.accuracy(lambda seeds, way=way: way.dyed(seeds, COLOR))  # type: ignore[misc]
        works[name] = ways.slow_portraits(way, max(FEW, way.batch), judged)
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = ways.render(renderer, UNIQUE, [DYE], UNIQUE_GOALS.get(preset))
    return ways.group("unique dyed portraits, JPEG", "portrait", works)


def sweep(ways: Ways) -> Group:
    """One face in 1,000 colours."""
    works, dyes = ways.only_documented(), [Ombre(i / DYES, 0.7, 0.5) for i in range(DYES)]
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = ways.render(renderer, 1, dyes, SWEEP_GOAL if preset == ways.last else None)
    return ways.group(f"one face, {DYES:,} dyes, JPEG", "image", works)


def recolor(ways: Ways) -> Group:
    """Portrait files of 256 pixels, each a whole portrait, dyed once."""
    works, files, documented = {}, portrait_files(ways), ways.documented
    few, judged = files[: 2 * FEW], [read_image(file) for file in files[:JUDGED]]

    def slow(way: DocumentedWay) -> Work:
        return Work(lambda: way.recolor(few, COLOR, ways.folders.new()), len(few))

    def ours(renderer: ohlora.Renderer, goal: float | None) -> Work:
        facts = None
        if documented is not None:
            facts = lambda: closeness(documented.dye(judged, COLOR), renderer.recolor(judged, DYE, detect="whole"))  # noqa: E731
        return Work(lambda: jobs.recolor(renderer, files, DYE, ways.folders.new()), len(files), facts, goal)

    for name, way in ways.slow().items():
        works[name] = slow(way)
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = ours(renderer, RECOLOR_GOAL if preset == ways.last else None)
    return ways.group(f"recolour files of {SIDE} px, JPEG to JPEG", "file", works)


def portrait_files(ways: Ways) -> list[Path]:
    renderer, folder, files = ways.renderers[ways.last], ways.folders.new(), []
    for number, image in enumerate(renderer.render(faces_of(renderer, range(FIRST - FILES, FIRST)))):
        files.append(folder / f"{number:04d}.jpg")
        files[-1].write_bytes(encode_image(resize_area(image, (SIDE, SIDE)), "jpeg", 95))
    return files


def animation(ways: Ways) -> Group:
    """A face that opens its mouth while its dye turns, as MP4. Without directions, a dye that turns."""
    works = ways.only_documented()
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = Work(lambda renderer=renderer: _animate(ways, renderer), FRAMES)  # type: ignore[misc]
    return ways.group(f"animation of {FRAMES} frames, MP4", "frame", works)


def _animate(ways: Ways, renderer: ohlora.Renderer) -> None:
    moves = renderer.directions is not None
    turns = ((Expression(mouth=-i / FRAMES if moves else 0.0), Ombre(i / FRAMES, 0.7, 0.5)) for i in range(FRAMES))
    looks = tuple(Look(*turn) for turn in turns)
    frames = (one.image for one in renderer.stream(RenderJob(faces_of(renderer, ways.seeds(1)), looks, jobs.OUTPUT)))
    write_animation(ways.folders.new() / "moving.mp4", frames, fps=24, format="mp4")
