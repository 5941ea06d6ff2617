"""Files of the direction test in the documented names and columns (docs/spec/vectorfind.md, sections 3.7 and 3.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes, write_csv
from ohlora.base.types import Rgb
from ohlora.base.values import PROPERTIES
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED, Mark
from ohlora.latents.directions import Directions

PICTURES = "inference_test_after_training"
REPORT, FINAL_REPORT = "image_generation_report", "final_vector_test_report"
GRIDS, VECTORS = "grids", "property_score_vectors"
QUALITY = 90
MEASURES = ("effect", "leakage", "identity")
EXTRA = tuple(f"{name}_{what}" for what in MEASURES for name in PROPERTIES)
CORRELATIONS = tuple(f"{name}_corr" for name in PROPERTIES)
# Documented columns of test_result.csv before the correlations, by `SearchSettings.report_layout`.
LEADING = {
    "svm": ("case", "vector_no", "passed", "group_name"),
    "gradient": ("case", "passed"),
    "mixed": ("case", "svm_group_name", "passed"),
}
STATISTICS = (*(f"{c}_mean" for c in CORRELATIONS), "sum_abs_corr_mean", "passed", "passed_ratio")

Row = dict[str, Any]


@dataclass(frozen=True)
class CaseNames:
    """File names of one case. picture: with a place for its number."""

    result: str
    picture: str
    original: str
    grid: str
    grid_original: str

    @classmethod
    def of(cls, case: int, layout: str) -> CaseNames:
        """layout: as of `SearchSettings.report_layout`."""
        folder, digits, run = f"{PICTURES}/test_{case:04d}", (3 if layout == "svm" else 4), "_000" * (layout == "svm")
        name = f"{folder}/case_{case:0{digits}d}{run}"
        picture, original = f"{name}_pm_{{:0{digits}d}}.jpg", f"{folder}/original_case_{case:02d}_00.jpg"
        grid, grid_original = f"{GRIDS}/case_{case:04d}.jpg", f"{GRIDS}/original_{case:04d}.jpg"
        return cls(f"{name}_result.csv", picture, original, grid, grid_original)


def write_case(
    out: Path, names: CaseNames, strengths: NDArray[np.float64], scores: NDArray[np.float64], columns: Sequence[str]
) -> int:
    """case_..._result.csv: strengths, then eyes, mouth and pose scores, then those of the other columns. Its bytes."""
    header = ["pm_idx", *(f"{name}_pm" for name in PROPERTIES), *(f"{name}_score" for name in columns)]
    rows = [[i, *map(_short, pm), *map(_short, row)] for i, (pm, row) in enumerate(zip(strengths, scores, strict=True))]
    path = out / names.result
    make_folder(path.parent)
    write_csv(path, [header, *rows])
    return path.stat().st_size


def write_pictures(out: Path, names: CaseNames, images: Rgb, original: Rgb, mark: Mark | None = RENDERED) -> None:
    """The single files, as documented."""
    make_folder((out / names.original).parent)
    for index, image in enumerate(images):
        write_bytes(out / names.picture.format(index), encode_image(image, "jpeg", QUALITY, mark=mark))
    write_bytes(out / names.original, encode_image(original, "jpeg", QUALITY, mark=mark))


def write_grid(
    out: Path, names: CaseNames, images: Rgb, original: Rgb, columns: int, mark: Mark | None = RENDERED
) -> None:
    """One sheet: a row for each mouth strength, eyes by pose across; and the unmodified picture beside it."""
    make_folder(out / GRIDS)
    rows = -(-len(images) // columns)
    sheet = np.concatenate(
        [np.concatenate(images[r * columns : (r + 1) * columns], axis=1) for r in range(rows)], axis=0
    )
    write_bytes(out / names.grid, encode_image(sheet, "jpeg", QUALITY, mark=mark))
    write_bytes(out / names.grid_original, encode_image(original, "jpeg", QUALITY, mark=mark))


def write_report(folder: Path, layout: str, rows: Sequence[Row], codes: NDArray[np.float32]) -> dict[str, Any]:
    """test_result.csv, test_statistics.csv, test_groups.csv and the latent codes [N,512+L] -> the statistics."""
    make_folder(folder)
    leading, found = LEADING[layout], statistics(rows)
    header = [*leading, *CORRELATIONS, "sum_abs_corr", *(name for name in EXTRA if rows and name in rows[0])]
    write_csv(folder / "test_result.csv", [header, *([_cell(row[name]) for name in header] for row in rows)])
    write_csv(folder / "test_statistics.csv", [["", *STATISTICS], [0, *_figures(found)]])
    if layout != "gradient":
        _write_groups(folder / "test_groups.csv", rows, leading)
    for name, part in (("part1", codes[:, :512]), ("part2", codes[:, 512:]), ("all", codes)):
        if part.shape[1]:
            body = ([f"{value:.4f}" for value in row] for row in part)
            write_csv(folder / f"latent_codes_{name}.csv", [range(part.shape[1]), *body])
    return found


def statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """Means of the rounded signed correlations, as documented, and of what else was measured; passed, passed_ratio."""
    measured = [name for name in (*CORRELATIONS, "sum_abs_corr", *EXTRA) if rows and name in rows[0]]
    means: dict[str, Any] = {f"{name}_mean": round(float(np.mean([row[name] for row in rows])), 4) for name in measured}
    passed = sum(row["passed"] == "O" for row in rows)
    for name in (*CORRELATIONS, "sum_abs_corr"):
        means.setdefault(f"{name}_mean", 0.0)
    return means | {"passed": passed, "passed_ratio": passed / len(rows) if rows else 0.0}


def _write_groups(path: Path, rows: Sequence[Row], leading: Sequence[str]) -> None:
    column = next(name for name in leading if name.endswith("group_name"))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[column]), []).append(row)
    body = ([group, len(members), *_figures(statistics(members))] for group, members in sorted(groups.items()))
    write_csv(path, [["group_name", "cases", *STATISTICS], *body])


def _figures(found: Mapping[str, Any]) -> list[Any]:
    return [_cell(found[name]) for name in STATISTICS]


def write_vectors(out: Path, directions: Directions) -> None:
    """property_score_vectors/{property}_change_{space}_vector_{group}.csv, one row each; groups of one name nobody."""
    folder = make_folder(out / VECTORS)
    for name, groups in directions.vectors.items():
        for group, vector in groups.items():
            row = [0, *(repr(float(np.float32(value))) for value in vector)]
            path = folder / f"{name}_change_{directions.space}_vector_{group}.csv"
            write_csv(path, [["", *range(len(vector))], row])


def _short(value: float) -> str:
    return "" if np.isnan(value) else f"{round(float(value), 4):g}"


def _cell(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
