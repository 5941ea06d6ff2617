"""Quality figures against closed forms and against collapses, copies and shifts made on purpose."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError
from ohlora.training.gan.quality import (
    Figures,
    compare,
    copies,
    diversity,
    evaluate,
    frechet_distance,
    kernel_distance,
    neighborhoods,
    write_report,
)
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from tests.support.gan_pictures import wave_source


def exact_cloud(mean: np.ndarray, root: np.ndarray, count: int = 400, seed: int = 0) -> np.ndarray:
    """Points whose sample mean and covariance are exactly `mean` and root @ root.T."""
    x = np.random.default_rng(seed).standard_normal((count, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ root.T + mean


def test_frechet_distance_of_two_gaussians() -> None:
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    m1, m2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    s1, s2 = np.array([1.0, 2.0, 0.5]), np.array([2.0, 0.5, 0.5])
    value = frechet_distance(exact_cloud(m1, np.diag(s1)), exact_cloud(m2, np.diag(s2), seed=1), ridge=0.0)
    assert value == pytest.approx(5 + ((s1 - s2) ** 2).sum(), rel=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    first, second = exact_cloud(np.zeros(4), a), exact_cloud(np.zeros(4), b, seed=3)
    expected = np.trace(a @ a.T) + np.trace(b @ b.T) - 2 * np.trace(sqrtm(a @ a.T @ b @ b.T).real)
    assert frechet_distance(first, second, ridge=0.0) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_with_fewer_pictures_than_features() -> None:
    rng = np.random.default_rng(4)
    few = rng.standard_normal((10, 50))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InvalidInputError, match="2 or more"):
        frechet_distance(few[:1], few)


def test_kernel_distance_is_unbiased_and_sees_shifts() -> None:
    rng = np.random.default_rng(5)
    values = [kernel_distance(rng.standard_normal((60, 8)), rng.standard_normal((60, 8))) for _ in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(30)
    assert kernel_distance(rng.standard_normal((60, 8)), rng.standard_normal((60, 8)) + 1) > 10 * np.std(values)


def test_collapse_and_strangers_are_told_apart() -> None:
    rng = np.random.default_rng(6)
    real, good = rng.standard_normal((300, 4)), rng.standard_normal((300, 4))
    precision, recall, coverage = neighborhoods(real, good)
    assert min(precision, recall, coverage) > 0.8
    collapsed = 0.05 * rng.standard_normal((300, 4))  # all alike, all plausible
    precision, recall, coverage = neighborhoods(real, collapsed)
    assert precision > 0.9
    assert recall < 0.1
    assert coverage < 0.3
    assert neighborhoods(real, good + 10)[0] == 0
    assert diversity(collapsed) < 0.1 * diversity(real)


def test_copied_pictures_are_flagged() -> None:
    rng = np.random.default_rng(7)
    training, unseen, fresh = (rng.standard_normal((400, 6)) for _ in range(3))
    honest = compare(fresh, unseen, training)
    assert honest.copied < 0.05
    assert not honest.memorised
    thief = fresh.copy()
    thief[:80] = training[:80] + 1e-4 * rng.standard_normal((80, 6))  # a fifth of the pictures
    assert copies(thief, unseen, training)[2] == pytest.approx(0.2, abs=0.05)
    assert compare(thief, unseen, training).memorised


def test_diversity_of_two_points() -> None:
    assert diversity(np.array([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5.0)


def test_evaluation_of_a_generator(tmp_path: Path) -> None:
    """An untrained generator is far from the source; the report can be read back."""
    source = wave_source(24)
    source.prepare(tmp_path, 16, lambda done, count: None)
    torch.manual_seed(0)
    net = Generator(GeneratorConfig(resolution=16, w_size=16, mapping_layers=2, channel_base=64, channel_max=8))
    figures = evaluate(net, source, count=20)
    assert figures.pictures == 20
    assert figures.frechet > 2 * figures.frechet_floor
    assert figures.psnr is not None
    assert 3 < figures.psnr < 20
    assert figures.target_feature is not None
    write_report(tmp_path, {"steps": 3}, Figures(**{**asdict(figures), "copied": float("nan")}), {"seed": 1})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["figures"]["psnr"] == pytest.approx(figures.psnr, abs=1e-4)
    assert report["figures"]["copied"] is None
    assert report["training"] == {"steps": 3}
