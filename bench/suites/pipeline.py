"""Whole jobs, from seed or file to file: the documented way, and this package at every preset."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import ohlora
from ohlora.base.values import Expression, Ombre
from ohlora.bench.runner import jobs
from ohlora.bench.runner.timing import Facts, Group, Work
from ohlora.bench.suites.options import Options
from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image, read_image
from ohlora.photos.segmentation import resize_area

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
    yield portraits(options)
    yield sweep(options)
    yield recolor(options)
    yield animation(options)


class Ways:
    """What a group's works share: renderers at every preset, the slow ways, folders to write to."""

    def __init__(self, options: Options) -> None:
        self.options, self.stack = options, ExitStack()
        self.folders = self.stack.enter_context(jobs.Folders())
        self.renderers = {
            preset: self.stack.enter_context(ohlora.Renderer(bundle))
            for preset, bundle in options.subject.bundles.items()
        }
        self._faces = itertools.count(FIRST)

    def seeds(self, count: int) -> range:
        """Faces that were not made before: nothing is found in a cache."""
        first = next(self._faces)
        for _ in range(count - 1):
            next(self._faces)
        return range(first, first + count)

    def slow(self) -> dict[str, DocumentedWay]:
        """The documented way, and what PyTorch and ONNX Runtime make of it without this package."""
        documented = self.options.subject.documented
        if documented is None:
            return {}
        from ohlora.bench.baselines.documented import DocumentedWay, PlainOnnxRuntime

        ways = {DOCUMENTED: documented}
        if not self.options.quick:
            modules = documented.generator, documented.student
            ways["eager PyTorch, batch 8, channels last"] = DocumentedWay(*modules, batch=8, channels_last=True)
            ways["plain ONNX Runtime, batch 1"] = PlainOnnxRuntime(*modules)
        return ways

    def group(self, name: str, unit: str, works: dict[str, Work]) -> Group:
        return Group("pipeline", name, unit, works, DOCUMENTED if DOCUMENTED in works else None, self.stack)

    def accurate(self, made: Callable[[Sequence[int]], Sequence[NDArray[np.uint8]]]) -> Callable[[], Facts] | None:
        """Dyed portraits of a few faces against the documented way's."""
        documented = self.options.subject.documented
        if documented is None:
            return None

        def facts() -> Facts:
            seeds = range(FIRST - JUDGED, FIRST)
            return closeness(documented.dyed(seeds, COLOR), made(seeds))

        return facts


def closeness(wanted: Sequence[NDArray[np.uint8]], made: Sequence[NDArray[np.uint8]]) -> Facts:
    from ohlora.export.precision.quality import psnr

    first, second = np.stack(wanted), np.stack(made)
    found = psnr(first, second)
    difference = np.abs(first.astype(np.int16) - second)
    levels = float(difference.max())
    return {"psnr_db": float(found.mean()), "worst_db": float(found.min()), "max_levels": levels}


def portraits(options: Options) -> Group:
    ways, works = Ways(options), {}
    for name, way in ways.slow().items():
        count = max(FEW, way.batch)
        accuracy = None if name == DOCUMENTED else ways.accurate(functools.partial(way.dyed, color=COLOR))
        works[name] = Work(functools.partial(_slow_portraits, ways, way, count), count, accuracy)
    for preset, renderer in ways.renderers.items():
        made = functools.partial(_dyed, renderer)
        works[f"ohlora {preset}"] = Work(
            functools.partial(_portraits, ways, renderer), UNIQUE, ways.accurate(made), UNIQUE_GOALS.get(preset)
        )
    return ways.group("unique dyed portraits, JPEG", "portrait", works)


def _slow_portraits(ways: Ways, way: Any, count: int) -> None:
    way.render(ways.seeds(count), COLOR, ways.folders.new())


def _portraits(ways: Ways, renderer: ohlora.Renderer) -> None:
    jobs.render(renderer, _faces(renderer, ways.seeds(UNIQUE)), [DYE], ways.folders.new())


def _faces(renderer: ohlora.Renderer, seeds: Sequence[int]) -> ohlora.SeedRange:
    return ohlora.SeedRange(seeds[0], seeds[-1], renderer.label_size)


