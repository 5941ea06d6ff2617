"""Training logs in the documented CSV layouts (docs/spec/cnn.md, sections 4, 7 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.training.cnn.objectives import log_name
from ohlora.training.loop.logs import write_table

TRAIN_LOG = (
    "fold_no", "success", "min_val_loss", "total_epochs", "best_epoch", "elapsed_time (s)", "val_loss_list",
)  # fmt: skip


def write_train_log(path: Path, attempts: Sequence[Mapping[str, Any]]) -> None:
    """One row per attempt of a classifier, failed ones too: {"fold", "success", "losses", "best_epoch", "seconds"}."""
    rows: list[Sequence[Any]] = []
    for index, attempt in enumerate(attempts):
        losses, best = [round(loss, 4) for loss in attempt["losses"]], attempt["best_epoch"]
        seconds = round(attempt["seconds"], 2)
        rows.append([index, attempt["fold"], attempt["success"], losses[best], len(losses), best, seconds, losses])
    write_table(path, ("", *TRAIN_LOG), rows)


def write_epochs(path: Path, epochs: Sequence[Mapping[str, Any]], decimals: int | None = None) -> None:
    """One row per epoch with its figures (`Measured.row`); every digit, or `decimals`; empty where one is undefined."""
    rows = ([epoch, *row.values()] for epoch, row in enumerate(epochs))
    write_table(path, ("epoch", *epochs[0]), rows, decimals)


def write_validation_log(
    path: Path,
    epochs: Sequence[Sequence[Sequence[float]]],
    columns: Sequence[str],
    pictures: Sequence[Path],
    targets: NDArray[np.float32],
) -> None:
    """Output and label of the first M validation pictures after each epoch.

    epochs: `Measured.outputs` of each, [M, C]. pictures, targets [M, C]: in validation order.
    """
    names = [f"{log_name(column)}_{kind}" for column in columns for kind in ("output", "label")]
    shown = [f"{picture.parent.name}/{picture.name}" for picture in pictures]
    rows = (
        [epoch, name, *chain(*zip(output, target, strict=True))]
        for epoch, outputs in enumerate(epochs)
        for name, output, target in zip(shown, outputs, targets, strict=True)
    )
    write_table(path, ["epoch", "img_path", *names], rows)
