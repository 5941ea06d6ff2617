"""Training pictures: the store on disk, order of batches, sources, recipes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.training.gan.config import PRESETS, GanConfig, Phase, at_resolution, parse_phases, preset, scaled
from ohlora.training.gan.data import FolderSource, PortraitSource, batch_indices, to_images, to_tensor
from ohlora.training.gan.store import ImageStore, area_mean
from tests.support.gan_pictures import LATENTS, wave_source, waves


def numbered(first: int, end: int) -> np.ndarray:
    """Picture i is filled with i."""
    return np.repeat(np.arange(first, end, dtype=np.uint8), 8 * 8 * 3).reshape(-1, 8, 8, 3)


def test_store_resumes_after_a_kill(tmp_path: Path) -> None:
    made: list[int] = []

    def make(first: int, end: int) -> np.ndarray:
        if first >= 20 and not made:
            raise KeyboardInterrupt
        return numbered(first, end)

    store = ImageStore(tmp_path, {"of": "numbers"}, 35, 8, chunk=10)
    with pytest.raises(KeyboardInterrupt):
        store.fill(make)
    (tmp_path / ".ohlora-tmp-0123.npy").write_bytes(b"half")  # what a killed write leaves
    damaged = tmp_path / "chunk-00001.npy"
    damaged.write_bytes(damaged.read_bytes()[:300])
    made.append(1)
    again = ImageStore(tmp_path, {"of": "numbers"}, 35, 8, chunk=10)
    assert again.fill(make) == 25  # not the first ten
    assert not list(tmp_path.glob(".ohlora-tmp-*"))
    order = np.array([34, 0, 17, 9, 10])
    assert again.gather(order)[:, 0, 0, 0].tolist() == order.tolist()


def test_store_grows_and_refuses_strangers(tmp_path: Path) -> None:
    ImageStore(tmp_path, {"of": "numbers"}, 15, 8, chunk=10).fill(numbered)
    store = ImageStore(tmp_path, {"of": "numbers"}, 25, 8, chunk=10)
    assert store.fill(numbered) == 15  # the short chunk is made anew, as part of a longer one
    assert store.gather(np.array([24]))[0, 0, 0, 0] == 24
    with pytest.raises(InvalidInputError, match=r"other training pictures .of: 'numbers', now 'letters'."):
        ImageStore(tmp_path, {"of": "letters"}, 25, 8, chunk=10)
    with pytest.raises(InvalidInputError, match=r"other training pictures .resolution"):
        ImageStore(tmp_path, {"of": "numbers"}, 25, 16, chunk=10)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"manifest.json is damaged"):
        ImageStore(tmp_path, {"of": "numbers"}, 25, 8, chunk=10)


def test_finer_store_serves_smaller_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    ImageStore(tmp_path, {}, 7, 16, chunk=3).fill(lambda a, b: pictures[a:b])
    store = ImageStore(tmp_path, {}, 7, 8, chunk=3)
    assert store.resolution == 16
    assert store.fill(lambda a, b: pictures[a:b]) == 0
    small = store.gather(np.array([6, 2]), 4)
    exact = pictures[[6, 2]].reshape(2, 4, 4, 4, 4, 3).astype(float).mean((2, 4))
    assert np.abs(small - exact).max() <= 0.5
    assert np.array_equal(store.gather(np.array([1])), pictures[1:2])
    with pytest.raises(InvalidInputError, match="cannot give 32"):
        store.gather(np.array([0]), 32)


def test_area_mean_rounds_half_up() -> None:
    block = np.zeros((1, 2, 2, 3), np.uint8)
    block[0, 0, :, :] = 1
    assert area_mean(block, 1).ravel().tolist() == [1, 1, 1]


def test_every_round_shows_every_picture_once() -> None:
    rounds = np.concatenate([batch_indices(10, 4, step, seed=3) for step in range(5)])
    assert sorted(rounds[:10]) == list(range(10))
    assert sorted(rounds[10:20]) == list(range(10))
    assert rounds[:10].tolist() != rounds[10:].tolist()
    assert len(batch_indices(3, 8, 1, seed=3)) == 8


def test_portraits_belong_to_their_latents(tmp_path: Path) -> None:
    source = wave_source(20)
    source.prepare(tmp_path, 16, lambda done, count: None)
    indices = np.array([3, 19])
    z = source.z(indices)
    assert np.array_equal(z[1], face_from_seed(1019).z)
    assert np.array_equal(source.images(indices, 16), waves(z, 16))
    unseen, pictures = source.unseen(5, 8)
    assert np.array_equal(unseen[2], face_from_seed(2).z)  # far from the seeds trained on
    assert np.array_equal(pictures, area_mean(waves(unseen, 16), 8))


def test_renderer_is_part_of_the_identity(tmp_path: Path) -> None:
    source = wave_source()
    other = PortraitSource(40, 1000, renderer=lambda z, r: waves(z, r) // 2, latents=LATENTS)
    assert source.identity() != other.identity()
    source.prepare(tmp_path, 8, lambda done, count: None)
    with pytest.raises(InvalidInputError, match=r"other training pictures .renderer"):
        other.prepare(tmp_path, 8, lambda done, count: None)


def test_folder_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for i in range(41):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), rng.integers(0, 256, (20 + i % 3, 30, 3), dtype=np.uint8))
    source = FolderSource([tmp_path])
    source.prepare(tmp_path / "store", 16, lambda done, count: None)
    assert source.count == 39  # two of 41 are kept for judging
    assert source.images(np.arange(39), 8).shape == (39, 8, 8, 3)
    assert source.z(np.arange(2)) is None
    assert source.unseen(10, 16)[1].shape == (2, 16, 16, 3)
    with pytest.raises(InvalidInputError, match="training needs at least 4"):
        FolderSource([tmp_path / "000.png"])


def test_pixels_survive_the_way_to_tensors_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(every, torch.device("cpu"))
    assert float(tensor.min()) == -1
    assert float(tensor.max()) == 1
    assert np.array_equal(to_images(tensor), every)


def test_presets_fit_their_sources() -> None:
    assert PRESETS["portraits"].linear_latents == -1
    assert all(phase.regresses for phase in PRESETS["portraits"].phases)
    assert PRESETS["stylegan"].source == "folder"
    small = at_resolution(preset("portraits"), 64)
    assert [phase.resolution for phase in small.phases] == [32, 64]
    assert sum(phase.kimg for phase in scaled(small, kimg=10).phases) == pytest.approx(10)
    assert {phase.batch_size for phase in scaled(small, batch_size=3).phases} == {3}


def test_phases_in_words() -> None:
    phases = parse_phases("8:1.5,16:2:pixel=1:batch_size=6")
    assert phases[0] == Phase(8, 1.5, adversarial=1.0)
    assert phases[1] == Phase(16, 2, batch_size=6, pixel=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8", "not understood"),
        ("8:1:speed=3", "unknown setting 'speed'"),
        ("12:1", "power of two"),
        ("8:1.2.3", "kimg must be a number"),
    ],
)
def test_bad_phases(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        parse_phases(text)


def test_impossible_recipes() -> None:
    phase = Phase(8, 1, 6, adversarial=1)
    with pytest.raises(InvalidInputError, match="groups of 4"):
        GanConfig((phase,), group=4)
    with pytest.raises(InvalidInputError, match="must not fall"):
        GanConfig((Phase(16, 1, pixel=1), Phase(8, 1, pixel=1)))
    with pytest.raises(InvalidInputError, match="target per latent"):
        GanConfig((Phase(8, 1, pixel=1),), source="folder")
    with pytest.raises(InvalidInputError, match="'swirl'"):
        GanConfig((phase,), group=2, augment=("swirl",))
    with pytest.raises(InvalidInputError, match="one of the loss weights must be more than 0"):
        Phase(8, 1)
    with pytest.raises(InvalidInputError, match="phases at 32, 64, 128, 256"):
        at_resolution(preset("portraits"), 512)
