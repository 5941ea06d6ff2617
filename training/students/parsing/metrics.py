"""How well a face is parsed: intersection over union and F1 of every class, pooled and by face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ohlora.training.data.parsing_classes import NAMES11


def overlaps(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confusion [C,C] (truth, found) -> IoU and F1 of each class, NaN for classes that are in neither."""
    hit = np.diag(confusion).astype(np.float64)
    truth, found = confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        return hit / (truth + found - hit), 2 * hit / (truth + found)


@dataclass
class ParsingMetrics:
    """Counts pixels of each face by (true class, found class)."""

    names: Sequence[str] = NAMES11
    counts: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """One face: class ids of one shape."""
        size = len(self.names)
        pairs = truth.astype(np.int64).ravel() * size + found.ravel()
        self.counts.append(np.bincount(pairs, minlength=size * size).reshape(size, size))

    def per_face_iou(self) -> NDArray[np.float64]:
        """Of each face, the mean over the classes that are in its map or were found."""
        return np.array([np.nanmean(overlaps(confusion)[0]) for confusion in self.counts])

    def summary(self) -> dict[str, float]:
        """iou and f1 (means over classes, pooled over pictures), accuracy, iou_face_mean, iou_face_min, faces, then
        iou_NAME and f1_NAME of every class that occurs.
        """
        pooled = np.sum(self.counts, axis=0)
        iou, f1 = overlaps(pooled)
        faces = self.per_face_iou()
        figures = {
            "iou": np.nanmean(iou),
            "f1": np.nanmean(f1),
            "accuracy": np.trace(pooled) / pooled.sum(),
            "iou_face_mean": faces.mean(),
            "iou_face_min": faces.min(),
            "faces": len(faces),
        }
        for kind, values in (("iou", iou), ("f1", f1)):
            figures |= {f"{kind}_{name}": v for name, v in zip(self.names, values, strict=True) if not np.isnan(v)}
        return {name: float(value) for name, value in figures.items()}
