"""What a person chooses from: the direction test of a VectorFind run, its codes and its sheets
(docs/spec/vectorfind.md, section 3.8).

RUN/vectorfind.json                               {"space": "w", ...}
RUN/image_generation_report/test_result.csv       a row a case
RUN/image_generation_report/latent_codes_all.csv  a row a case, the same order: z, then the label
RUN/grids/case_0012.jpg, original_0012.jpg        the 50 pictures of the test and the one without a change
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.reading import read_object
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import shown
from ohlora.base.values import PROPERTIES, Z_SIZE
from ohlora.bundle.gallery import is_face_name
from ohlora.errors import InvalidInputError, one_line
from ohlora.faces import LABEL_SIZES
from ohlora.latents.directions import EVERYONE
from ohlora.latents.spaces import SPACES

REPORT_FOLDER = "image_generation_report"
SUM = "sum_abs_corr"
# All that a published report can have, in its order; v9 has svm_group_name for two of them, or none of the three.
DOCUMENTED = (
    "case",
    "vector_no",
    "svm_group_name",
    "passed",
    "group_name",
    *(f"{name}_corr" for name in PROPERTIES),
    SUM,
)
NEEDED = ("case", "passed", *(f"{name}_corr" for name in PROPERTIES))
GROUPS = ("group_name", "svm_group_name")
LEAKAGE = "leak"  # part of the name of a column that tells how much else changes with a property
ORDERS = ("case", "sum", "leakage")
MAX_CASE = 10**9


@dataclass(frozen=True)
class Case:
    """A tested face. cells: its row of the report by column; code: its row of the codes, as the text stands there."""

    number: int
    name: str
    cells: Mapping[str, str]
    code: str

    @property
    def passed(self) -> bool:
        return self.cells["passed"] == "O"

    def value(self, column: str) -> float | None:
        """A number of its row; None where the cell is empty, not finite or no number."""
        try:
            value = float(self.cells[column])
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def values(self) -> NDArray[np.float32]:
        """Its code, float32 [512 + L]."""
        return np.array(self.code.split(","), dtype=np.float32)

    @property
    def fingerprint(self) -> str:
        """By which a decision is known to be about this face: a report of another run has the same case numbers."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Report:
    """One direction test. columns: of its rows, the documented ones first; width: 512 + L numbers of a code."""

    folder: Path
    grids: Path
    space: str
    columns: tuple[str, ...]
    width: int
    cases: Mapping[int, Case]

    @property
    def leakage(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if LEAKAGE in name.lower() and name not in DOCUMENTED)

    def group(self, case: Case) -> str | None:
        """The direction group of a face; None where the run had one for all, or none."""
        column = next((name for name in GROUPS if name in self.columns), None)
        return None if column is None or case.cells[column] in ("", EVERYONE) else case.cells[column]

    def sheet(self, number: int) -> Path:
        return self.grids / f"case_{number:04d}.jpg"

    def original(self, number: int) -> Path:
        return self.grids / f"original_{number:04d}.jpg"

    def ordered(self, order: str = "case", everybody: bool = False) -> list[int]:
        """The cases that passed, or all: by number, by falling sum of correlations, or by rising leakage.

        Raises InvalidInputError for another order, leakage that was not measured, and when no case is left.
        """
        if order not in ORDERS:
            raise InvalidInputError(f"unknown order '{order}': choose one of {', '.join(ORDERS)}")
        if order == "leakage" and not self.leakage:
            raise InvalidInputError(f"{self.folder} has no leakage columns: choose --order case or --order sum")
        chosen = [case for case in self.cases.values() if everybody or case.passed]
        if not chosen:
            raise InvalidInputError(
                f"none of the {len(self.cases)} cases of {self.folder} passed the test: --all shows them"
            )

        def place(case: Case) -> tuple[float, int]:
            figure = 0.0 if order == "case" else self.total(case)
            figure = _absolute_sum(case, self.leakage) if order == "leakage" else figure
            # Those without come last.
            return (math.inf if figure is None else -figure if order == "sum" else figure), case.number

        return [case.number for case in sorted(chosen, key=place)]

    def total(self, case: Case) -> float | None:
        """Its sum_abs_corr, summed up where the report has none."""
        if SUM in self.columns:
            return case.value(SUM)
        return _absolute_sum(case, [f"{name}_corr" for name in PROPERTIES])


def _absolute_sum(case: Case, columns: Sequence[str]) -> float | None:
    values = [case.value(name) for name in columns]
    return None if None in values else sum(abs(value) for value in values if value is not None)


