"""The training loop: phases, resuming to the same weights, stopping on signals and on losses that are not finite."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training import checkpoints
from ohlora.training.gan.config import Phase, time_shares
from ohlora.training.gan.loop import Watch, run
from ohlora.training.loop.logs import read_rows
from ohlora.training.loop.steps import TrainingStoppedError
from tests.support.gan_pictures import tiny_recipe, wave_source, waves
from tests.support.long_runs import terminated

STEPS = 14  # of the tiny recipe: 6 + 8


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load("stylegan", path).state_dict()


def assert_same(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=0, atol=1e-6, msg=key)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    result = run(tiny_recipe(), out, wave_source(), accelerator="cpu", watch=Watch(log_every=2))
    assert result["steps"] == STEPS
    assert not result["stopped"]
    return out


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    config = checkpoints.load("stylegan", whole / "generator.safetensors").config  # type: ignore[union-attr]
    assert config.resolution == 16  # type: ignore[union-attr]
    coarse = checkpoints.load("stylegan", whole / "phase-1-8.safetensors")
    assert coarse(torch.randn(2, 512), lod=0.0).shape == (2, 3, 8, 8)
    assert len(list(whole.glob("checkpoint-*.pt"))) == 2
    assert not list(whole.glob(".ohlora-tmp-*"))
    assert np.load(whole / "readout.npy").shape == (6, 24)
    assert (whole / "curve.png").is_file()
    assert len(list((whole / "samples").glob("*.png"))) == 3  # one per phase, and the latest
    rows = [row for row in read_rows(whole / "curve.jsonl") if "pixel" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12, 14]
    assert {"generator", "discriminator", "penalty", "readout"} <= rows[-1].keys()
    assert "discriminator" not in rows[0]


def test_w_avg_is_the_mean_w(whole: Path) -> None:
    net = checkpoints.load("stylegan", whole / "generator.safetensors")
    with torch.no_grad():
        mean = net.mapping(torch.randn(20_000, 512)).mean(0)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(net.w_avg, mean, atol=0.06, rtol=0)


@pytest.mark.parametrize("stops", [(3,), (6,), (9, 2)])
def test_resumed_run_ends_with_the_same_weights(whole: Path, tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Stopped within the first phase, at its end, and twice while fading in."""
    for stop in stops:
        result = run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(stop_after=stop))
        assert result["stopped"]
    result = run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(log_every=2))
    assert not result["stopped"]
    assert result["steps"] == STEPS
    assert_same(tmp_path / "generator.safetensors", whole / "generator.safetensors")