def _dyed(renderer: ohlora.Renderer, seeds: Sequence[int]) -> list[NDArray[np.uint8]]:
    return list(renderer.render(_faces(renderer, seeds), ombres=[DYE]))


def sweep(options: Options) -> Group:
    """One face in 1,000 colours. The documented way makes the portrait anew for each."""
    ways, works = Ways(options), {}
    if (documented := options.subject.documented) is not None:
        works[DOCUMENTED] = Work(functools.partial(_slow_portraits, ways, documented, FEW), FEW)
    dyes = [Ombre(i / DYES, 0.7, 0.5) for i in range(DYES)]
    last = list(ways.renderers)[-1]
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = Work(
            functools.partial(_sweep, ways, renderer, dyes), DYES, ways.accurate(functools.partial(_dyed, renderer)),
            SWEEP_GOAL if preset == last else None,
        )  # fmt: skip
    return ways.group(f"one face, {DYES:,} dyes, JPEG", "image", works)


def _sweep(ways: Ways, renderer: ohlora.Renderer, dyes: list[Ombre]) -> None:
    jobs.render(renderer, _faces(renderer, ways.seeds(1)), dyes, ways.folders.new())


def recolor(options: Options) -> Group:
    """Portrait files of 256 pixels, each a whole portrait, dyed once."""
    ways, works = Ways(options), {}
    files = portrait_files(ways)
    few = files[: 2 * FEW]
    for name, way in ways.slow().items():
        works[name] = Work(functools.partial(_slow_recolor, ways, way, few), len(few))
    last = list(ways.renderers)[-1]
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = Work(
            functools.partial(_recolor, ways, renderer, files), len(files),
            _recolored_facts(options, renderer, files), RECOLOR_GOAL if preset == last else None,
        )  # fmt: skip
    return ways.group(f"recolour files of {SIDE} px, JPEG to JPEG", "file", works)


def portrait_files(ways: Ways) -> list[Path]:
    renderer = list(ways.renderers.values())[-1]
    folder = ways.folders.new()
    made = renderer.render(_faces(renderer, range(FIRST - FILES, FIRST)))
    files = []
    for number, image in enumerate(made):
        file = folder / f"{number:04d}.jpg"
        file.write_bytes(encode_image(resize_area(image, (SIDE, SIDE)), "jpeg", 95))
        files.append(file)
    return files


def _recolored_facts(options: Options, renderer: ohlora.Renderer, files: list[Path]) -> Callable[[], Facts] | None:
    documented = options.subject.documented
    if documented is None:
        return None

    def facts() -> Facts:
        from ohlora.bench.baselines.documented import documented_dye

        images = [read_image(file) for file in files[:JUDGED]]
        wanted = documented_dye(images, documented.hair(images), COLOR)
        return closeness(wanted, renderer.recolor(images, DYE, detect="whole"))

    return facts


def _slow_recolor(ways: Ways, way: Any, files: list[Path]) -> None:
    way.recolor(files, COLOR, ways.folders.new())


def _recolor(ways: Ways, renderer: ohlora.Renderer, files: list[Path]) -> None:
    jobs.recolor(renderer, files, DYE, ways.folders.new())


def animation(options: Options) -> Group:
    """A face that opens its mouth while its dye turns, as MP4. Without directions, a dye that turns."""
    ways, works = Ways(options), {}
    if (documented := options.subject.documented) is not None:
        works[DOCUMENTED] = Work(functools.partial(_slow_portraits, ways, documented, FEW), FEW)
    for preset, renderer in ways.renderers.items():
        works[f"ohlora {preset}"] = Work(functools.partial(_animation, ways, renderer), FRAMES)
    return ways.group(f"animation of {FRAMES} frames, MP4", "frame", works)


def _animation(ways: Ways, renderer: ohlora.Renderer) -> None:
    moves = renderer.directions is not None
    looks = [
        jobs.Look(Expression(mouth=-i / FRAMES) if moves else Expression(), Ombre(i / FRAMES, 0.7, 0.5))
        for i in range(FRAMES)
    ]
    job = jobs.RenderJob(_faces(renderer, ways.seeds(1)), tuple(looks), jobs.OUTPUT)
    frames = (one.image for one in renderer.stream(job))
    write_animation(ways.folders.new() / "moving.mp4", frames, fps=24, format="mp4")
