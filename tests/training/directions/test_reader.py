"""The portrait reader: learns what is painted, survives a file, refuses what it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.data import portraits
from ohlora.training.directions import reader as reader_module
from ohlora.training.directions.reader import (
    READ,
    Reader,
    load_reader,
    sample_parameters,
    save_reader,
    train_reader,
)
from ohlora.training.directions.recipes import ReaderConfig


def paint_bars(parameters: np.ndarray, resolution: int) -> np.ndarray:
    """Stand-in for portraits that a mirror treats alike: two heights, a slope and a shift to the side."""
    y, x = np.mgrid[0:resolution, 0:resolution] / (resolution - 1) * 2 - 1
    images = np.full((len(parameters), resolution, resolution, 3), 30, np.uint8)
    for image, row in zip(images, parameters, strict=True):
        eyes, mouth, tilt, turn = (row[portraits.index(name)] for name in READ)
        image[np.abs(y + 0.5 - 0.03 * tilt * x) < 0.05 + 0.2 * eyes, 0] = 200
        image[np.abs(y - 0.5) < 0.05 + 0.4 * mouth, 1] = 200
        image[np.abs(x - turn / 35) < 0.2, 2] = 200
    return images


def test_it_learns_and_survives_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "paint_portraits", paint_bars)
    rows: list[dict[str, float]] = []
    config = ReaderConfig(size=32, width=6, pictures=700, held_out=80, epochs=3, batch_size=32, learning_rate=5e-3)
    reader, figures = train_reader(config, report=rows.append)
    assert [row["epoch"] for row in rows] == list(range(1, 4))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert min(figures["r2"].values()) > 0.6
    save_reader(tmp_path / "r.safetensors", reader)
    back = load_reader(tmp_path / "r.safetensors")
    images = paint_bars(sample_parameters(3, 9), 32)
    assert np.array_equal(back.read(images), reader.read(images))
    mirrored = back.read(images[:, :, ::-1])
    for name in ("tilt", "turn"):
        column, spread = READ.index(name), float(back.spread[READ.index(name)])
        assert np.abs(mirrored[:, column] + back.read(images)[:, column]).max() < 1.2 * spread


def test_values_are_in_the_parameters_units() -> None:
    reader = Reader(size=32, width=4).eval()
    reader.mean.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    reader.spread.fill_(0.0)
    assert np.array_equal(reader.read(np.zeros((2, 48, 48, 3), np.uint8)), [[1, 2, 3, 4]] * 2)
    assert reader.read(np.zeros((0, 48, 48, 3), np.uint8)).shape == (0, 4)


def test_training_people_are_nobodys_seed() -> None:
    some = sample_parameters(50, 0)
    assert np.array_equal(some, sample_parameters(50, 0))
    seeds = portraits.parameters_from_seeds(np.arange(50))
    assert not (some[:, None] == seeds[None]).all(2).any()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 32, 30, 3), np.uint8), ((2, 32, 32, 1), np.uint8), ((2, 32, 32, 3), np.float32)]
)
def test_wrong_pictures(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(InvalidInputError, match="the reader takes uint8"):
        Reader(size=32, width=4).read(np.zeros(shape, dtype))


def test_wrong_settings_and_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"size must be at least 32 and a multiple of 32, got 100"):
        ReaderConfig(size=100)
    with pytest.raises(InvalidInputError, match=r"epochs must be at least 1, got 0"):
        ReaderConfig(epochs=0)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_reader(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"format": "other"})
    with pytest.raises(CheckpointError, match="no portrait reader"):
        load_reader(tmp_path / "other.safetensors")
    metadata = {"format": "ohlora-portrait-reader-1", "size": "32", "width": "4", "names": '["tilt"]'}
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="no valid portrait reader"):
        load_reader(tmp_path / "wrong.safetensors")
