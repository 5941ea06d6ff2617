"""States of the version before kept place and networks side by side: its run folders resume to the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ohlora.training.finetune.discriminator_start import DiscriminatorStart, train_discriminator
from ohlora.training.finetune.recipes import recipe
from ohlora.training.finetune.run import run_recipe
from ohlora.training.finetune.training import OLDER
from ohlora.training.loop.distributed import make_fabric
from tests.support import conditional_inputs, finetune_sets

NAMES = {new: old for old, new in OLDER.items()}


def cvae(folder: Path, out: Path, stop_after: int) -> None:
    settings = recipe("v3", batch_size=4, epochs=2, test_latents=1)
    inputs = conditional_inputs.inputs_in(folder)
    run_recipe(settings, inputs, out, fabric=make_fabric("cpu"), stop_after=stop_after)


def guided(folder: Path, out: Path, stop_after: int) -> None:
    settings = recipe("v2", batch_size=4, batches_per_epoch=3, epochs=2, train_scorer=True)
    inputs = conditional_inputs.inputs_in(folder)
    run_recipe(settings, inputs, out, fabric=make_fabric("cpu"), stop_after=stop_after)


def discriminator(folder: Path, out: Path, stop_after: int) -> None:
    settings, files = DiscriminatorStart(steps=6, batch_size=4, log_every=2), folder / "v1"
    arguments = (files / "generator.safetensors", files / "images", out, settings)
    train_discriminator(*arguments, fabric=make_fabric("cpu"), stop_after=stop_after)


def older_cvae(state: dict[str, Any]) -> dict[str, Any]:
    return {**state["at"], "nets": state["networks"]}


def older_guided(state: dict[str, Any]) -> dict[str, Any]:
    return {**{NAMES.get(name, name): value for name, value in state["at"].items()}, **state["networks"]}


def older_discriminator(state: dict[str, Any]) -> dict[str, Any]:
    return {"step": state["at"]["step"], "row": state["at"]["row"], "networks": state["networks"]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    conditional_inputs.make_inputs(folder)
    finetune_sets.make_inputs(folder / "v1", "v1")
    return folder


@pytest.mark.parametrize(
    ("train", "older"), [(cvae, older_cvae), (guided, older_guided), (discriminator, older_discriminator)]
)
def test_older_states_resume_to_the_same_weights(
    inputs: Path,
    tmp_path: Path,
    train: Callable[[Path, Path, int], None],
    older: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    train(inputs, tmp_path / "whole", 0)
    train(inputs, tmp_path / "parts", 4)
    for path in (tmp_path / "parts").glob("checkpoint-*.pt"):
        content = torch.load(path, weights_only=True)
        torch.save({**content, "state": older(content["state"])}, path)
    train(inputs, tmp_path / "parts", 0)
    files = list((tmp_path / "whole").glob("*.safetensors"))
    assert files
    for file in files:
        whole, parts = load_file(file), load_file(tmp_path / "parts" / file.name)
        assert all(torch.equal(value, parts[key]) for key, value in whole.items()), file.name
    for log in (tmp_path / "whole").glob("*.csv"):
        assert log.read_bytes() == (tmp_path / "parts" / log.name).read_bytes()
