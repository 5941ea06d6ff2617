"""Hand labels of numbered pictures, in the two documented table layouts (docs/spec/cnn.md, sections 4 and 6).

    v1   img_name,quality,gender            quality 1 = good, gender 1 = woman
    v3   idx,gender,quality,age,glass       age 1 = old, glass 1 = wears glasses

The first column is the picture's number in both. Every row is complete: a picture is labelled wholly or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_csv
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import first_of, one_of, shown
from ohlora.errors import InvalidInputError

LabelLayout = Literal["v1", "v3"]


# The column of the number, then the attributes.
LAYOUTS: dict[LabelLayout, tuple[str, ...]] = {
    "v1": ("img_name", "quality", "gender"),
    "v3": ("idx", "gender", "quality", "age", "glass"),
}


@dataclass(frozen=True)
class Labels:
    """Labels of N pictures, by attribute.

    numbers: int64 [N], 0 or more, without repeats. values: attribute -> float64 [N], each 0 or 1.
    Raises InvalidInputError naming the attribute or the number when it is otherwise.
    """

    numbers: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        numbers = np.asarray(self.numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise InvalidInputError(f"labels need whole picture numbers [N], got {numbers.dtype} {list(numbers.shape)}")
        numbers = numbers.astype(np.int64)
        if (numbers < 0).any():
            raise InvalidInputError(f"picture numbers start at 0, got {numbers.min()}")
        known, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            raise InvalidInputError(f"picture {known[counts > 1][0]} is labelled twice: keep one row for each picture")
        values = {}
        for attribute, column in self.values.items():
            values[attribute] = np.asarray(column, dtype=np.float64)
            if values[attribute].shape != numbers.shape:
                raise InvalidInputError(
                    f"'{attribute}' has {values[attribute].size} labels for {numbers.size} pictures"
                )
            wrong = ~np.isin(values[attribute], (0.0, 1.0))
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InvalidInputError(
                    f"'{attribute}' of picture {numbers[at]} must be 0 or 1, got {values[attribute][at]:g}"
                )
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.values)

    def of(self, attribute: str) -> NDArray[np.float64]:
        """Labels of one attribute, float64 [N]. Raises InvalidInputError naming the known ones."""
        if attribute not in self.values:
            raise InvalidInputError(f"no labels for '{attribute}': this table has {', '.join(self.values) or 'none'}")
        return self.values[attribute]

    def rows(self, numbers: Sequence[int] | NDArray[np.int64]) -> Labels:
        """The labels of `numbers`, in that order. Raises InvalidInputError naming pictures without a label."""
        place = {int(number): at for at, number in enumerate(self.numbers)}
        missing = [int(number) for number in numbers if int(number) not in place]
        if missing:
            raise InvalidInputError(
                f"{len(missing)} pictures have no label: {first_of(missing)}; label them or leave them out"
            )
        at = np.array([place[int(number)] for number in numbers], dtype=np.int64)
        return Labels(self.numbers[at], {name: column[at] for name, column in self.values.items()})


def layout_of(attributes: Sequence[str]) -> LabelLayout:
    """The layout whose attributes these are, in any order. Raises InvalidInputError naming the known sets."""
    for name, (_, *columns) in LAYOUTS.items():
        if sorted(columns) == sorted(attributes):
            return name
    known = " or ".join(",".join(columns[1:]) for columns in LAYOUTS.values())
    raise InvalidInputError(f"labels of '{','.join(attributes)}' have no documented table: label {known}")


def read_labels(path: Path | str) -> Labels:
    """Read a label table (.csv or .csv.gz) of either layout; the header says which.

    Columns may stand in any order and case, beside an unnamed index, separated by commas, semicolons or tabs; a picture
    may be named by its file (000012.jpg); empty rows are passed over.
    Raises InvalidInputError naming the file and the row for a missing or damaged file, another header, a number that is
    none or comes twice, and a label other than 0 or 1.
    """
    path = Path(path)
    if not path.exists():
        raise InvalidInputError(f"there is no label table {path}: label pictures first with `ohlora train label`")
    rows = read_csv_rows(path, "label table", delimiters=",;\t")
    layout, places = _columns(path, rows[0][1] if rows else [])
    number_name, *attributes = layout
    numbers: list[int] = []
    table: dict[str, list[float]] = {name: [] for name in attributes}
    for line, row in rows[1:]:
        if not any(cell.strip() for cell in row):  # what spreadsheets leave below a table
            continue
        where = f"{path}, line {line}"
        if len(row) != len(rows[0][1]):
            raise InvalidInputError(f"{where}: {len(row)} cells instead of {len(rows[0][1])}{_shown_row(row, layout)}")
        cells = {name: row[places[name]].strip() for name in layout}
        match = _NUMBER.fullmatch(cells[number_name])
        if match is None:
            raise InvalidInputError(
                f"{where}: '{shown(cells[number_name])}' is no picture number{_shown_row(row, layout)}"
            )
        numbers.append(int(match[1] or match[2]))
        for name in attributes:
            if cells[name] not in ("0", "1", "0.0", "1.0"):
                raise InvalidInputError(
                    f"{where}: {name} must be 0 or 1, got '{shown(cells[name])}'{_shown_row(row, layout)}"
                )
            table[name].append(float(cells[name]))
    try:
        return Labels(np.array(numbers, dtype=np.int64), {name: np.array(cells) for name, cells in table.items()})
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


# 12, 12.0, 000012 and 000012.jpg are picture 12; 18 digits fit int64.
_NUMBER = re.compile(r"([0-9]{1,18})(?:\.0+)?|(?:.*[^0-9.])?([0-9]{1,18})\.(?:jpe?g|png|webp|bmp|tiff?)", re.IGNORECASE)


def _columns(path: Path, header: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The layout that a header names, in any order and case, and where its columns are; an index beside them is left.

    Raises InvalidInputError with the header and those that are expected.
    """
    names = [cell.strip().casefold() for cell in header]
    for layout in LAYOUTS.values():
        others = [name for name in names if name not in layout]
        if all(names.count(name) == 1 for name in layout) and all(re.fullmatch("(unnamed: 0)?", n) for n in others):
            return layout, {name: names.index(name) for name in layout}
    known = one_of("'" + ",".join(columns) + "'" for columns in LAYOUTS.values())
    raise InvalidInputError(f"{path} starts with '{shown(','.join(names))}', a table of labels with {known}")


def _shown_row(row: Sequence[str], layout: Sequence[str]) -> str:
    return f" (the row is '{shown(','.join(row))}', expected is {','.join(layout)})"


def write_labels(path: Path | str, labels: Labels, layout: LabelLayout) -> None:
    """Write `labels` as the table of `layout` (.csv or .csv.gz), sorted by number. Atomic.

    Raises InvalidInputError when the labels are of other attributes, OutputError when the file cannot be written.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise InvalidInputError(f"unknown label layout '{layout}': choose one of {', '.join(LAYOUTS)}")
    _, *attributes = LAYOUTS[layout]
    if set(labels.attributes) != set(attributes):
        raise InvalidInputError(
            f"layout {layout} holds {', '.join(attributes)}; these labels are of {', '.join(labels.attributes)}"
        )
    order = np.argsort(labels.numbers, kind="stable")
    columns = (labels.numbers, *(labels.of(name).astype(np.int64) for name in attributes))
    write_csv(path, [LAYOUTS[layout], *zip(*(column[order].tolist() for column in columns), strict=True)])
