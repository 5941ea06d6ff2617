"""Where faces come from: seeds, seed ranges, z-vector tables, NumPy files, a bundle's gallery.

Sources are lazy sequences: a range of a million seeds costs nothing until a face is asked for.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ohlora.base.arrays import read_npy, read_npz
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import shown
from ohlora.base.values import LABEL_SIZES as LABEL_SIZES
from ohlora.base.values import MAX_SEED as MAX_SEED
from ohlora.base.values import Z_SIZE, Face, random_stream
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import is_face_name
from ohlora.errors import InvalidInputError, one_line

MAX_FACES = 10_000_000
_NAME_SIZE = 100  # of what a file's name gives to those of its faces


@lru_cache(maxsize=1024, typed=True)  # planning and rendering ask for the same faces, a batch or two apart
def face_from_seed(seed: int, label_size: int = 0) -> Face:
    """z and label ~ N(0, 1) from the counter-based Philox stream with `seed` as its key.

    A face depends on its seed alone, never on how many were drawn before it.
    """
    stream = random_stream({"seed": seed})
    z = stream.standard_normal(Z_SIZE).astype(np.float32)
    label = stream.standard_normal(label_size).astype(np.float32)
    return Face(z, label, name=f"seed{seed:06d}", source=f"seed:{seed}")


def latents_of(faces: Iterable[Face]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """z [N,512] and labels [N,L] of faces with labels of one length L."""
    z, label = zip(*((face.z, face.label) for face in faces), strict=True)
    return np.stack(z), np.stack(label)


def latents_of_seeds(seeds: Iterable[int], label_size: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """z [N,512] and labels [N,label_size] of the faces of some seeds."""
    return latents_of(face_from_seed(int(seed), label_size) for seed in seeds)


class _LazyFaces(Sequence[Face]):
    """Faces that are made when they are asked for."""

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> list[Face]: ...
    def __getitem__(self, index: int | slice) -> Face | list[Face]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._at(index)

    @abstractmethod
    def _at(self, index: int) -> Face: ...


@dataclass(frozen=True)
class SeedRange(_LazyFaces):
    """Faces of the seeds first .. last (inclusive)."""

    first: int
    last: int
    label_size: int = 0

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _at(self, index: int) -> Face:
        return face_from_seed(self.first + index, self.label_size)


@dataclass(frozen=True)
class JoinedFaces(_LazyFaces):
    """Several sources, one after the other."""

    parts: tuple[Sequence[Face], ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def _at(self, index: int) -> Face:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def __iter__(self) -> Iterator[Face]:
        return chain.from_iterable(self.parts)


def load_faces(specs: Sequence[str], label_size: int, bundle: Bundle | None = None) -> Sequence[Face]:
    """Parse face sources, each one of:

    "17" a seed; "0-999" seeds 0 to 999; "FILE.csv" a z-vector table (columns z0.. then labels; an
    `*_group_names.csv` beside it names and groups the rows); "FILE.npz" with `z` [N,512] and optional `label`,
    `name`, `group`; "FILE.npy" [N,512+L]; "gallery" or "gallery:NAME" of the bundle. Any file may be followed by
    ":3" or ":3-7" to take only those rows.

    Raises InvalidInputError naming the source, or when two faces would have one name.
    """
    if not specs:
        raise InvalidInputError("no faces asked for: give seeds (--faces 0-99), a z-vector file or 'gallery'")
    parts = tuple(_load(spec.strip(), label_size, bundle) for spec in specs)
    faces = parts[0] if len(parts) == 1 else JoinedFaces(parts)
    if len(faces) > MAX_FACES:
        raise InvalidInputError(f"{len(faces):,} faces asked for; the limit of one job is {MAX_FACES:,}: split it")
    _refuse_repeats(parts)
    return faces


def _refuse_repeats(parts: Sequence[Sequence[Face]]) -> None:
    ranges = sorted((p.first, p.last) for p in parts if isinstance(p, SeedRange))
    for (_, last), (first, _) in pairwise(ranges):
        if first <= last:
            raise InvalidInputError(f"seed {first} is asked for twice: make the seed ranges disjoint")
    names: set[str] = set()
    for part in parts:
        for face in () if isinstance(part, SeedRange) else part:
            if face.name in names:
                raise InvalidInputError(f"face '{face.name}' is asked for twice (again from {face.source})")
            names.add(face.name)


def _load(spec: str, label_size: int, bundle: Bundle | None) -> Sequence[Face]:
    if match := re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", spec):
        first = _bounded(match[1])
        last = _bounded(match[2]) if match[2] else first
        if last < first or last > MAX_SEED:
            raise InvalidInputError(f"seed range '{shown(spec)}' must rise and stay within [0, {MAX_SEED}]")
        if last - first >= MAX_FACES:
            raise InvalidInputError(
                f"{last - first + 1:,} faces asked for; the limit of one job is {MAX_FACES:,}: split it"
            )
        return SeedRange(first, last, label_size)
    if spec == "gallery" or spec.startswith("gallery:"):
        return _from_gallery(spec.partition(":")[2], label_size, bundle)
    path, rows = _split_rows(spec)
    if not _is_there(path):
        raise InvalidInputError(
            f"unknown face source '{shown(spec)}': neither a seed (17), a range (0-99), 'gallery', nor an existing file"
        )
    readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise InvalidInputError(f"cannot read faces from {shown(path, 300)}: use .csv, .npy or .npz")
    faces = readers[path.suffix.lower()](path)
    _check_labels(faces, label_size, str(path))
    if rows is None:
        return faces
    if rows.stop > len(faces):
        raise InvalidInputError(
            f"{path} has {len(faces)} faces (0 to {len(faces) - 1}), row {rows.stop - 1} was asked for"
        )
    return faces[rows.start : rows.stop]


def _split_rows(spec: str) -> tuple[Path, range | None]:
    match = re.fullmatch(r"(.+\.(?:csv|npy|npz)):([0-9]+)(?:-([0-9]+))?", spec, re.IGNORECASE)
    if not match:
        return Path(spec), None
    first = _bounded(match[2])
    last = _bounded(match[3]) if match[3] else first
    if last < first:
        raise InvalidInputError(f"the rows of '{shown(spec)}' must rise")
    return Path(match[1]), range(first, last + 1)


def _bounded(digits: str) -> int:
    """The number, or one that is too large for a seed where there are so many digits that Python would refuse them."""
    return int(digits) if len(digits) < 20 else MAX_SEED + 1


def _is_there(path: Path) -> bool:
    """Whether a path names anything; texts that cannot be one do not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a NUL inside
        return False


