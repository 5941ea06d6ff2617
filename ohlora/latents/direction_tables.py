"""Published direction tables: one CSV per property and group, `{property}_change_{space}_vector_{group}.csv`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.base.tables import read_csv_rows
from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError, one_line
from ohlora.latents.spaces import SPACES, Space, check_space

INNER = "property_score_vectors"  # where published sets keep their tables
_NAME = re.compile(rf"({'|'.join(PROPERTIES)})_change_({'|'.join(SPACES)})_vector_(.+)\.csv")


@dataclass(frozen=True)
class DirectionTables:
    """Where the tables of one set in one space lie. paths: property -> group -> file, of properties that have some."""

    folder: Path
    space: Space
    paths: Mapping[str, Mapping[str, Path]]

    @property
    def missing(self) -> list[str]:
        """Properties without a table: in published sets their direction is a network's gradient."""
        return [name for name in PROPERTIES if name not in self.paths]

    @property
    def source(self) -> str:
        """Name of the set: its folder's."""
        folder = self.folder.absolute()
        return folder.parent.name if folder.name == INNER else folder.name

    def read(self, without: Collection[str] = ()) -> dict[str, dict[str, NDArray[np.float64]]]:
        """property -> group -> float64 [D], except for the properties `without`.

        Raises InvalidInputError for damaged tables.
        """
        return {
            name: {group: read_vector(files[group]) for group in sorted(files)}
            for name, files in self.paths.items()
            if name not in without
        }


def list_tables(folder: Path | str) -> dict[Space, DirectionTables]:
    """The sets of tables in `folder` or its `property_score_vectors`, by space."""
    folder = Path(folder)
    inner = folder / INNER
    folder = inner if inner.is_dir() else folder
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for path in sorted(folder.glob("*.csv")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[2], {}).setdefault(match[1], {})[match[3]] = path
    return {
        space: DirectionTables(folder, space, {name: found[space][name] for name in PROPERTIES if name in found[space]})
        for space in SPACES
        if space in found
    }


def find_tables(folder: Path | str, space: str | None = None) -> DirectionTables:
    """The tables in `folder` or its `property_score_vectors`, of `space` or of the one space that there is.

    Raises InvalidInputError without any, and for several spaces when none is named.
    """
    sets = list_tables(folder)
    there = ", ".join(f"{one} ({', '.join(tables.paths)})" for one, tables in sets.items())
    if space is not None:
        chosen = check_space(space)
        if chosen not in sets:
            raise InvalidInputError(
                f"no direction tables of space {chosen} in {folder}; it has {there or 'none at all'}"
            )
        return sets[chosen]
    if len(sets) > 1:
        raise InvalidInputError(
            f"{folder} has directions in several spaces, {there}: name one (--space {next(iter(sets))})"
        )
    if not sets:
        raise InvalidInputError(
            f"no direction tables in {folder}: expected files like eyes_change_w_vector_hhh.csv or "
            "directions.safetensors"
        )
    return next(iter(sets.values()))


def read_vector(path: Path) -> NDArray[np.float64]:
    """The one data row of a table, without its row index: float64 [D]. Raises InvalidInputError."""
    rows = read_csv_rows(path, "direction")
    try:
        vector = np.array([float(cell) for cell in rows[1][1][1:]], dtype=np.float64)
    except (IndexError, ValueError) as error:
        raise InvalidInputError(f"cannot read the direction {path}: {one_line(error, 120)}") from error
    if not len(vector) or not np.isfinite(vector).all():
        raise InvalidInputError(f"the direction {path} must hold finite numbers")
    return vector
