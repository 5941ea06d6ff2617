"""The faces a bundle offers by name, from `gallery.csv`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_csv
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import shown
from ohlora.errors import BundleError

# A name becomes part of file names, and galleries come from strangers.
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_NAME = re.compile(r"\w[\w .()-]{0,99}")


class GalleryEntry(NamedTuple):
    """A chosen face: z float32 [z_size], label float32 [label_size]; group None when it has none."""

    name: str
    group: str | None
    z: NDArray[np.float32]
    label: NDArray[np.float32]


def read_gallery(path: Path, z_size: int, label_size: int, groups: Collection[str] | None = None) -> list[GalleryEntry]:
    """Faces of a CSV with the columns name, group, v0 ... v{z_size + label_size - 1} (z, then label).

    groups: the groups that exist, None when the bundle has no directions.
    Raises BundleError naming the line.
    """
    width = z_size + label_size
    rows = read_csv_rows(path, "gallery", BundleError)
    header = rows[0][1] if rows else []
    if header != ["name", "group", *(f"v{i}" for i in range(width))]:
        raise BundleError(
            f"{path}: line 1: the columns must be name, group, v0 ... v{width - 1} "
            f"({z_size} for z, {label_size} for the label), got {len(header)} columns"
        )
    entries: dict[str, GalleryEntry] = {}
    for line, cells in rows[1:]:
        entry = _entry(f"{path}: line {line}", cells, z_size, width, groups)
        if entry.name in entries:
            raise BundleError(f"{path}: line {line}: the name {entry.name!r} is used twice")
        entries[entry.name] = entry
    return list(entries.values())


def write_gallery(path: Path, entries: Sequence[GalleryEntry]) -> None:
    """Write what `read_gallery` reads back, to the last bit. Atomic. Raises OutputError."""
    width = entries[0].z.size + entries[0].label.size if entries else 0
    rows: list[list[str]] = [["name", "group", *(f"v{i}" for i in range(width))]]
    for entry in entries:
        values = np.concatenate([entry.z, entry.label])
        rows.append([entry.name, entry.group or "", *(np.format_float_positional(v, trim="-") for v in values)])
    write_csv(path, rows)


def is_face_name(name: str) -> bool:
    """Whether a gallery may call a face so: letters, digits and spaces, _ . ( ) and - inside; at most 100."""
    return _NAME.fullmatch(name) is not None


def _entry(where: str, cells: list[str], z_size: int, width: int, groups: Collection[str] | None) -> GalleryEntry:
    if len(cells) != width + 2:
        raise BundleError(f"{where}: {len(cells)} columns instead of {width + 2}")
    name, group = cells[:2]
    if not is_face_name(name):
        raise BundleError(f"{where}: name {shown(repr(name))} cannot be used in a file name")
    if group and groups is not None and group not in groups:
        raise BundleError(f"{where}: group {shown(repr(group))} is not one of {shown(', '.join(groups), 200)}")
    values = np.empty(width, np.float32)
    for index, cell in enumerate(cells[2:]):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not abs(number) <= _FLOAT32_MAX:  # false for NaN
            raise BundleError(f"{where}: v{index} is {shown(repr(cell))}, not a finite float32")
        values[index] = number
    return GalleryEntry(name, group or None, values[:z_size], values[z_size:])
