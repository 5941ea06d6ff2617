"""How far an engine's results are from the exact ones: pictures by PSNR, SSIM and deep features, hair maps by IoU.

Means and worst cases both: a preset promises something of every picture, not of the average one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from ohlora.training.gan.data import to_tensor
from ohlora.training.gan.losses import FeatureNet, unit

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]

EQUAL_DB = 100.0  # of equal pictures, whose PSNR is infinite
CHUNK = 16  # pictures whose features are taken at once
FEATURE_STAGES = 4
HAIR = 0.5
LITTLE_HAIR = 0.05  # share of the pixels; below, the edge is most of the hair


@dataclass(frozen=True)
class PictureQuality:
    """Of N pictures against the exact ones. Levels are grey levels of uint8; PSNR in dB, per picture; SSIM in [-1, 1].

    feature: squared distance of unit feature vectors of an ImageNet network, averaged over places and levels, 0 .. 4
        (like LPIPS without its learned weights); 0 is equal.
    """

    pictures: int
    max_levels: int
    mean_levels: float
    psnr_mean: float
    psnr_worst: float
    ssim_mean: float
    ssim_worst: float
    feature_mean: float
    feature_worst: float

    def to_json(self) -> dict[str, float | int]:
        return {name: round(value, 5) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class MaskQuality:
    """Of N hair maps against the exact ones, cut at 0.5. iou: over all pixels of all maps together.

    iou_worst: of the maps with hair on at least 5 % of their pixels. Errors are of the probability.
    """

    maps: int
    iou: float
    iou_worst: float
    max_error: float
    mean_error: float

    def to_json(self) -> dict[str, float | int]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


def psnr(exact: Images, made: Images) -> NDArray[np.float64]:
    """Per picture, dB: [N]."""
    difference = exact.astype(np.float32) - made.astype(np.float32)
    error = np.square(difference).mean(axis=tuple(range(1, exact.ndim)), dtype=np.float64)
    return np.where(error > 0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)), EQUAL_DB)


def picture_quality(exact: Images, made: Images) -> PictureQuality:
    """exact, made: uint8 [N,R,R,3] of the same faces."""
    decibels = psnr(exact, made)
    ssim, features = (np.concatenate(parts) for parts in zip(*_compared(exact, made), strict=True))
    levels = np.abs(exact.astype(np.int16) - made)
    return PictureQuality(
        pictures=len(exact),
        max_levels=int(levels.max()),
        mean_levels=float(levels.mean()),
        psnr_mean=float(decibels.mean()),
        psnr_worst=float(decibels.min()),
        ssim_mean=float(ssim.mean()),
        ssim_worst=float(ssim.min()),
        feature_mean=float(features.mean()),
        feature_worst=float(features.max()),
    )


@torch.no_grad()
def _compared(exact: Images, made: Images) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(SSIM, feature distance) of each picture, chunk by chunk."""
    net = _feature_net()
    for start in range(0, len(exact), CHUNK):
        first, second = (to_tensor(x[start : start + CHUNK], torch.device("cpu")) for x in (exact, made))
        ssim = structural_similarity_index_measure(second, first, data_range=2.0, reduction="none")
        assert isinstance(ssim, torch.Tensor)
        apart = [(unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(net(first), net(second), strict=True)]
        yield ssim.reshape(-1).numpy(), torch.stack(apart).mean(0).numpy()


@cache
def _feature_net() -> FeatureNet:
    return FeatureNet(FEATURE_STAGES).eval()


def mask_quality(exact: Maps, made: Maps) -> MaskQuality:
    """exact, made: float32 [N,h,w] in [0,1] of the same pictures."""
    a, b = exact >= HAIR, made >= HAIR
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    enough = a.mean((1, 2)) >= LITTLE_HAIR
    each = both[enough] / np.maximum(either[enough], 1)
    error = np.abs(exact - made)
    return MaskQuality(
        maps=len(exact),
        iou=float(both.sum() / max(int(either.sum()), 1)) if either.sum() else 1.0,
        iou_worst=float(each.min()) if len(each) else 1.0,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
    )
