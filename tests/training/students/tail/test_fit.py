"""Fitting a tail: nearer to the network than where it starts, the same every time, refused below its floor."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError, OhloraError, OutputError
from ohlora.training.nets.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from ohlora.training.nets.mobilestylegan_tail import Tail
from ohlora.training.students.tail.fit import counted_pixels, examples_folder, fit_tail, rate_factor
from ohlora.training.students.tail.recipe import TAILS, TailRecipe, tail_recipe
from ohlora.training.weights.random_face import from_arrays
from tests.support.random_faces import SMALL, small_state

RECIPE = TailRecipe(32, faces=6, steps=60, floor=0.0, held_out=4, crop=12, margin=4, rate=0.02, warmup=5)


@pytest.fixture
def generator() -> MobileStyleGAN:
    module = from_arrays(small_state(), MobileStyleGANConfig(SMALL, SMALL.resolution)).eval()
    module.w_avg.copy_(torch.linspace(-1, 1, SMALL.w_size))
    return module


def test_learns_and_repeats(generator: MobileStyleGAN, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    seen: list[tuple[str, int, int]] = []
    torch.manual_seed(1)
    first = fit_tail(generator, RECIPE, tmp_path, progress=lambda *facts: seen.append(facts))
    figures = first.figures
    assert figures["psnr_db"] > figures["psnr_start_db"] + 0.5
    assert figures["psnr_min_db"] <= figures["psnr_db"]
    assert figures["psnr_psi0.7_db"] != figures["psnr_psi1_db"]
    assert np.mean([figures["psnr_psi0.7_db"], figures["psnr_psi1_db"]]) == pytest.approx(figures["psnr_db"])
    assert (figures["exact"], figures["size"], figures["faces"]) == (False, 32, 6)
    assert figures["losses"][-1] < figures["losses"][0]
    assert (seen[0], seen[9], seen[10], seen[-1]) == (
        ("faces", 1, 10), ("faces", 10, 10), ("steps", 1, 60), ("steps", 60, 60),
    )  # fmt: skip
    # Nothing is left on the disk, the generator is as it was, and so is the caller's random stream.
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(1))
    again = fit_tail(generator, RECIPE, tmp_path).tail.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.tail.state_dict().items())
    other = fit_tail(generator, replace(RECIPE, seed=5), tmp_path).tail.state_dict()
    assert not torch.equal(other["head.weight"], again["head.weight"])


def test_affines_and_noise_stay(generator: MobileStyleGAN, tmp_path: Path) -> None:
    start = Tail.started(generator.synthesis, RECIPE.cut).state_dict()
    fitted = fit_tail(generator, RECIPE, tmp_path).tail
    changed = {name for name, value in fitted.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {name for name, _ in fitted.fitted()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"floor": 90.0}, r"dB from the network's images, allowed are 90 dB or more"), ({"rate": 1e9}, "not a number")],
)
def test_refused(generator: MobileStyleGAN, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OhloraError, match=f"{message}.*nothing was installed"):
        fit_tail(generator, replace(RECIPE, clip_norm=1e9, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_folder_of_examples_at_a_time(tmp_path: Path) -> None:
    (tmp_path / ".tail-examples-old").mkdir()
    (tmp_path / ".tail-examples-old" / "features.f16").write_bytes(b"of a killed process")
    with examples_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert not (tmp_path / ".tail-examples-old").exists()
        with pytest.raises(InvalidInputError, match="another ohlora process"), examples_folder(tmp_path):
            pass
    assert not folder.exists()


def test_no_room_for_the_examples(generator: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="the disk is full"):
        fit_tail(generator, RECIPE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_recipes() -> None:
    assert {size: recipe.floor for size, recipe in TAILS.items()} == {128: 29.0, 256: 32.0, 512: 35.0}
    assert all(recipe.seed == 77 and recipe.cut == size // 2 for size, recipe in TAILS.items())
    with pytest.raises(InvalidInputError, match="no tail for 64 pixels: --size must be 128, 256 or 512"):
        tail_recipe(64)
    with pytest.raises(InvalidInputError, match="leaves nothing"):
        replace(RECIPE, margin=12)
    with pytest.raises(InvalidInputError, match="steps must be at least 1, got 0"):
        replace(RECIPE, steps=0)


def test_pixels_count_at_the_border_of_the_image() -> None:
    """A crop of 12 feature pixels of 16: 24 image pixels, 4 of them left out where the image goes on."""
    counts = counted_pixels(np.array([[0, 2], [4, 4], [0, 0]]), 12, RECIPE)
    assert counts.shape == (3, 1, 24, 24)
    rows, columns = counts.amax(3)[:, 0], counts.amax(2)[:, 0]
    assert [int(row.argmax()) for row in rows] == [0, 4, 0]
    assert [int(row.sum()) for row in rows] == [20, 20, 20]
    assert [int(column.sum()) for column in columns] == [16, 20, 20]


def test_rate() -> None:
    factors = [rate_factor(step, RECIPE) for step in range(RECIPE.steps)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[5] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[5:]))
    assert 0 < factors[-1] < 0.01
