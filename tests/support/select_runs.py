"""Run folders of a direction test, as `ohlora train select` reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ohlora.io.images import encode_image

V8 = ("case", "vector_no", "passed", "group_name", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr")
MIXED = ("case", "svm_group_name", "passed", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr")
GRADIENT = ("case", "passed", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr")
GROUPS = ("hhl", "lhh", "lll")
TABLES = ["gallery.csv", "ohlora_w_group_names.csv", "ohlora_z_vectors.csv"]


def make_run(
    folder: Path,
    columns: tuple[str, ...] = V8,
    *,
    cases: int = 8,
    space: str = "w",
    labels: int = 7,
    seed: int = 0,
    group: str | None = None,
) -> Path:
    """A run whose odd cases failed; sheets of those that passed but the last of them. group: of everybody."""
    random = np.random.default_rng(seed)
    report, grids = folder / "image_generation_report", folder / "grids"
    report.mkdir(parents=True)
    grids.mkdir()
    (folder / "vectorfind.json").write_text(json.dumps({"space": space, "report_columns": list(columns)}))
    codes = random.standard_normal((cases, 512 + labels))
    lines = [",".join(str(i) for i in range(512 + labels)), *(",".join(f"{v:.4f}" for v in row) for row in codes)]
    (report / "latent_codes_all.csv").write_text("\n".join(lines) + "\n")
    rows = [",".join(columns)]
    for case in range(cases):
        correlations = [round(-0.9 - 0.01 * (case % 3), 4), -0.93, -0.91]
        cells = {
            "case": case,
            "vector_no": 0,
            "passed": "OX"[case % 2],
            "eyes_corr": correlations[0],
            "mouth_corr": correlations[1],
            "pose_corr": correlations[2],
            "sum_abs_corr": round(-sum(correlations), 4),
        }
        cells["group_name"] = cells["svm_group_name"] = group or GROUPS[case % 3]
        rows.append(",".join(str(cells.get(name, round(0.01 * ((5 * case) % 7), 4))) for name in columns))
    (report / "test_result.csv").write_text("\n".join(rows) + "\n")
    for case in range(0, cases - 2, 2):
        tint = np.full((20, 40, 3), 20 * case % 256, np.uint8)
        (grids / f"case_{case:04d}.jpg").write_bytes(encode_image(tint, "jpeg"))
        (grids / f"original_{case:04d}.jpg").write_bytes(encode_image(tint[:, :20], "jpeg"))
    return folder


def written(run: Path) -> list[str]:
    """Names of the files of its selection."""
    return sorted(path.name for path in (run / "selected").iterdir() if not path.name.startswith("."))


def kept(run: Path) -> list[int]:
    """Cases in the table of its selection."""
    with (run / "selected" / "ohlora_w_group_names.csv").open(newline="") as file:
        return [int(row["case"]) for row in csv.DictReader(file)]
