"""How much else of a picture changes: distance of deep features, as a share of that between two people.

ImageNet features (EfficientNet-Lite0 of the train extra, last stage, pooled): no network that was trained to recognise
people can be had here, so this says "looks different", not "is somebody else". 0: same picture; 1: as different as two
faces of the generator are on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.base.values import PROPERTIES
from ohlora.training.gan.losses import FeatureNet
from ohlora.training.gan.quality import distances, picture_features

PEOPLE = 48  # faces whose mean distance is 1


class IdentityMeter:
    """people: pictures [N,R,R,3] of different faces of the generator."""

    def __init__(self, people: Rgb) -> None:
        self.net = FeatureNet(stages=5)
        between = distances(*[self._features(people)] * 2)
        self.unit = float(between.sum() / (len(people) * (len(people) - 1)))

    def _features(self, images: Rgb) -> NDArray[np.float64]:
        return picture_features([images], self.net, torch.device("cpu"))

    def change(self, original: Rgb, edited: Rgb) -> NDArray[np.float64]:
        """original [R,R,3], edited [N,R,R,3] -> distance of each, as a share of that of two people; [N]."""
        features = self._features(np.concatenate([original[None], edited]))
        return np.asarray(distances(features[:1], features[1:])[0] / max(self.unit, 1e-12))


def lone_strengths(strengths: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """[6,3]: smallest and largest strength of eyes, mouth and pose, each alone."""
    rows = np.zeros((2 * len(PROPERTIES), len(PROPERTIES)))
    for i, values in enumerate(strengths):
        rows[2 * i : 2 * i + 2, i] = min(values), max(values)
    return rows