def read_report(run: Path | str, folder: Path | str | None = None) -> Report:
    """The test of a run, or another one of the same run in `folder`.

    A `grids` folder inside `folder` is taken before that of the run. Raises InvalidInputError naming what is missing,
    damaged or does not fit together.
    """
    run = Path(run)
    if not run.is_dir():
        raise InvalidInputError(f"there is no run folder {run}: `ohlora train vectorfind` makes one")
    space, names = _read_settings(run / "vectorfind.json")
    folder = run / REPORT_FOLDER if folder is None else Path(folder)
    columns, rows = _read_rows(folder / "test_result.csv")
    codes = _read_codes(folder / "latent_codes_all.csv")
    if len(rows) != len(codes):
        raise InvalidInputError(
            f"{folder} has {len(rows)} rows in test_result.csv and {len(codes)} in latent_codes_all.csv: they belong "
            "together row by row, run the test again"
        )
    cases: dict[int, Case] = {}
    for cells, code in zip(rows, codes, strict=True):
        number = int(cells["case"])
        if number in cases:
            raise InvalidInputError(f"{folder / 'test_result.csv'} has case {number} twice")
        cases[number] = Case(number, names.get(number, f"case{number:04d}"), cells, code)
    _require_names(run / "vectorfind.json", cases)
    grids = folder / "grids" if (folder / "grids").is_dir() else run / "grids"
    return Report(folder, grids, space, columns, codes[0].count(",") + 1, cases)


def _read_settings(path: Path) -> tuple[str, dict[int, str]]:
    """(space, names of cases that have one)."""
    if not path.exists():
        raise InvalidInputError(f"{path.parent} is no run of `ohlora train vectorfind`: it has no {path.name}")
    content = read_object(path, "record")
    space: Any = content.get("space")
    if space not in SPACES:
        raise InvalidInputError(f"{path}: the space must be one of {', '.join(SPACES)}, got {shown(repr(space))}")
    named = content.get("names")
    names = named.items() if isinstance(named, dict) else ()
    return space, {int(key): str(name) for key, name in names if key.isdecimal()}


def _read_rows(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """(columns, the documented ones first; rows as text)."""
    rows = read_csv_rows(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in NEEDED if name not in header]
    if missing or len(set(header)) != len(header):
        raise InvalidInputError(
            f"{path} is no report of a direction test: it needs each of {', '.join(NEEDED)} once, "
            f"got {', '.join(header)[:200] or 'nothing'}"
        )
    found = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InvalidInputError(f"{path}, line {line}: {len(row)} cells, the header has {len(header)}")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        case = cells["case"]
        if not (case.isascii() and case.isdecimal()) or int(case) > MAX_CASE:
            raise InvalidInputError(f"{path}, line {line}: the case must be a whole number from 0, got '{shown(case)}'")
        if cells["passed"] not in ("O", "X"):
            raise InvalidInputError(f"{path}, line {line}: passed must be O or X, got '{shown(cells['passed'])}'")
        found.append(cells)
    if not found:
        raise InvalidInputError(f"{path} has no case")
    columns = [name for name in DOCUMENTED if name in header]
    return (*columns, *(name for name in header if name not in columns)), found


def _read_codes(path: Path) -> list[str]:
    """Rows as text, each checked to be finite numbers."""
    rows = read_csv_rows(path)
    header = rows[0][1] if rows else []
    if len(header) - Z_SIZE not in LABEL_SIZES or header != [str(i) for i in range(len(header))]:
        raise InvalidInputError(
            f"{path} must have the header 0 ... {Z_SIZE - 1} and the columns of 0, 3 or 7 label values, no index; "
            f"got {len(header)} columns"
        )
    found = []
    for line, row in rows[1:]:
        try:
            values = np.array(row, dtype=np.float32)
        except ValueError as error:
            raise InvalidInputError(f"{path}, line {line}: {one_line(error, 120)}") from error
        if values.size != len(header) or not np.isfinite(values).all():
            raise InvalidInputError(f"{path}, line {line}: expected {len(header)} finite numbers, got {len(row)} cells")
        found.append(",".join(cell.strip() for cell in row))
    return found


def _require_names(path: Path, cases: Mapping[int, Case]) -> None:
    taken: dict[str, int] = {}
    for case in cases.values():
        if not is_face_name(case.name):
            raise InvalidInputError(
                f"{path}: the name {shown(repr(case.name))} of case {case.number} cannot be used in a file name"
            )
        if (other := taken.setdefault(case.name.casefold(), case.number)) != case.number:
            raise InvalidInputError(f"{path}: cases {other} and {case.number} are both named {case.name!r}")
