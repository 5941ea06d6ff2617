"""The tables of chosen faces, in the published layout (docs/spec/vectorfind.md, section 3.9),
and as a bundle's gallery.

Row order is that of the report in all of them. Codes and rows are copied as text: not a digit of the report changes.
Nobody kept means no tables: readers refuse empty ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ohlora.base.atomic import explain_os_error, write_csv
from ohlora.base.values import Z_SIZE
from ohlora.bundle.gallery import GalleryEntry, write_gallery
from ohlora.latents.spaces import SPACES
from ohlora.training.pages.select.report import Report

VECTORS, GALLERY = "ohlora_z_vectors.csv", "gallery.csv"


def tables_in(out: Path) -> list[Path]:
    """Every table that a selection of any space can have written."""
    return [out / VECTORS, out / GALLERY, *(rows_file(out, space) for space in SPACES)]


def rows_file(out: Path, space: str) -> Path:
    return out / f"ohlora_{space}_group_names.csv"


def write_tables(out: Path, report: Report, kept: Mapping[int, str]) -> None:
    """Write the faces of these cases, by case number, with their names. Each table is atomic. Raises OutputError."""
    if not kept:
        for path in tables_in(out):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise explain_os_error(path, error) from error
        return
    cases = [case for case in report.cases.values() if case.number in kept]
    write_csv(out / VECTORS, [range(report.width), *(case.code.split(",") for case in cases)])
    rows = ([case.cells[name] for name in report.columns] for case in cases)
    write_csv(rows_file(out, report.space), [report.columns, *rows])
    entries = [
        GalleryEntry(kept[case.number], report.group(case), code[:Z_SIZE], code[Z_SIZE:])
        for case, code in ((case, case.values()) for case in cases)
    ]
    write_gallery(out / GALLERY, entries)
