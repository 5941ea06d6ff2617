"""Hand labels of numbered pictures, in the two documented table layouts (docs/spec/cnn.md, sections 4 and 6).

    v1   img_name,quality,gender            quality 1 = good, gender 1 = woman
    v3   idx,gender,quality,age,glass       age 1 = old, glass 1 = wears glasses

The first column is the picture's number in both. Every row is complete: a picture is labelled wholly or not at all.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.errors import InvalidInputError

LabelLayout = Literal["v1", "v3"]


@dataclass(frozen=True)
class _Columns:
    number: str
    attributes: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        return (self.number, *self.attributes)


LAYOUTS: dict[str, _Columns] = {
    "v1": _Columns("img_name", ("quality", "gender")),
    "v3": _Columns("idx", ("gender", "quality", "age", "glass")),
}
_SHOWN = 5  # numbers named in a message


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
            shown = ", ".join(map(str, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
            raise InvalidInputError(f"{len(missing)} pictures have no label: {shown}; label them or leave them out")
        at = np.array([place[int(number)] for number in numbers], dtype=np.int64)
        return Labels(self.numbers[at], {name: column[at] for name, column in self.values.items()})


def layout_of(attributes: Sequence[str]) -> LabelLayout:
    """The layout whose attributes these are, in any order. Raises InvalidInputError naming the known sets."""
    for name, columns in LAYOUTS.items():
        if set(columns.attributes) == set(attributes) and len(attributes) == len(columns.attributes):
            return "v1" if name == "v1" else "v3"
    known = " or ".join(",".join(columns.attributes) for columns in LAYOUTS.values())
    raise InvalidInputError(f"labels of '{','.join(attributes)}' have no documented table: label {known}")


def read_labels(path: Path | str) -> Labels:
    """Read a label table (.csv or .csv.gz) of either layout; the header says which.

    Raises InvalidInputError naming the file and the row for a missing or damaged file, another header, a number that is
    none or comes twice, and a label other than 0 or 1.
    """
    path = Path(path)
    rows = _rows(path)
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    columns = next((columns for columns in LAYOUTS.values() if columns.header == header), None)
    if columns is None:
        known = " or ".join("'" + ",".join(columns.header) + "'" for columns in LAYOUTS.values())
        raise InvalidInputError(f"{path} starts with '{','.join(header)[:80]}', a table of labels with {known}")
    numbers: list[int] = []
    table = np.empty((len(rows) - 1, len(columns.attributes)))
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InvalidInputError(f"{path}, row {line}: {len(row)} cells instead of {len(header)}")
        if not row[0].strip().isdecimal() or len(row[0]) > 18:  # 18 digits fit int64
            raise InvalidInputError(f"{path}, row {line}: '{row[0]}' is no picture number")
        numbers.append(int(row[0]))
        for at, (name, cell) in enumerate(zip(columns.attributes, row[1:], strict=True)):
            if cell.strip() not in ("0", "1", "0.0", "1.0"):
                raise InvalidInputError(f"{path}, row {line}: {name} must be 0 or 1, got '{cell}'")
            table[line - 2, at] = float(cell)
    try:
        return Labels(
            np.array(numbers, dtype=np.int64), {name: table[:, at].copy() for at, name in enumerate(columns.attributes)}
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def write_labels(path: Path | str, labels: Labels, layout: LabelLayout) -> None:
    """Write `labels` as the table of `layout` (.csv or .csv.gz), sorted by number. Atomic.

    Raises InvalidInputError when the labels are of other attributes, OutputError when the file cannot be written.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise InvalidInputError(f"unknown label layout '{layout}': choose one of {', '.join(LAYOUTS)}")
    columns = LAYOUTS[layout]
    if set(labels.attributes) != set(columns.attributes):
        raise InvalidInputError(
            f"layout {layout} holds {', '.join(columns.attributes)}; these labels are of {', '.join(labels.attributes)}"
        )
    order = np.argsort(labels.numbers, kind="stable")
    lines = [",".join(columns.header)]
    table = [labels.numbers, *(labels.of(name) for name in columns.attributes)]
    lines += [",".join(str(int(column[at])) for column in table) for at in order]
    data = ("\n".join(lines) + "\n").encode()
    # No time stamp inside: equal labels give equal bytes.
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix.lower() == ".gz" else data)


def _rows(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"there is no label table {path}: label pictures first with `ohlora train label`"
        ) from error
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise InvalidInputError(f"cannot read the label table {path}: {error}") from error
