"""Named faces: varied, within limits, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.bundle.gallery import GalleryEntry, read_gallery, write_gallery
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.training.data import portraits
from ohlora.training.directions.gallery import (
    COUNT,
    LIMITS,
    NAMES,
    choose_seeds,
    farthest_points,
    make_gallery,
    visible_traits,
)

CANDIDATES = 800


@pytest.fixture(scope="module")
def seeds() -> list[int]:
    return choose_seeds(12, candidates=CANDIDATES)


def normals(seeds: list[int]) -> np.ndarray:
    return np.stack([face_from_seed(seed).z[: portraits.LATENTS] for seed in seeds])


def test_choice_is_distinct_repeatable_and_within_limits(seeds: list[int]) -> None:
    assert len(set(seeds)) == 12
    assert choose_seeds(12, candidates=CANDIDATES) == seeds
    assert choose_seeds(5, candidates=CANDIDATES) == seeds[:5]
    for name, (low, high) in LIMITS.items():
        column = normals(seeds)[:, portraits.index(name)]
        assert column.min() >= low
        assert column.max() <= high


def test_chosen_faces_differ_more_than_the_first_ones(seeds: list[int]) -> None:
    def nearest(chosen: list[int]) -> float:
        points = visible_traits(normals(chosen))
        distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(len(points), np.inf))
        return float(distances.min())

    others = [nearest(list(range(start, start + 12))) for start in range(0, 240, 12)]
    assert nearest(seeds) > max(others)
    assert nearest(seeds) > 1.3 * np.mean(others)
    values = portraits.parameters_from_latents(normals(seeds))
    assert 0 < values[:, portraits.index("glasses")].sum() < 12
    assert np.ptp(values[:, portraits.index("skin_tone")]) > 0.7
    assert values[:, portraits.index("hair_length")].min() > 0.03, "a bald face has no hair to dye"


def test_farthest_points() -> None:
    points = np.array([[0.0], [5.0], [5.1], [10.0], [7.4]])
    assert farthest_points(points, 3) == [1, 0, 3] or farthest_points(points, 3) == [2, 0, 3]
    assert sorted(farthest_points(points, 5)) == [0, 1, 2, 3, 4]


def test_names_can_be_file_names_and_are_enough() -> None:
    assert len(NAMES) >= COUNT
    assert len(set(NAMES)) == len(NAMES)
    assert all(name.isascii() and name.isalpha() for name in NAMES)


def test_gallery_comes_back_to_the_last_bit(seeds: list[int], tmp_path: Path) -> None:
    entries = make_gallery(seeds)
    write_gallery(tmp_path / "gallery.csv", entries)
    back = read_gallery(tmp_path / "gallery.csv", 512, 0, ["all"])
    assert [entry.name for entry in back] == list(NAMES[:12])
    for entry, seed in zip(back, seeds, strict=True):
        assert entry.group is None
        assert np.array_equal(entry.z, face_from_seed(seed).z)
    extreme = GalleryEntry("x", "g", np.float32([1e-30, -3.4e38, 1 / 3]), np.float32([16777217]))
    write_gallery(tmp_path / "extreme.csv", [extreme])
    (again,) = read_gallery(tmp_path / "extreme.csv", 3, 1)
    assert np.array_equal(again.z, extreme.z)
    assert np.array_equal(again.label, extreme.label)
    assert again.group == "g"


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="24 faces cannot be chosen from 10"):
        choose_seeds(24, candidates=10)
    monkeypatch.setitem(LIMITS, "turn", (8.0, 9.0))
    with pytest.raises(InvalidInputError, match="keep the gallery's limits, 5 are wanted"):
        choose_seeds(5, candidates=50)
    with pytest.raises(InvalidInputError, match="as many different names"):
        make_gallery(range(100))
