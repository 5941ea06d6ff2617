"""What a score CNN is trained for: the loss of a batch, and what is measured on held-out pictures.

Objectives have the same attributes. signed: whether pictures come in [-1, 1], else in [0, 1]. raw: [N,3,256,256] ->
[N,C], what the loss is taken of. loss: the share that some rows have in the loss of a batch of `count` pictures; shares
add up to it. measure: figures of all held-out pictures, raw and target [M,C].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.training.nets.score_cnns import ClassifierCnn

VALIDATION_SHOWN = 30  # pictures in the validation log


@dataclass(frozen=True)
class Measured:
    """loss: the one that chooses the best epoch. row: figures for the log, None where undefined; outputs: of the
    first pictures, where a log wants them.
    """

    loss: float
    row: dict[str, Any]
    outputs: list[list[float]]


@dataclass(frozen=True)
class Classification:
    """Binary cross-entropy, summed over the batch; reported as a mean per picture (docs/spec/cnn.md, section 4).

    threshold: probability from which a picture counts as positive in the figures.
    """

    threshold: float
    signed: bool = False

    def raw(self, network: nn.Module, image: Tensor) -> Tensor:
        return cast(ClassifierCnn, network).logits(image)

    def loss(self, raw: Tensor, target: Tensor, count: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(raw, target, reduction="sum")

    def measure(self, raw: NDArray[np.float32], target: NDArray[np.float32]) -> Measured:
        logits, truth = raw[:, 0].astype(np.float64), target[:, 0] > 0.5
        loss = float(np.mean(np.logaddexp(0, logits) - truth * logits))
        positive = logits >= np.log(self.threshold / (1 - self.threshold))
        tp, fp = int((positive & truth).sum()), int((positive & ~truth).sum())
        fn, tn = int((~positive & truth).sum()), int((~positive & ~truth).sum())
        recall, precision = _ratio(tp, tp + fn), _ratio(tp, tp + fp)
        finite = bool(np.isfinite(logits).all())
        auroc = float(roc_auc_score(truth, logits)) if finite and 0 < truth.sum() < len(truth) else None
        # Undefined where nothing right was found, as in the published logs.
        f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
        row = {"val_loss": loss, "val_accuracy": (tp + tn) / len(truth), "tp": tp, "tn": tn, "fp": fp, "fn": fn}
        figures = {"val_recall": recall, "val_precision": precision, "val_f1_score": f1, "val_auroc": auroc}
        return Measured(loss, row | figures, [])


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class Regression:
    """Mean squared error over the batch and all outputs (docs/spec/cnn.md, sections 7 and 9).

    columns: of the targets. excluded: the one that has no part in choosing the best epoch.
    """

    columns: Sequence[str]
    excluded: str | None = None
    excluded_log_name: str = ""
    signed: bool = True

    def raw(self, network: nn.Module, image: Tensor) -> Tensor:
        output: Tensor = network(image)
        return output

    def loss(self, raw: Tensor, target: Tensor, count: int) -> Tensor:
        return (raw - target).square().sum() / (count * len(self.columns))

    def measure(self, raw: NDArray[np.float32], target: NDArray[np.float32]) -> Measured:
        output, wanted = raw.astype(np.float64), target.astype(np.float64)
        squares = np.square(output - wanted).mean(0)
        total = loss = float(squares.mean())
        row: dict[str, Any] = {"valid_loss": total}
        if self.excluded is not None:
            columns = len(self.columns)
            loss = float((columns * total - squares[list(self.columns).index(self.excluded)]) / (columns - 1))
            row[self.excluded_log_name] = loss
        correlations = [correlation(a, b) for a, b in zip(output.T, wanted.T, strict=True)]
        kinds = {"loss": squares.tolist(), "abs_diff": np.abs(output - wanted).mean(0).tolist(), "corr": correlations}
        for kind, values in kinds.items():
            row |= {f"{log_name(c)}_{kind}": value for c, value in zip(self.columns, values, strict=True)}
        return Measured(loss, row, [[round(float(v), 4) for v in line] for line in output[:VALIDATION_SHOWN]])


Objective = Classification | Regression


def log_name(column: str) -> str:
    """A score column as the logs call it: background_mean_score -> back_mean_score."""
    return column.replace("background_", "back_")


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Pearson's; None where one of them is constant or has fewer than two values."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    value = float(np.corrcoef(a, b)[0, 1])
    return value if np.isfinite(value) else None