def test_a_half_written_row_is_dropped_and_not_glued_to_the_next(tmp_path: Path) -> None:
    run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(log_every=1, stop_after=3))
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 4, "images"')
    run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(log_every=1, stop_after=2))
    rows = (tmp_path / "curve.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows if "pixel" in row] == [1, 2, 3, 4, 5]


def test_finished_run_is_not_trained_again(whole: Path) -> None:
    before = weights(whole / "generator.safetensors")
    result = run(tiny_recipe(), whole, wave_source(), accelerator="cpu")
    assert result["steps"] == STEPS
    for key, value in weights(whole / "generator.safetensors").items():
        assert torch.equal(value, before[key])


def test_another_recipe_or_source_is_refused(whole: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"other config .r1_gamma was 10.0, now 5.0."):
        run(tiny_recipe(r1_gamma=5.0), whole, wave_source(), accelerator="cpu")
    other = wave_source()
    other.renderer = lambda z, resolution: 255 - waves(z, resolution)
    with pytest.raises(InvalidInputError, match=r"other source .renderer"):
        run(tiny_recipe(), whole, other, accelerator="cpu")


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(stop_after=2))
    run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu", watch=Watch(stop_after=2))
    newest = sorted(tmp_path.glob("checkpoint-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(InvalidInputError, match=f"cannot resume from .*{newest.name}.*the one before"):
        run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu")
    newest.unlink()
    assert run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu")["steps"] == STEPS


class Poisoned:
    """A source whose latents turn to NaN from some step on."""

    def __init__(self, good_steps: int) -> None:
        self.inner, self.left = wave_source(), good_steps + 1  # the loop asks once before the clock starts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def z(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        self.left -= 1
        z = self.inner.z(indices)
        return z if self.left >= 0 else np.full_like(z, np.nan)


def test_loss_that_is_not_finite_stops_and_keeps_good_weights(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    run(tiny_recipe(), good, wave_source(), accelerator="cpu", watch=Watch(stop_after=4))
    with pytest.raises(TrainingStoppedError) as caught:
        run(tiny_recipe(), bad, Poisoned(4), accelerator="cpu")  # type: ignore[arg-type]
    message = str(caught.value)
    assert "step 4" in message
    assert "'pixel' is nan" in message
    assert str(bad / "generator.safetensors") in message
    assert isinstance(caught.value, OhloraError)
    assert_same(bad / "generator.safetensors", good / "generator.safetensors")


def test_gradient_that_is_not_finite_is_not_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ohlora.training.gan import steps

    def endless(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        difference = (image - target).float().abs().mean()
        return difference + torch.sqrt(difference * 0)  # value finite, derivative not

    monkeypatch.setattr(steps, "pyramid_l1", endless)
    with pytest.raises(TrainingStoppedError, match="gradients of the generator have norm nan"):
        run(tiny_recipe(), tmp_path, wave_source(), accelerator="cpu")
    for value in weights(tmp_path / "generator.safetensors").values():
        assert bool(torch.isfinite(value).all())


def test_terminated_process_saves_and_resumes(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.support.gan_pictures import train_for_a_signal as t; "
        f"t(Path({str(tmp_path)!r}))"
    )
    assert terminated(code, lambda: len(read_rows(tmp_path / "curve.jsonl")) >= 3) == 0
    step = json.loads((tmp_path / "summary.json").read_text())["steps"]
    assert (tmp_path / f"checkpoint-{step:08d}.pt").is_file()
    recipe = tiny_recipe(phases=(Phase(8, 40.0, 4, pixel=1.0, adversarial=0.5),))
    result = run(recipe, tmp_path, wave_source(), accelerator="cpu", watch=Watch(stop_after=2))
    assert result["steps"] == step + 2
    whole = tmp_path / "whole"
    if step < 200:
        run(recipe, whole, wave_source(), accelerator="cpu", watch=Watch(stop_after=step + 2))
        assert_same(tmp_path / "generator.safetensors", whole / "generator.safetensors")


def test_time_limit_is_shared_out(tmp_path: Path) -> None:
    """0.6 s and 1.8 s for the phases, although they ask for a million pictures."""
    base = tiny_recipe()
    phases = tuple(replace(p, kimg=1000.0, share=s) for p, s in zip(base.phases, (1.0, 3.0), strict=True))
    assert time_shares(replace(base, phases=phases)) == (0.25, 0.75)
    started = time.monotonic()
    result = run(replace(base, phases=phases), tmp_path, wave_source(), accelerator="cpu", time_limit=0.04)
    assert not result["stopped"]
    assert 1.0 < result["train_seconds"] < 20
    assert time.monotonic() - started < 60
    rows = read_rows(tmp_path / "curve.jsonl")
    assert {row["phase"] for row in rows if "phase" in row} <= {1, 2}


def test_start_from_a_generator(whole: Path, tmp_path: Path) -> None:
    """Zero learning would be needed for equality: a tiny rate comes close to it."""
    path = whole / "generator.safetensors"
    recipe = tiny_recipe(
        phases=(Phase(16, 0.004, 4, pixel=1.0, learning_rate=1e-9),), start_from=str(path), random_noise=False
    )
    run(recipe, tmp_path, wave_source(), accelerator="cpu")
    for key, value in weights(tmp_path / "generator.safetensors").items():
        if key != "w_avg":
            torch.testing.assert_close(value, weights(path)[key], atol=1e-5, rtol=1e-5, msg=key)
    with pytest.raises(InvalidInputError, match="no generator"):
        run(tiny_recipe(start_from="nowhere.safetensors"), tmp_path / "b", wave_source(), accelerator="cpu")
