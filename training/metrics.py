"""Segmentation figures over a test set (spec: segmentation, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-8


@dataclass
class HairMetrics:
    """Pooled and per-face figures; both sides binarised at >= 0.5."""

    counts: list[tuple[int, int, int]] = field(default_factory=list)  # tp, fp, fn of each face
    squared: float = 0.0
    pixels: int = 0

    def add(self, predicted: NDArray[np.float32], label: NDArray[np.float32]) -> None:
        """One face: probabilities and soft labels of one shape."""
        p, q = predicted >= 0.5, label >= 0.5
        self.counts.append((int((p & q).sum()), int((p & ~q).sum()), int((~p & q).sum())))
        self.squared += float(np.square(predicted.astype(np.float64) - label).sum())
        self.pixels += predicted.size

    def per_face_iou(self) -> NDArray[np.float64]:
        counts = np.array(self.counts, dtype=np.float64)
        return counts[:, 0] / (counts.sum(1) + EPSILON)

    def summary(self) -> dict[str, float]:
        """iou, dice, recall, precision (pooled), mse (true, per pixel), iou_face_mean, iou_face_min, faces."""
        tp, fp, fn = np.array(self.counts, dtype=np.float64).sum(0)
        faces = self.per_face_iou()
        figures = {
            "iou": tp / (tp + fp + fn + EPSILON),
            "dice": 2 * tp / (2 * tp + fp + fn + EPSILON),
            "recall": tp / (tp + fn + EPSILON),
            "precision": tp / (tp + fp + EPSILON),
            "mse": self.squared / self.pixels,
            "iou_face_mean": float(faces.mean()),
            "iou_face_min": float(faces.min()),
            "faces": float(len(faces)),
        }
        return {name: float(value) for name, value in figures.items()}