def _check_labels(faces: Sequence[Face], label_size: int, source: str) -> None:
    if faces and faces[0].label.shape[0] != label_size:
        raise InvalidInputError(
            f"faces of {source} have {faces[0].label.shape[0]} label values, the generator takes {label_size}: "
            "use the file that belongs to this generator"
        )


def _from_gallery(name: str, label_size: int, bundle: Bundle | None) -> list[Face]:
    if bundle is None:
        raise InvalidInputError("'gallery' needs a bundle that has one")
    faces = [
        Face(z, label, name=entry, group=group or None, source=f"gallery:{entry}")
        for entry, group, z, label in bundle.gallery()
        if not name or entry == name
    ]
    if not faces:
        known = ", ".join(entry for entry, *_ in bundle.gallery()[:8])
        raise InvalidInputError(
            f"unknown face '{shown(name)}' in the gallery of bundle '{bundle.name}'; it has {known} ..."
        )
    _check_labels(faces, label_size, f"the gallery of bundle '{bundle.name}'")
    return faces


def faces_from_array(
    values: NDArray[np.floating],
    source: str,
    names: Sequence[str] | None = None,
    groups: Sequence[str | None] | None = None,
) -> list[Face]:
    """[N, 512 + L] -> faces. Raises InvalidInputError for other widths or an empty table."""
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] - Z_SIZE not in LABEL_SIZES:
        raise InvalidInputError(
            f"{source} must hold rows of 512 latent values and 0, 3 or 7 label values, got shape {values.shape}"
        )
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(source).stem)[:_NAME_SIZE]
    for row, name in enumerate(names or ()):
        if not is_face_name(name):
            raise InvalidInputError(
                f"{source}: the name {shown(repr(name))} of row {row} cannot be used in a file name: letters, digits, "
                "spaces and _ . ( ) - only, at most 100"
            )
    return [
        Face(
            row[:Z_SIZE],
            row[Z_SIZE:],
            name=names[i] if names else f"{stem}_{i:04d}",
            group=groups[i] if groups else None,
            source=f"{Path(source).name}#{i}",
        )
        for i, row in enumerate(values)
    ]


