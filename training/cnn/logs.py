"""Training logs in the documented CSV layouts (docs/spec/cnn.md, sections 4, 7 and 9)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.training.cnn.loop import Attempt
from ohlora.training.cnn.objectives import VALIDATION_SHOWN, log_name

TRAIN_LOG = (
    "fold_no", "success", "min_val_loss", "total_epochs", "best_epoch", "elapsed_time (s)", "val_loss_list",
)  # fmt: skip
EPOCH_DETAIL = (
    "val_loss", "val_accuracy", "tp", "tn", "fp", "fn", "val_recall", "val_precision", "val_f1_score", "val_auroc",
)  # fmt: skip


def write_train_log(path: Path, attempts: Sequence[Mapping[str, Any]]) -> None:
    """One row per attempt of a classifier, failed ones too: {"fold", "success", "losses", "best_epoch", "seconds"}."""
    rows = []
    for index, attempt in enumerate(attempts):
        losses = attempt["losses"]
        rows.append(
            [
                index,
                attempt["fold"],
                attempt["success"],
                round(losses[attempt["best_epoch"]], 4),
                len(losses),
                attempt["best_epoch"],
                round(attempt["seconds"], 2),
                [round(loss, 4) for loss in losses],
            ]
        )
    _write(path, ("", *TRAIN_LOG), rows)


def write_epoch_detail(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row per epoch of a fold, every digit; empty where a figure is undefined."""
    _write(
        path,
        ("epoch", *EPOCH_DETAIL),
        ([epoch, *(_cell(row[name]) for name in EPOCH_DETAIL)] for epoch, row in enumerate(rows)),
    )


def write_score_log(path: Path, attempt: Attempt) -> None:
    """One row per epoch of a score CNN: validation loss, then loss, difference and correlation of each score."""
    names = tuple(attempt.rows[0])
    rows = ([epoch, *(_cell(row[name], 4) for name in names)] for epoch, row in enumerate(attempt.rows))
    _write(path, ("epoch", *names), rows)


def write_validation_log(
    path: Path, attempt: Attempt, columns: Sequence[str], pictures: Sequence[Path], targets: NDArray[np.float32]
) -> None:
    """Output and label of the first validation pictures after each epoch. targets: [M, C] in validation order."""
    header = ["epoch", "img_path"]
    for column in columns:
        header += [f"{log_name(column)}_output", f"{log_name(column)}_label"]
    shown = [f"{path.parent.name}/{path.name}" for path in pictures[:VALIDATION_SHOWN]]
    rows = []
    for epoch, outputs in enumerate(attempt.outputs):
        for name, output, target in zip(shown, outputs, targets, strict=False):
            pairs = [(value, round(float(label), 4)) for value, label in zip(output, target, strict=True)]
            rows.append([epoch, name, *(cell for pair in pairs for cell in pair)])
    _write(path, header, rows)


def _cell(value: Any, decimals: int | None = None) -> Any:
    if value is None:
        return ""
    return round(value, decimals) if isinstance(value, float) and decimals is not None else value


def _write(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(list(header))
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
