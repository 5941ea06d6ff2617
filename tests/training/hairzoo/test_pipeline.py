"""The picture pipeline: reproducible, and picture and mask always move together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from ohlora.training.hairzoo import distort, pipeline  # noqa: E402 - needs torch
from ohlora.training.hairzoo.celeb import celeb_data  # noqa: E402
from ohlora.training.hairzoo.config import ZooConfig  # noqa: E402
from tests.support import hairzoo_sets  # noqa: E402

CONFIG = ZooConfig(image_size=64, batch_size=4)
Move = Callable[[pipeline.Rgb, pipeline.Mask, np.random.Generator], distort.Pair]
MOVES: list[Move] = [distort.elastic, distort.grid, distort.optical, distort.shift_scale_rotate]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(33, 97), width=st.integers(33, 97))
def test_picture_and_mask_move_alike(move: Move, seed: int, height: int, width: int) -> None:
    """The mask shown as a picture comes out as the mask does: black where that is 0, white where it is 255.

    In between are the pixels on its edge, which the picture blends and the mask decides.
    """
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 4, height // 3), 20, 0, 360, 255, -1)
    image, moved = move(np.repeat(mask[..., None], 3, 2), mask, np.random.default_rng(seed))
    assert image.shape == (height, width, 3)
    assert image.dtype == moved.dtype == np.uint8
    assert set(np.unique(moved)) <= {0, 255}
    assert not moved[image[..., 0] == 0].any()
    assert (moved[image[..., 0] == 255] == 255).all()
    assert np.isin(image[..., 0], (0, 255)).mean() > 0.5


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_every_move_moves(move: Move) -> None:
    image, mask = hairzoo_sets.blob(1)
    changed = [move(image, mask, np.random.default_rng(seed))[1] for seed in range(3)]
    assert not np.array_equal(changed[0], mask)
    assert not np.array_equal(changed[0], changed[1])


def test_displacements_keep_their_look_at_other_sizes() -> None:
    """The lengths of the elastic step are given for 512 pixels; half the size moves half the pixels."""

    def displacement(size: int) -> float:
        ramp = np.tile(np.linspace(0, 255, size)[None, :, None], (size, 1, 3)).astype(np.uint8)
        moved, _ = distort.elastic(ramp, ramp[..., 0], np.random.default_rng(3))
        inner = slice(size // 4, -size // 4)
        return float(np.abs(moved.astype(float) - ramp)[inner, inner].mean())

    assert displacement(128) == pytest.approx(displacement(512), rel=0.5)


def test_stretched_rows_cover_the_side() -> None:
    same = distort.stretched(100, np.ones(6))
    np.testing.assert_allclose(same, np.repeat(np.arange(5) * 20, 20) + np.tile(np.linspace(0, 20, 20), 5), atol=1e-4)
    odd = distort.stretched(103, np.full(6, 0.8))
    assert (np.diff(odd) >= 0).all()
    assert odd[-1] == 103  # the rest that does not divide ends at the edge


def test_dropout_blackens_a_grid_and_leaves_the_mask() -> None:
    image, mask = np.full((40, 40, 3), 200, np.uint8), np.full((40, 40), 255, np.uint8)
    dropped, same = distort.grid_dropout(image, mask, np.random.default_rng(0))
    assert same is mask
    assert (image == 200).all()
    assert (dropped[:2, :2] == 0).all()
    assert (dropped[2:4, :] == 200).all()
    assert (dropped == 0).mean() == 0.25


@pytest.mark.parametrize("color", pipeline.COLORS, ids=("contrast", "gamma", "brightness"))
def test_color_steps_stay_within_a_fifth(color: Callable[[np.random.Generator], NDArray[np.floating]]) -> None:
    """They must never blacken a picture, as the published program's do."""
    image = np.full((8, 8, 3), 128, np.uint8)
    for seed in range(20):
        changed = pipeline.looked_up(image, color(np.random.default_rng(seed)))
        assert changed.dtype == np.uint8
        assert 75 <= changed.mean() <= 181


def test_steps_come_as_often_as_documented() -> None:
    image, mask = hairzoo_sets.blob(0, 128)  # large enough for every step to show
    changed = np.zeros(2)
    for seed in range(400):
        new_image, new_mask = pipeline.augment(image, mask, np.random.default_rng(seed))
        changed += not np.array_equal(new_image, image), not np.array_equal(new_mask, mask)
    # Masks: 1 - .7 * .8; pictures: 1 - .7 * .7 * .8 * .9. Three standard deviations of 400 draws are .075.
    assert changed / 400 == pytest.approx([1 - 0.7 * 0.7 * 0.8 * 0.9, 1 - 0.7 * 0.8], abs=0.08)


def test_normalisation_is_imagenets() -> None:
    values = pipeline.normalised(np.array([[[0, 255, 128]]], np.uint8))
    np.testing.assert_allclose(values[:, 0, 0], [-0.485 / 0.229, 0.544 / 0.224, (128 / 255 - 0.406) / 0.225], rtol=1e-5)


def test_batches_are_a_function_of_seed_epoch_and_item(tmp_path: Path) -> None:
    data = celeb_data(hairzoo_sets.celeb(tmp_path, 11))
    train = np.arange(1, 11)

    def drawn(epoch: int | None, workers: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(workers)  # must not matter
        return [(a, b) for a, b in pipeline.batches(data.pictures, train, CONFIG, epoch, workers)]

    first, again, workers, second = drawn(0), drawn(0), drawn(0, 1), drawn(1)
    assert [len(image) for image, _ in first] == [4, 4]  # the incomplete batch is dropped
    for other in (again, workers):
        assert all(torch.equal(a[k], b[k]) for a, b in zip(first, other, strict=True) for k in (0, 1))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    held = drawn(None)
    assert [len(image) for image, _ in held] == [4, 4, 2]
    image, label = held[0]
    assert image.shape == (4, 3, 64, 64)
    assert label.shape == (4, 1, 64, 64)
    assert set(label.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(label[0, 0].numpy() * 255, hairzoo_sets.blob(1)[1])


def test_drawing_batches_leaves_the_networks_randomness_alone(tmp_path: Path) -> None:
    data = celeb_data(hairzoo_sets.celeb(tmp_path, 6))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(pipeline.batches(data.pictures, np.arange(6), CONFIG, 0))
    assert torch.equal(torch.rand(1), expected)


def test_other_sizes_are_resized(tmp_path: Path) -> None:
    data = celeb_data(hairzoo_sets.celeb(tmp_path, 6))
    image, label = next(iter(pipeline.batches(data.pictures, np.arange(2), ZooConfig(image_size=96), None)))
    assert image.shape[-2:] == label.shape[-2:] == (96, 96)
    assert set(label.unique().tolist()) == {0.0, 1.0}
