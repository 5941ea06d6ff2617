"""Distillation losses and segmentation figures over a test set (docs/spec/segmentation.md, section 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-8
LOG_LIMIT = 100.0
PUBLISHED_SHARE = 0.25  # the published column "MSE" is a quarter of the error per pixel


def mse(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of (p - q)^2, p = sigmoid(logits)."""
    return F.mse_loss(torch.sigmoid(logits), label, reduction="sum")


def soft_bce(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of -(q log p + (1-q) log(1-p)), logs clamped at -100 as documented: log p is the logit itself down there."""
    return F.binary_cross_entropy_with_logits(logits.clamp(-LOG_LIMIT, LOG_LIMIT), label, reduction="sum")


def kl(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of q (log q - log p), 0 where q = 0. Has no (1-q) term: p = 1 everywhere minimises it (documented)."""
    return F.kl_div(F.logsigmoid(logits), label, reduction="sum")


# Over soft labels [B,1,S,S]; all are sums over batch and pixels.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"soft_bce": soft_bce, "mse": mse, "kl": kl}


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, and 1 where both are empty: who has no hair and is given none is found perfectly."""
    return np.where(whole > 0, part / (whole + EPSILON), 1.0)


@dataclass
class HairMetrics:
    """Pooled and per-face figures; both sides binarised at >= 0.5. An empty map against an empty label counts 1."""

    counts: list[tuple[int, int, int]] = field(default_factory=list)  # tp, fp, fn of each face
    sizes: list[int] = field(default_factory=list)  # pixels of each face
    squared: float = 0.0

    def add(self, predicted: NDArray[np.float32], label: NDArray[np.float32]) -> None:
        """One face: probabilities and soft labels of one shape."""
        p, q = predicted >= 0.5, label >= 0.5
        self.counts.append((int((p & q).sum()), int((p & ~q).sum()), int((~p & q).sum())))
        self.sizes.append(predicted.size)
        self.squared += float(np.square(predicted.astype(np.float64) - label).sum())

    def per_face_iou(self) -> NDArray[np.float64]:
        counts = np.array(self.counts, dtype=np.float64)
        return ratio(counts[:, 0], counts.sum(1))

    def summary(self) -> dict[str, float]:
        """iou, dice, recall, precision (pooled), mse (true, per pixel), mse_published (what the published table would
        show), iou_face_mean, iou_face_min, faces.

        Where faces without hair are among them, also: faces_without_hair, marked_without_hair (share of their pixels
        that was taken for hair; one pixel makes their IoU 0) and iou_hairy_face_min (the worst of the others).
        """
        counts = np.array(self.counts, dtype=np.float64)
        tp, fp, fn = counts.sum(0)
        faces = self.per_face_iou()
        nothing = tp + fp + fn == 0  # no hair and none found: perfect, as for a face
        pooled = {
            "iou": (tp, tp + fp + fn),
            "dice": (2 * tp, 2 * tp + fp + fn),
            "recall": (tp, tp + fn),
            "precision": (tp, tp + fp),
        }
        figures = {
            **{name: 1.0 if nothing else part / (whole + EPSILON) for name, (part, whole) in pooled.items()},
            "mse": self.squared / sum(self.sizes),
            "mse_published": PUBLISHED_SHARE * self.squared / sum(self.sizes),
            "iou_face_mean": faces.mean(),
            "iou_face_min": faces.min(),
            "faces": len(faces),
        }
        bald = counts[:, 0] + counts[:, 2] == 0
        if bald.any():
            figures["faces_without_hair"] = bald.sum()
            figures["marked_without_hair"] = counts[bald, 1].sum() / np.array(self.sizes)[bald].sum()
            figures["iou_hairy_face_min"] = faces[~bald].min() if not bald.all() else 1.0
        return {name: float(value) for name, value in figures.items()}
