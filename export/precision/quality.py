"""How far an engine's results are from the exact ones: pictures by PSNR, SSIM and deep features, hair maps by IoU.

Means and worst cases both: a preset promises something of every picture, not of the average one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ohlora.export.networks.compare import Figures
from ohlora.training.gan.data import to_tensor
from ohlora.training.gan.losses import FeatureNet, unit

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]

EQUAL_DB = 100.0  # of equal pictures, whose PSNR is infinite
CHUNK = 16  # pictures whose features are taken at once
FEATURE_STAGES = 4
HAIR = 0.5
LITTLE_HAIR = 0.05  # share of the pixels; below, the edge is most of the hair


def psnr(exact: Images, made: Images) -> NDArray[np.float64]:
    """Per picture, dB: [N]."""
    difference = exact.astype(np.float32) - made.astype(np.float32)
    error = np.square(difference).mean(axis=tuple(range(1, exact.ndim)), dtype=np.float64)
    return np.where(error > 0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)), EQUAL_DB)


def picture_quality(exact: Images, made: Images) -> Figures:
    """exact, made: uint8 [N,R,R,3] of the same faces. Levels are grey levels; PSNR in dB; SSIM in [-1, 1].

    feature: squared distance of unit feature vectors of an ImageNet network, averaged over places and levels, 0 .. 4
        (like LPIPS without its learned weights); 0 is equal.
    """
    decibels = psnr(exact, made)
    ssim, features = (np.concatenate(parts) for parts in zip(*_compared(exact, made), strict=True))
    levels = np.abs(exact.astype(np.int16) - made)
    return {
        "pictures": len(exact),
        "max_levels": int(levels.max()),
        "mean_levels": float(levels.mean()),
        "psnr_mean": float(decibels.mean()),
        "psnr_worst": float(decibels.min()),
        "ssim_mean": float(ssim.mean()),
        "ssim_worst": float(ssim.min()),
        "feature_mean": float(features.mean()),
        "feature_worst": float(features.max()),
    }


@torch.no_grad()
def _compared(exact: Images, made: Images) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(SSIM, feature distance) of each picture, chunk by chunk."""
    net = _feature_net()
    for start in range(0, len(exact), CHUNK):
        first, second = (to_tensor(x[start : start + CHUNK], torch.device("cpu")) for x in (exact, made))
        ssim = cast(Tensor, structural_similarity_index_measure(second, first, data_range=2.0, reduction="none"))
        apart = [(unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(net(first), net(second), strict=True)]
        yield ssim.reshape(-1).numpy(), torch.stack(apart).mean(0).numpy()


@cache
def _feature_net() -> FeatureNet:
    return FeatureNet(FEATURE_STAGES).eval()


def mask_quality(exact: Maps, made: Maps) -> Figures:
    """exact, made: float32 [N,h,w] in [0,1], hair maps of the same pictures, cut at 0.5.

    iou: over all pixels of all maps together; iou_worst: of the maps with hair on at least 5 % of their pixels. Errors
    are of the probability.
    """
    a, b = exact >= HAIR, made >= HAIR
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    enough = a.mean((1, 2)) >= LITTLE_HAIR
    each = both[enough] / np.maximum(either[enough], 1)
    error = np.abs(exact - made)
    return {
        "maps": len(exact),
        "iou": float(both.sum() / max(int(either.sum()), 1)) if either.sum() else 1.0,
        "iou_worst": float(each.min()) if len(each) else 1.0,
        "max_error": float(error.max()),
        "mean_error": float(error.mean()),
    }


def shown(quality: Figures) -> str:
    """What matters of either, in words."""
    if "iou" in quality:
        iou, worst, error = (quality[name] for name in ("iou", "iou_worst", "max_error"))
        return f"IoU {iou:.4f} (worst {worst:.4f}), at most {error:.4f}"
    mean, worst, ssim, levels = (quality[name] for name in ("psnr_mean", "psnr_worst", "ssim_mean", "max_levels"))
    return f"{mean:.1f} dB (worst {worst:.1f}), SSIM {ssim:.4f}, at most {levels} levels"
