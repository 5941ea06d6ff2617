"""What must be computed: outputs grouped so that every portrait is made once, however many dyes it gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.render.job import Look, OutputFormat, RenderJob, look_record


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
    the summary says, from which count of `pipeline.Results`.
    """

    noun = step = "images"
    counts: ClassVar[dict[str, str]] = {"without_hair": "undyed"}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def units(self, pending: Iterable[int]) -> Iterator[Any]:
        """Of these items, numbers in rising order. Yields lazily; memory does not grow with the job."""

    def steps(self, pending: Sequence[int]) -> int:
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
                name = _numbered(face.name, number, len(looks)) + self.job.output.suffix
                output = Output(item, name, looks[number].ombre, facts)
                by_expression.setdefault(looks[number].expression, []).append(output)
            for expression, outputs in by_expression.items():
                yield PortraitUnit(face_index, expression, tuple(outputs))


@dataclass(frozen=True)
class PhotoPlan(Plan):
    """Photographs x ombres -> units. Item k shows photograph k // len(looks) with look k % len(looks).

    names: output name of each source, without suffix; may hold folders. output None: each keeps its suffix.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    looks: tuple[Look, ...]
    output: OutputFormat | None

    def __len__(self) -> int:
        return len(self.paths) * len(self.looks)

    def units(self, pending: Iterable[int]) -> Iterator[SourceUnit]:
        count = len(self.looks)
        for index, items in groupby(pending, key=lambda item: item // count):
            path = self.paths[index]
            suffix = path.suffix.lower() if self.output is None else self.output.suffix
            outputs = []
            for item in items:
                ombre = self.looks[item % count].ombre
                facts = {"source": path.name, "ombre": ombre and asdict(ombre)}
                outputs.append(Output(item, _numbered(self.names[index], item % count, count) + suffix, ombre, facts))
            yield SourceUnit(path, tuple(outputs))


def _numbered(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name}_{number:0{max(4, len(str(count - 1)))}d}"


def output_names(paths: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """A distinct output name for each picture: its path below its root without suffix.

    Pictures that differ in suffix alone keep it ("a.jpg", "a.png" -> "a_jpg", "a_png"). Raises InvalidInputError when
    two would still be written to one file.
    """
    folders = [root.resolve() for root in roots if root.is_dir()]
    names = [_below(path, folders) for path in paths]
    # Case-insensitive file systems would let one output overwrite the other.
    counts = Counter(str(name.with_suffix("")).casefold() for name in names)
    seen: dict[str, Path] = {}
    result = []
    for name, path in zip(names, paths, strict=True):
        text = str(name.with_suffix(""))
        text = text if counts[text.casefold()] == 1 else f"{text}_{name.suffix[1:]}"
        if (other := seen.setdefault(text.casefold(), path)) is not path:
            raise InvalidInputError(f"{other} and {path} would both be written as '{text}': dye the folders one by one")
        result.append(text)
    return result


def _below(path: Path, folders: Sequence[Path]) -> Path:
    resolved = path.resolve() if path.is_symlink() else path.absolute()
    root = next((folder for folder in folders if resolved.is_relative_to(folder)), None)
    return resolved.relative_to(root) if root else Path(path.name)