def _read_csv(path: Path) -> list[Face]:
    """The published layout: a header of column numbers, optionally an unnamed index column before it."""
    rows = read_csv_rows(path, "z-vector table")
    if len(rows) < 2:
        raise InvalidInputError(f"{path} has no rows below its header")
    header = rows[0][1]
    skip = 1 if header[0].strip() == "" else 0
    values = np.empty((len(rows) - 1, len(header) - skip), dtype=np.float64)
    for i, (line, row) in enumerate(rows[1:]):
        try:
            values[i] = [float(cell) for cell in row[skip:]]
        except ValueError as error:
            raise InvalidInputError(
                f"{path}, line {line}: expected {values.shape[1]} numbers ({one_line(error, 120)})"
            ) from error
    names, groups = _read_group_names(path, len(values))
    return faces_from_array(_float32(values), str(path), names, groups)


def _read_group_names(path: Path, count: int) -> tuple[list[str] | None, list[str | None] | None]:
    """Case numbers and direction groups from the one `*group_names*.csv` beside a table, when the rows agree."""
    marker = path.stem.removeprefix("ohlora_z_vectors")
    if marker == path.stem:
        return None, None
    for candidate in sorted(path.parent.glob(f"*_group_names{marker}.csv")):
        (_, header), *lines = read_csv_rows(candidate) or [(1, [])]
        if len(lines) != count:
            raise InvalidInputError(
                f"{candidate} has {len(lines)} rows, {path} has {count}: they belong together row by row"
            )
        for line, cells in lines:
            if len(cells) != len(header):
                raise InvalidInputError(f"{candidate}, line {line}: {len(cells)} cells, the header has {len(header)}")
        rows = [(line, dict(zip(header, cells, strict=True))) for line, cells in lines]
        column = next((c for c in ("group_name", "svm_group_name") if c in header), None)
        if rows and "case" in header:  # directions by gradient know no groups: such a table has names alone
            groups: list[str | None] | None = [row[column] or None for _, row in rows] if column else None
            return [f"case{_case(candidate, line, row['case']):04d}" for line, row in rows], groups
    return None, None


def _case(path: Path, line: int, cell: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", cell):
        raise InvalidInputError(f"{path}, line {line}: the case must be a whole number from 0, got '{shown(cell)}'")
    return int(cell)


def _require_numbers(path: Path, what: str, values: NDArray[Any]) -> None:
    if values.dtype.kind not in "fiu":
        raise InvalidInputError(f"{path}: {what} must hold numbers, got {values.dtype}")


def _read_npy(path: Path) -> list[Face]:
    values = read_npy(path)
    _require_numbers(path, "its array", values)
    return faces_from_array(_float32(np.atleast_2d(values)), str(path))


def _read_npz(path: Path) -> list[Face]:
    arrays = read_npz(path, ("z", "label", "name", "group"))
    if "z" not in arrays:
        raise InvalidInputError(f"{path} has no array 'z' (it has {', '.join(arrays)})")
    z = np.atleast_2d(arrays["z"])
    label = np.atleast_2d(arrays["label"]) if "label" in arrays else np.zeros((len(z), 0))
    for key, values in (("z", z), ("label", label)):
        _require_numbers(path, f"'{key}'", values)
    if z.ndim != 2 or label.ndim != 2 or len(label) != len(z):
        raise InvalidInputError(f"{path}: 'z' {z.shape} and 'label' {label.shape} must be tables of equally many rows")
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "_", text) for text in _texts(path, "name", arrays, len(z))] or None
    groups: list[str | None] | None = [text or None for text in _texts(path, "group", arrays, len(z))] or None
    return faces_from_array(_float32(np.concatenate([z, label], 1)), str(path), names, groups)


def _texts(path: Path, key: str, arrays: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    """The entries of a column of texts, none where there is no such column."""
    if key not in arrays:
        return []
    if arrays[key].shape != (count,):
        raise InvalidInputError(
            f"{path}: '{key}' has shape {arrays[key].shape} for {count} faces, needed is ({count},)"
        )
    return [str(text) for text in arrays[key].tolist()]


def _float32(values: NDArray[Any]) -> NDArray[np.floating]:
    """Numbers that a latent can hold; larger ones become infinity, which `Face` refuses."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
