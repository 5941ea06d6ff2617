"""What must be computed: outputs grouped so that every portrait is made once, however many dyes it gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

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
class PhotoUnit:
    """One picture to read and all that is dyed from it."""

    path: Path
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class PortraitPlan:
    """Faces x looks -> units."""

    job: RenderJob

    def __len__(self) -> int:
        return len(self.job)

    @property
    def generator_runs(self) -> int:
        return len(self.job.faces) * len({look.expression for look in self.job.looks})

    def file_name(self, face_name: str, look: int) -> str:
        number = "" if len(self.job.looks) == 1 else f"_{look:0{max(4, len(str(len(self.job.looks) - 1)))}d}"
        return f"{face_name}{number}{self.job.output.suffix}"

    def units(self, pending: Iterable[int]) -> Iterator[PortraitUnit]:
        """pending: item numbers in rising order. Yields lazily; memory does not grow with the job."""
        count = len(self.job.looks)
        records = [look_record(look) for look in self.job.looks]
        for face_index, items in groupby(pending, key=lambda item: item // count):
            face = self.job.faces[face_index]
            by_expression: dict[Expression, list[Output]] = {}
            for item in items:
                look = self.job.looks[item % count]
                facts = {"face": face.name, "source": face.source, "group": face.group, **records[item % count]}
                output = Output(item, self.file_name(face.name, item % count), look.ombre, facts)
                by_expression.setdefault(look.expression, []).append(output)
            for expression, outputs in by_expression.items():
                yield PortraitUnit(face_index, expression, tuple(outputs))


@dataclass(frozen=True)
class PhotoPlan:
    """Photographs x ombres -> units. Item k shows picture k // len(looks) with look k % len(looks)."""

    paths: Sequence[Path]
    names: Sequence[str]  # output name of each, without suffix; may hold folders
    looks: tuple[Look, ...]
    output: OutputFormat

    def __len__(self) -> int:
        return len(self.paths) * len(self.looks)

    def units(self, pending: Iterable[int]) -> Iterator[PhotoUnit]:
        count = len(self.looks)
        digits = max(4, len(str(count - 1)))
        records = [look_record(look)["ombre"] for look in self.looks]
        for index, items in groupby(pending, key=lambda item: item // count):
            outputs = []
            for item in items:
                look = self.looks[item % count]
                number = "" if count == 1 else f"_{item % count:0{digits}d}"
                facts = {"source": self.paths[index].name, "ombre": records[item % count]}
                outputs.append(Output(item, f"{self.names[index]}{number}{self.output.suffix}", look.ombre, facts))
            yield PhotoUnit(self.paths[index], tuple(outputs))


def output_names(paths: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """A distinct output name for each picture: its path below its root without suffix.

    Pictures that differ in suffix alone keep it ("a.jpg", "a.png" -> "a_jpg", "a_png"). Raises InvalidInputError when
    two would still be written to one file.
    """
    names: list[Path] = []
    folders = [root.resolve() for root in roots if root.is_dir()]
    for path in paths:
        resolved = path.resolve() if path.is_symlink() else path.absolute()
        root = next((f for f in folders if resolved.is_relative_to(f)), None)
        names.append(resolved.relative_to(root) if root else Path(path.name))
    counts: dict[str, int] = {}
    for name in names:
        counts[_key(name.with_suffix(""))] = counts.get(_key(name.with_suffix("")), 0) + 1
    result = [
        str(n.with_suffix("")) if counts[_key(n.with_suffix(""))] == 1 else f"{n.with_suffix('')}_{n.suffix[1:]}"
        for n in names
    ]
    seen: dict[str, Path] = {}
    for text, path in zip(result, paths, strict=True):
        if (other := seen.setdefault(text.casefold(), path)) is not path:
            raise InvalidInputError(f"{other} and {path} would both be written as '{text}': dye the folders one by one")
    return result


def _key(path: Path) -> str:
    # Case-insensitive file systems would let one output overwrite the other.
    return str(path).casefold()
