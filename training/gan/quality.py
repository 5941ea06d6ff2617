"""Figures for a generator: how far from the source's pictures, how varied, copied or not, and how near its targets.

The features come from the ImageNet EfficientNet-Lite0 of the train extra, so nothing is downloaded; the distances
are therefore not comparable with published FIDs, only with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ohlora.base.atomic import write_json
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.gan.config import GanConfig
from ohlora.training.gan.data import Source, to_images, to_tensor
from ohlora.training.gan.losses import FeatureNet, feature_distance, pyramid_l1
from ohlora.training.loop.streams import normal
from ohlora.training.nets.stylegan import Generator

Features = NDArray[np.float64]  # [N, D]

FEATURE_SIZE = 224  # pictures are scaled to what the network was trained on
BATCH = 32
NEIGHBORS = 5
COPIED = 0.01  # share of unseen real pictures that count as copies, by chance


@dataclass(frozen=True)
class Figures:
    """Of one generator against one source. Feature distances are Euclidean, in EfficientNet-Lite0 features.

    frechet: Frechet distance of Gaussians fitted to both feature clouds; frechet_floor: the same between two halves
        of real pictures, which a perfect generator reaches (both fall with more pictures).
    kernel: unbiased squared MMD with a cubic kernel (x 1000).
    precision, recall, coverage: generated inside the real cloud; real inside the generated one; real pictures with a
        generated one in their neighborhood. By NEIGHBORS-th neighbor balls.
    diversity, diversity_real: mean distance of two pictures.
    nearest_train, nearest_train_real: median distance to the nearest training picture, of generated and of unseen
        real pictures; copied: share of generated ones nearer than 1 % of the unseen real ones.
    psnr, target_l1, target_feature: against the targets of unseen latents; None without targets.
    """

    pictures: int
    frechet: float
    frechet_floor: float
    kernel: float
    precision: float
    recall: float
    coverage: float
    diversity: float
    diversity_real: float
    nearest_train: float
    nearest_train_real: float
    copied: float
    psnr: float | None = None
    target_l1: float | None = None
    target_feature: float | None = None

    @property
    def memorised(self) -> bool:
        """More than a tenth of the pictures are copies of training pictures, where one in a hundred is chance."""
        return self.copied > 0.1


@torch.no_grad()
def picture_features(images: Iterator[Rgb] | list[Rgb], net: FeatureNet, device: torch.device) -> Features:
    """Pooled last-stage features [N, 320] of batches of uint8 pictures [n,R,R,3]."""
    rows = []
    for batch in images:
        x = to_tensor(batch, device)
        x = F.interpolate(x, size=(FEATURE_SIZE, FEATURE_SIZE), mode="bilinear", align_corners=False)
        rows.append(net(x)[-1].mean((2, 3)).double().cpu().numpy())
    return np.concatenate(rows)


def frechet_distance(first: Features, second: Features, ridge: float = 1e-6) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the two clouds [N, D], [M, D]; ridge is added to both diagonals.

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise InvalidInputError(f"two clouds of 2 or more features are needed, got {first.shape} and {second.shape}")
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) + ridge * np.eye(x.shape[1]) for x in (first, second))
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c2 @ root), 0)).sum()
    shift = first.mean(0) - second.mean(0)
    return float(max(shift @ shift + np.trace(c1) + np.trace(c2) - 2 * cross, 0.0))


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3."""
    n, m, size = len(first), len(second), first.shape[1]
    xx, yy, xy = ((a @ b.T / size + 1) ** 3 for a, b in ((first, first), (second, second), (first, second)))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def distances(first: Features, second: Features) -> Features:
    """Euclidean [N, M]."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def neighborhoods(real: Features, generated: Features) -> tuple[float, float, float]:
    """(precision, recall, coverage) by balls out to each picture's NEIGHBORS-th neighbor among its own kind."""
    if min(len(real), len(generated)) <= NEIGHBORS:
        raise InvalidInputError(f"precision and recall need more than {NEIGHBORS} pictures of each kind")
    radius_real = np.sort(distances(real, real), axis=1)[:, NEIGHBORS]  # column 0 is the picture itself
    radius_generated = np.sort(distances(generated, generated), axis=1)[:, NEIGHBORS]
    across = distances(real, generated)
    precision = (across <= radius_real[:, None]).any(0).mean()
    recall = (across <= radius_generated[None]).any(1).mean()
    coverage = (across.min(1) <= radius_real).mean()
    return float(precision), float(recall), float(coverage)


def diversity(features: Features) -> float:
    """Mean distance of two different pictures."""
    n = len(features)
    return float(distances(features, features).sum() / (n * (n - 1)))


def copies(generated: Features, unseen: Features, training: Features) -> tuple[float, float, float]:
    """(median nearest-training distance of generated pictures, of unseen real ones, share of generated pictures that
    are nearer to a training picture than COPIED of the unseen real ones).
    """
    mine, theirs = distances(generated, training).min(1), distances(unseen, training).min(1)
    return float(np.median(mine)), float(np.median(theirs)), float((mine < np.quantile(theirs, COPIED)).mean())


