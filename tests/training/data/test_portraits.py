"""Procedural portraits: same latents same picture, truth that agrees with the picture, clear refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.training.data import portrait_faces, portraits
from ohlora.training.data.portraits import LATENTS, PARAMETERS, index, parameters_from_seeds, render
from ohlora.training.data.portraits.parameters import HIGH, LOW

SIZE = 64


def row(**changes: float) -> np.ndarray:
    """The middle portrait, front view with long hair, with some parameters changed."""
    values = portraits.parameters_from_latents(np.zeros((1, LATENTS)))
    for name, value in ({"hair_length": 0.85, "smile": 0.0} | changes).items():
        values[0, index(name)] = value
    return values


def area(parsing: np.ndarray, *classes: int) -> int:
    return int(np.isin(parsing, classes).sum())


def test_portrait_of_a_seed_is_that_of_the_seeds_latent() -> None:
    z = face_from_seed(5).z[None]
    np.testing.assert_array_equal(parameters_from_seeds([5]), portraits.parameters_from_latents(z))


def test_picture_depends_on_its_own_parameters_alone() -> None:
    together = render(parameters_from_seeds([1, 2, 3]), SIZE, threads=2)
    alone = render(parameters_from_seeds([2]), SIZE, threads=1)
    for name in ("images", "parsing", "hair"):
        np.testing.assert_array_equal(getattr(together, name)[1], getattr(alone, name)[0])


def test_pictures_stay_the_same() -> None:
    """A changed picture or map means new training data: then RENDERER, this and the models trained on it change.

    Stored are means over 8x8 fields of the pictures, and how many pixels each class and the hair take.
    """
    made = render(parameters_from_seeds(range(8)), 64)
    stored = json.loads(Path(__file__).with_name("painted_seeds.json").read_text(encoding="utf-8"))
    assert stored["renderer"] == portrait_faces.RENDERER
    fields = made.images.reshape(8, 8, 8, 8, 8, 3).mean((2, 4))
    np.testing.assert_allclose(fields, np.array(stored["fields"]), atol=0.2)
    np.testing.assert_allclose([np.bincount(m.ravel(), minlength=11) for m in made.parsing], stored["classes"], atol=1)
    np.testing.assert_allclose(made.hair.sum((1, 2)), stored["hair"], atol=0.5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=LATENTS, max_size=LATENTS), st.sampled_from([16, 33, 48]))
def test_every_latent_gives_a_sound_portrait(z: list[float], size: int) -> None:
    made = render(portraits.parameters_from_latents([z]), size)
    assert made.images.shape == (1, size, size, 3)
    assert made.images.dtype == np.uint8
    assert made.parsing.dtype == np.uint8
    assert made.parsing.max() <= 10
    assert np.isfinite(made.hair).all()
    assert made.hair.min() >= 0
    assert made.hair.max() <= 1
    # The class map and the soft map are two views of one thing.
    assert ((made.parsing == 10) == (made.hair >= 0.5)).mean() > 0.9  # they differ where three layers meet in a pixel


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(range(LATENTS)), st.floats(-8, 8), st.floats(0, 3))
def test_parameters_rise_with_their_latent_and_stay_in_range(i: int, z: float, more: float) -> None:
    low, high = (PARAMETERS[i].value(np.array([v]))[0] for v in (z, z + more))
    assert PARAMETERS[i].low <= low <= high <= PARAMETERS[i].high


def test_distributions_are_the_documented_ones() -> None:
    values = portraits.parameters_from_latents(np.random.default_rng(0).standard_normal((4000, LATENTS)))
    for i, parameter in enumerate(PARAMETERS):
        column = values[:, i]
        if parameter.kind == "even" and parameter.share == 1.0:
            assert abs(column.mean() - (parameter.low + parameter.high) / 2) < 0.03 * (parameter.high - parameter.low)
        elif parameter.kind == "normal":
            assert abs(column.mean() - parameter.mean) < 0.15 * parameter.spread
        else:
            assert abs((column > parameter.low).mean() - parameter.share) < 0.03


def test_truth_follows_the_parameters() -> None:
    def parsing(**changes: float) -> np.ndarray:
        return render(row(**changes), 128).parsing[0]

    assert area(parsing(eye_opening=1.1), 4, 5) > 1.5 * area(parsing(eye_opening=0.4), 4, 5) > 0
    assert area(parsing(eye_opening=0.0), 4, 5) == 0
    assert area(parsing(mouth_opening=0.9), 8) > 20
    assert area(parsing(mouth_opening=0.0), 8) == 0
    assert area(parsing(hair_length=0.0), 10) == 0
    lengths = [area(parsing(hair_length=value), 10) for value in (0.1, 0.4, 0.6, 0.95)]
    assert lengths == sorted(lengths)
    assert lengths[0] > 0
    # A positive tilt lowers the right of the picture, a positive turn shows the nose further right.
    rows = {k: np.argwhere(parsing(tilt=10.0) == k).mean(0) for k in (4, 5)}
    assert rows[5][0] > rows[4][0] + 2
    noses = [np.argwhere(parsing(turn=value) == 6)[:, 1].mean() for value in (-20.0, 0.0, 20.0)]
    assert noses[0] < noses[1] - 4
    assert noses[1] < noses[2] - 4
    everything = parsing(mouth_opening=0.8, smile=0.5)
    assert set(np.unique(everything)) == set(range(11))


def test_sizes_agree() -> None:
    """Any resolution shows the same person: the half-size mean of one is close to the other."""
    for seed in (0, 3, 9):
        fine = render(parameters_from_seeds([seed]), 128).images[0].astype(float)
        coarse = render(parameters_from_seeds([seed]), 64).images[0].astype(float)
        assert np.abs(fine.reshape(64, 2, 64, 2, 3).mean((1, 3)) - coarse).mean() < 4.0


def test_hair_edges_are_soft() -> None:
    hair = render(row(), 128).hair[0]
    assert 0.005 < ((hair > 0.02) & (hair < 0.98)).mean() < 0.2


def test_pictures_differ() -> None:
    images = render(parameters_from_seeds(range(12)), 32).images
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 12


@pytest.mark.parametrize("size", [8, 0, 4096])
def test_refuses_resolution(size: int) -> None:
    with pytest.raises(InvalidInputError, match="resolution must be in"):
        render(row(), size)


def test_refuses_impossible_parameters() -> None:
    with pytest.raises(InvalidInputError, match=r"portrait 0: turn must be in \[-28, 28\].*got 60"):
        render(row(turn=60.0), SIZE)
    with pytest.raises(InvalidInputError, match="smile"):
        render(row(smile=float("nan")), SIZE)
    with pytest.raises(InvalidInputError, match=rf"\[N, {LATENTS}\]"):
        render(np.zeros((1, 3)), SIZE)
    with pytest.raises(InvalidInputError, match=f"{LATENTS} or more"):
        portraits.parameters_from_latents(np.zeros((1, 3)))
    with pytest.raises(InvalidInputError, match="finite"):
        portraits.parameters_from_latents(np.full((1, LATENTS), np.inf))
    with pytest.raises(InvalidInputError, match=r"no portrait parameter is called 'beard'.*stubble"):
        index("beard")


def test_ranges_are_inclusive() -> None:
    render(np.stack([LOW, HIGH]), 16)
