"""The mapping is taught what a picture shows: features beside the latents, which stay linear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.training.data import portraits
from ohlora.training.gan.config import Phase
from ohlora.training.gan.data import PortraitSource
from ohlora.training.gan.loop import run
from ohlora.training.gan.mapping_fit import feature_rows, make_linear, readout_matrix, teach
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from tests.support.gan_pictures import tiny_recipe, wave_source, waves

LATENTS, WIDTH = 4, 48


def taught(steps: int) -> tuple[Generator, torch.Tensor, dict[str, float]]:
    generator = Generator(GeneratorConfig(resolution=8, z_size=16, w_size=WIDTH, mapping_layers=4, channel_max=8))
    readout = readout_matrix(LATENTS, WIDTH, seed=1)
    make_linear(generator.mapping, readout)
    z = torch.randn(4096, 16, generator=torch.Generator().manual_seed(2))
    u = generator.mapping.normalized(z)[:, :LATENTS]
    features = torch.stack([torch.cos(2 * u[:, 0]), u[:, 1].abs(), u[:, 2] * u[:, 3], torch.ones(4096)], 1)
    return generator, readout, teach(generator.mapping, readout, z, features, steps=steps, batch_size=256, rate=3e-3)


def test_rows_of_features_are_orthogonal_to_the_readout() -> None:
    readout = readout_matrix(LATENTS, WIDTH, seed=1)
    rows = feature_rows(readout, 7, seed=3)
    torch.testing.assert_close(rows @ readout.T, torch.zeros(7, LATENTS), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows @ rows.T, torch.eye(7) / readout[0].norm() ** 2, atol=1e-4, rtol=1e-4)
    with pytest.raises(InvalidInputError, match="do not fit into w"):
        feature_rows(readout, WIDTH, seed=3)


def test_before_the_first_step_the_latents_are_exact_and_the_features_absent() -> None:
    _, _, fit = taught(steps=0)
    assert fit["r2_latents"] > 0.9999
    assert fit["r2_features"] < 0.05
    assert fit["features"] == 3  # a constant is nothing to learn


def test_features_are_learned_and_the_latents_stay() -> None:
    generator, _, fit = taught(steps=400)
    assert fit["r2_features"] > 0.9
    assert fit["r2_latents"] > 0.99
    # Latents that decide nothing still do nothing, but for the common length of z.
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(5))
    other = torch.cat([z[:, :LATENTS], z[:, LATENTS:].flip(1)], 1)
    torch.testing.assert_close(generator.mapping(z), generator.mapping(other), atol=1e-4, rtol=1e-4)


def test_scene_numbers_describe_the_portrait() -> None:
    parameters = portraits.parameters_from_seeds(range(6))
    numbers = portraits.scene_numbers(parameters)
    assert numbers.dtype == np.float32
    assert numbers.shape[0] == 6
    assert np.isfinite(numbers).all()
    np.testing.assert_array_equal(numbers[3], portraits.scene_numbers(parameters[3:4])[0])
    changed = parameters[3:4].copy()
    changed[0, portraits.index("background_hue")] = (changed[0, portraits.index("background_hue")] + 0.5) % 1.0
    assert 3 <= (portraits.scene_numbers(changed)[0] != numbers[3]).sum() <= 6  # two colours of three numbers


def test_training_begins_with_teaching(tmp_path: Path) -> None:
    def features(z: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.cos(2 * z[:, :2])

    events: list[dict[str, Any]] = []
    source = PortraitSource(400, first_seed=1000, renderer=waves, features=features, latents=6)
    recipe = tiny_recipe(mapping_layers=4, w_size=32, teach_steps=200, phases=(Phase(8, 0.008, 4, pixel=1.0),))
    run(recipe, tmp_path, source, accelerator="cpu", report=events.append)
    (fit,) = [event for event in events if event["event"] == "taught"]
    assert fit["features"] == 2
    assert fit["r2_latents"] > 0.9
    assert fit["r2_features"] > 0.1


def test_a_source_without_numbers_cannot_teach(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="teach_steps needs a source that knows numbers"):
        run(tiny_recipe(teach_steps=5), tmp_path / "out", wave_source(), accelerator="cpu")
    assert not (tmp_path / "out").exists()
