"""What must be computed: outputs grouped so that every portrait is made once, however many dyes it gets."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Any, ClassVar

from ohlora.base.values import Expression, Ombre
from ohlora.io.marking import RECOLORED, RENDERED, Mark
from ohlora.render.job import Look, OutputFormat, RenderJob, look_record

MAX_NAME_BYTES = 255  # of the file systems in common use


@dataclass(frozen=True, slots=True)
class Output:
    """One file to be. item: its number in the job; facts: what its metadata row says about it."""

    item: int
    file_name: str
    ombre: Ombre | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PortraitUnit:
    """One generator run and all that is dyed from it."""

    face: int
    expression: Expression
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """A face or file and all that is made from it: images dyed from one photograph, a video, an animation."""

    source: Any
    outputs: tuple[Output, ...]


class Plan(ABC):
    """What the outputs of a job are.

    noun: what they are called. step: what progress counts, the outputs themselves or their frames. counts: what else
    the summary says, from which count of `pipeline.Results`. mark: what the outputs are.
    """

    noun = step = "images"
    mark: Mark = RENDERED
    counts: ClassVar[dict[str, str]] = {"without_hair": "undyed"}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def units(self, pending: Iterable[int]) -> Iterator[Any]:
        """Of these items, numbers in rising order. Yields lazily; memory does not grow with the job."""

    def steps(self, pending: Collection[int]) -> int:
        return len(pending)


@dataclass(frozen=True)
class PortraitPlan(Plan):
    """Faces x looks -> units."""

    counts: ClassVar[dict[str, str]] = {"without_hair": "undyed", "generator_runs": "units"}

    job: RenderJob

    def __len__(self) -> int:
        return len(self.job)

    def units(self, pending: Iterable[int]) -> Iterator[PortraitUnit]:
        looks = self.job.looks
        records = [look_record(look) for look in looks]
        for face_index, items in groupby(pending, key=lambda item: item // len(looks)):
            face = self.job.faces[face_index]
            by_expression: dict[Expression, list[Output]] = {}
            for item in items:
                number = item % len(looks)
                facts = {"face": face.name, "source": face.source, "group": face.group, **records[number]}
                name = result_name(face.name, self.job.output.suffix, number, len(looks))
                output = Output(item, name, looks[number].ombre, facts)
                by_expression.setdefault(looks[number].expression, []).append(output)
            for expression, outputs in by_expression.items():
                yield PortraitUnit(face_index, expression, tuple(outputs))


@dataclass(frozen=True, slots=True)
class Source:
    """A face or file that results are made from.

    label: what metadata call it. name: of its results, "/" between folders, without number and suffix.
    """

    subject: Any
    label: str
    name: str


@dataclass(frozen=True)
class PhotoPlan(Plan):
    """Photographs x ombres -> units. Item k shows photograph k // len(looks) with look k % len(looks).

    output None: each keeps its suffix.
    """

    mark = RECOLORED

    sources: Sequence[Source]
    looks: tuple[Look, ...]
    output: OutputFormat | None

    def __len__(self) -> int:
        return len(self.sources) * len(self.looks)

    def units(self, pending: Iterable[int]) -> Iterator[SourceUnit]:
        count = len(self.looks)
        for index, items in groupby(pending, key=lambda item: item // count):
            source = self.sources[index]
            suffix = source.subject.suffix.lower() if self.output is None else self.output.suffix
            outputs = []
            for item in items:
                ombre = self.looks[item % count].ombre
                facts = {"source": source.label, "ombre": ombre and asdict(ombre)}
                outputs.append(Output(item, result_name(source.name, suffix, item % count, count), ombre, facts))
            yield SourceUnit(source.subject, tuple(outputs))


def result_name(name: str, suffix: str, number: int = 0, count: int = 1) -> str:
    """File name of result `number` of `count` of one source. One that no file system takes is cut, and ends in a hash
    of the whole.
    """
    whole = (name if count == 1 else f"{name}_{number:0{max(4, len(str(count - 1)))}d}") + suffix
    folder, slash, last = whole.rpartition("/")
    if _bytes(last) <= MAX_NAME_BYTES:
        return whole
    end = f"-{hashlib.sha256(whole.encode(errors='surrogatepass')).hexdigest()[:12]}{suffix}"
    while _bytes(last) + _bytes(end) > MAX_NAME_BYTES:
        last = last[:-1]
    return f"{folder}{slash}{last}{end}"


def _bytes(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


def file_sources(paths: Sequence[Path], roots: Sequence[Path]) -> list[Source]:
    """Each file with its path below its root, as walked: links are names like any other.

    Files that differ in suffix alone keep it in the names of their results ("a.jpg", "a.png" -> "a_jpg", "a_png").
    Names that are still equal where case does not count, which some file systems would make one file, are numbered.
    """
    folders = [_absolute(root) for root in roots if root.is_dir()]
    below = [_below(_absolute(path), folders) for path in paths]
    labels = Counter(below)
    stems = Counter(Path(place).with_suffix("") for place in {place.as_posix().casefold() for place in below})
    names = []
    for place in below:
        stem = place.with_suffix("")
        suffix = "" if stems[Path(stem.as_posix().casefold())] == 1 else f"_{place.suffix[1:]}"
        names.append(stem.as_posix() + suffix)
    taken, held = set[str](), {name.casefold() for name in names}
    sources = []
    for path, place, name in zip(paths, below, names, strict=True):
        if name.casefold() in taken:
            name = next(other for n in count(2) if (other := f"{name}_{n}").casefold() not in held)
            held.add(name.casefold())
        taken.add(name.casefold())
        # Files of two roots may have one place below them: then only the whole path tells them apart.
        sources.append(Source(path, (place if labels[place] == 1 else path).as_posix(), name))
    return sources


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def _below(path: Path, folders: Sequence[Path]) -> Path:
    root = next((folder for folder in folders if path.is_relative_to(folder)), None)
    return path.relative_to(root) if root else Path(path.name)