def compare(generated: Features, unseen: Features, training: Features) -> Figures:
    """The figures that need features only. unseen: real pictures that were not trained on, training: that were.

    Where fewer pictures are unseen than the clouds need, training pictures join them (and the copies are only told by
    those unseen, NaN where there is none). Raises InvalidInputError when there are still too few.
    """
    few = 2 * NEIGHBORS + 2
    real = unseen if len(unseen) >= min(len(generated), 10 * few) else np.concatenate([unseen, training])
    if len(real) < few:
        raise InvalidInputError(f"{len(real)} real pictures are too few to measure a generator: {few} are needed")
    precision, recall, coverage = neighborhoods(real, generated)
    near, near_real, copied = copies(generated, unseen if len(unseen) > 1 else real, training)
    half = len(real) // 2
    return Figures(
        pictures=len(generated),
        frechet=frechet_distance(generated, real),
        frechet_floor=frechet_distance(real[:half], real[half:]),
        kernel=1000 * kernel_distance(generated, real),
        precision=precision,
        recall=recall,
        coverage=coverage,
        diversity=diversity(generated),
        diversity_real=diversity(real),
        nearest_train=near,
        nearest_train_real=near_real if len(unseen) > 1 else float("nan"),
        copied=copied if len(unseen) > 1 else float("nan"),
    )


@torch.no_grad()
def evaluate(
    generator: Generator,
    source: Source,
    *,
    count: int = 2048,
    seed: int = 0,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = lambda text: None,
) -> Figures:
    """Measure a generator (evaluation mode, no label) against a prepared source, with `count` pictures of each kind.

    With targets, pictures are generated from the unseen latents; otherwise from random ones. A folder has few pictures
    kept aside: see `compare`. Raises InvalidInputError when there are too few pictures to measure anything.
    """
    device, size = torch.device(device), generator.config.resolution
    net, generator = FeatureNet(5).to(device), generator.to(device).eval()
    z, unseen = source.unseen(count, size)
    latents = normal((seed, 5), count, generator.config.z_size) if z is None else z
    report(f"{len(latents)} pictures to generate and measure")
    inputs = (torch.from_numpy(latents[i : i + BATCH]).to(device) for i in range(0, len(latents), BATCH))
    generated = np.concatenate([to_images(generator(part, lod=0.0)) for part in inputs])
    order = np.random.default_rng((seed, 6)).permutation(source.count)[:count]
    batches = (source.images(order[i : i + BATCH], size) for i in range(0, len(order), BATCH))
    training = picture_features(batches, net, device)
    fakes = picture_features(_batches(generated), net, device)
    reals = picture_features(_batches(unseen), net, device) if len(unseen) else training[:0]
    figures = compare(fakes, reals, training)
    return figures if z is None else _against_targets(figures, generated, unseen, net, device)


def _batches(images: Rgb) -> Iterator[Rgb]:
    return (images[i : i + BATCH] for i in range(0, len(images), BATCH))


def _against_targets(figures: Figures, generated: Rgb, targets: Rgb, net: FeatureNet, device: torch.device) -> Figures:
    l1, feature = [], []
    for a, b in zip(_batches(generated), _batches(targets), strict=True):
        x, y = to_tensor(a, device), to_tensor(b, device)
        l1.append(float(pyramid_l1(x, y)))
        feature.append(float(feature_distance(net(x)[:4], net(y)[:4])))
    means = float(np.mean(l1)), float(np.mean(feature))
    return replace(figures, psnr=psnr(generated, targets), target_l1=means[0], target_feature=means[1])


def psnr(generated: Rgb, targets: Rgb) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB."""
    pairs = zip(_batches(generated), _batches(targets), strict=True)
    errors = np.concatenate([((a.astype(np.float64) - b) ** 2).mean((1, 2, 3)) for a, b in pairs])
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(errors, 1e-9))))


def measure(
    out: Path,
    config: GanConfig,
    source: Source,
    summary: dict[str, Any],
    *,
    count: int = 2048,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = lambda text: None,
) -> Figures:
    """Measure the generator of a finished run in `out` against its (prepared) source; writes report.json."""
    generator = checkpoints.load_as(Generator, "stylegan", out / "generator.safetensors")
    figures = evaluate(generator, source, count=count, seed=config.seed, device=device, report=report)
    write_report(out, summary, figures, asdict(config))
    return figures


def write_report(out: Path, summary: dict[str, Any], figures: Figures, config: dict[str, Any]) -> None:
    """report.json: the recipe, how the training went, the figures. NaN (not measurable) becomes null."""
    values = {key: None if value != value else value for key, value in asdict(figures).items()}
    rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in values.items()}
    content = {"config": config, "training": summary, "figures": rounded, "memorised": figures.memorised}
    write_json(out / "report.json", content)
