"""Figures for a generator: how far from the source's pictures, how varied, copied or not, and how near its targets.

The features come from the ImageNet EfficientNet-Lite0 of the train extra, so nothing is downloaded; the distances
are therefore not comparable with published FIDs, only with each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.gan.config import GanConfig
from ohlora.training.gan.data import Source, to_images, to_tensor
from ohlora.training.gan.losses import FeatureNet, feature_distance, pyramid_l1
from ohlora.training.nets.stylegan import Generator

Features = NDArray[np.float64]  # [N, D]

FEATURE_SIZE = 224  # pictures are scaled to what the network was trained on
BATCH = 32
NEIGHBOURS = 5
COPIED = 0.01  # share of unseen real pictures that count as copies, by chance


@dataclass(frozen=True)
class Figures:
    """Of one generator against one source. Feature distances are Euclidean, in EfficientNet-Lite0 features.

    frechet: Frechet distance of Gaussians fitted to both feature clouds; frechet_floor: the same between two halves
        of real pictures, which a perfect generator reaches (both fall with more pictures).
    kernel: unbiased squared MMD with a cubic kernel (x 1000).
    precision, recall, coverage: generated inside the real cloud; real inside the generated one; real pictures with a
        generated one in their neighbourhood. By NEIGHBOURS-th neighbour balls.
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
    return np.sqrt(np.maximum(squares, 0))


def neighbourhoods(real: Features, generated: Features, k: int = NEIGHBOURS) -> tuple[float, float, float]:
    """(precision, recall, coverage) by balls out to each picture's k-th neighbour among its own kind."""
    if min(len(real), len(generated)) <= k:
        raise InvalidInputError(f"precision and recall need more than {k} pictures of each kind")
    radius_real = np.sort(distances(real, real), axis=1)[:, k]  # column 0 is the picture itself
    radius_generated = np.sort(distances(generated, generated), axis=1)[:, k]
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
    """The figures that need features only. unseen: real pictures that were not trained on, training: that were."""
    precision, recall, coverage = neighbourhoods(unseen, generated)
    near, near_real, copied = copies(generated, unseen, training)
    half = len(unseen) // 2
    return Figures(
        pictures=len(generated),
        frechet=frechet_distance(generated, unseen),
        frechet_floor=frechet_distance(unseen[:half], unseen[half:]),
        kernel=1000 * kernel_distance(generated, unseen),
        precision=precision,
        recall=recall,
        coverage=coverage,
        diversity=diversity(generated),
        diversity_real=diversity(unseen),
        nearest_train=near,
        nearest_train_real=near_real,
        copied=copied,
    )


@torch.no_grad()
def evaluate(
    generator: Generator,
    source: Source,
    *,
    count: int = 2048,
    seed: int = 0,
    device: torch.device | str = "cpu",
    net: FeatureNet | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Figures:
    """Measure a generator (evaluation mode, no label) against a prepared source, with `count` pictures of each kind.

    With targets, pictures are generated from the unseen latents; otherwise from random ones. A folder has few pictures
    kept aside: the real ones are then filled up with training pictures (and the copies are only told by those kept).
    Raises InvalidInputError when there are too few pictures to measure anything.
    """
    device = torch.device(device)
    size = generator.config.resolution
    net = (net or FeatureNet(5)).to(device)
    generator = generator.to(device).eval()
    z, unseen = source.unseen(count, size)
    paired = z is not None
    if z is None:
        z = np.random.default_rng((seed, 5)).standard_normal((count, generator.config.z_size)).astype(np.float32)
    report(f"{len(z)} pictures to generate and measure")
    generated = np.concatenate([
        to_images(generator(torch.from_numpy(z[i : i + BATCH]).to(device), lod=0.0)) for i in range(0, len(z), BATCH)
    ])  # fmt: skip
    order = np.random.default_rng((seed, 6)).permutation(source.count)[:count]
    training = picture_features(_training_batches(source, order, size), net, device)
    fakes = picture_features(_batches(generated), net, device)
    reals = picture_features(_batches(unseen), net, device) if len(unseen) else training[:0]
    figures = _compare_kept(fakes, reals, training)
    if not paired:
        return figures
    return Figures(**{**asdict(figures), **_against_targets(generated, unseen, net, device)})


def _compare_kept(fakes: Features, kept: Features, training: Features) -> Figures:
    """As `compare`; where fewer real pictures were kept aside than the clouds need, training pictures join them."""
    few = 2 * NEIGHBOURS + 2
    if len(kept) >= min(len(fakes), 10 * few):
        return compare(fakes, kept, training)
    real = np.concatenate([kept, training])
    if len(real) < few:
        raise InvalidInputError(f"{len(real)} real pictures are too few to measure a generator: {few} are needed")
    whole = compare(fakes, real, training)
    if len(kept) < 2:
        return Figures(**{**asdict(whole), "nearest_train_real": float("nan"), "copied": float("nan")})
    near, near_real, copied = copies(fakes, kept, training)
    return Figures(**{**asdict(whole), "nearest_train": near, "nearest_train_real": near_real, "copied": copied})


def _batches(images: Rgb) -> Iterator[Rgb]:
    return (images[i : i + BATCH] for i in range(0, len(images), BATCH))


def _training_batches(source: Source, order: NDArray[np.int64], size: int) -> Iterator[Rgb]:
    return (source.images(order[i : i + BATCH], size) for i in range(0, len(order), BATCH))


def _against_targets(generated: Rgb, targets: Rgb, net: FeatureNet, device: torch.device) -> dict[str, float]:
    psnr, l1, feature = [], [], []
    for a, b in zip(_batches(generated), _batches(targets), strict=True):
        error = ((a.astype(np.float64) - b) ** 2).mean((1, 2, 3))
        psnr.extend(10 * np.log10(255.0**2 / np.maximum(error, 1e-9)))
        x, y = to_tensor(a, device), to_tensor(b, device)
        l1.append(float(pyramid_l1(x, y)))
        feature.append(float(feature_distance(net(x)[:4], net(y)[:4])))
    return {"psnr": float(np.mean(psnr)), "target_l1": float(np.mean(l1)), "target_feature": float(np.mean(feature))}


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
    generator = checkpoints.load("stylegan", out / "generator.safetensors")
    assert isinstance(generator, Generator)
    figures = evaluate(generator, source, count=count, seed=config.seed, device=device, report=report)
    write_report(out, summary, figures, asdict(config))
    return figures


def write_report(out: Path, summary: dict[str, Any], figures: Figures, config: dict[str, Any]) -> None:
    """report.json: the recipe, how the training went, the figures. NaN (not measurable) becomes null."""
    values = {key: None if value != value else value for key, value in asdict(figures).items()}
    content = {
        "config": config,
        "training": summary,
        "figures": {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()},
        "memorised": figures.memorised,
    }
    write_bytes(out / "report.json", (json.dumps(content, indent=1) + "\n").encode())
