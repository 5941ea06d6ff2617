"""FineTune-v2: what moves, warm-up of latents and labels, which columns count, stopping and resuming."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import FineTuneInputs, load_generator
from ohlora.training.finetune.recipes import PROPERTIES, Recipe, recipe
from ohlora.training.finetune.run import run_recipe
from ohlora.training.finetune.score_guided import GuidedTraining, shown_labels, warm_share
from ohlora.training.finetune.scored import scored_loss
from ohlora.training.finetune.transfer import published_names
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.steps import TrainingStoppedError
from ohlora.training.nets.stylegan import Generator
from tests.support.conditional_inputs import SMALL, make_inputs

FIRST_DENSE = "mapping.dense0.weight"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FineTuneInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def small(**changes: Any) -> Recipe:
    return recipe("v2", **{"batch_size": 4, "batches_per_epoch": 3, "epochs": 2, "log_every": 1, **changes})


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def opened(settings: Recipe, inputs: FineTuneInputs, out: Path) -> GuidedTraining:
    return GuidedTraining(settings, inputs, RunFolder(out, {}, make_fabric("cpu")), lambda event: None)


def states(run: GuidedTraining) -> dict[str, torch.Tensor]:
    parts = {"generator": run.generator, "property": run.property_cnn}
    return {f"{name}.{k}": v.clone() for name, part in parts.items() for k, v in part.state_dict().items()}


def moved(run: GuidedTraining) -> set[str]:
    before = states(run)
    run.batch()
    return {key for key, value in states(run).items() if not torch.equal(value, before[key])}


def test_step_moves_the_whole_generator_and_leaves_the_scorer(inputs: FineTuneInputs, tmp_path: Path) -> None:
    changed = moved(opened(small(), inputs, tmp_path))
    run = opened(small(), inputs, tmp_path)
    last = len(run.generator.synthesis.to_rgb) - 1
    dead = {f"synthesis.to_rgb.{k}" for k in range(last)}  # pictures of coarser levels, not drawn
    wanted = {f"generator.{name}" for name, _ in run.generator.named_parameters() if name.rsplit(".", 1)[0] not in dead}
    assert changed == wanted | {"generator.w_avg"}


def test_scorer_is_trained_as_published_on_request(inputs: FineTuneInputs, tmp_path: Path) -> None:
    """docs/spec/stylegan.md, section 13: P4, P5 and P10."""
    settings = recipe("v2", compat=True, batch_size=4)
    run = opened(settings, inputs, tmp_path)
    changed = moved(run)
    assert run.property_cnn.training
    assert {key for key in changed if key.startswith("property.")} == {
        f"property.{name}" for name, _ in run.property_cnn.named_parameters()
    }
    assert settings.generator_redrawn == (FIRST_DENSE,)


@pytest.mark.parametrize(("redrawn", "kept"), [((), True), ((FIRST_DENSE,), False)])
def test_first_dense_layer_is_kept_unless_asked(
    inputs: FineTuneInputs, tmp_path: Path, redrawn: tuple[str, ...], kept: bool
) -> None:
    run = opened(small(generator_redrawn=redrawn), inputs, tmp_path)
    start, name = load_generator(inputs.generator), published_names(run.generator)[FIRST_DENSE]
    assert torch.equal(start.state_dict()[name], run.generator.state_dict()[name]) is kept
    others = [key for key in start.state_dict() if key != name]
    assert all(torch.equal(start.state_dict()[key], run.generator.state_dict()[key]) for key in others)


def test_latents_and_labels_move_from_fixed_to_fresh(inputs: FineTuneInputs, tmp_path: Path) -> None:
    run = opened(small(), inputs, tmp_path)
    assert [warm_share(k, 0.9) for k in (0, 1, 10)] == pytest.approx([1.0, 0.9, 0.9**10])

    def inputs_of(group: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return run.inputs_of(Draws.of(run.fabric, run.recipe.seed, group, step, run.recipe.batch_size))

    fixed = inputs_of(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(fixed, inputs_of(0, 7), strict=True))
    z, label = inputs_of(5, 2)
    again, other = inputs_of(5, 2), inputs_of(5, 3)
    assert torch.equal(z, again[0])
    assert not torch.equal(z, other[0])
    fresh = (z - 0.9**5 * fixed[0]) / (1 - 0.9**5)
    assert float(fresh.std()) == pytest.approx(1.0, abs=0.3)
    assert float(torch.corrcoef(torch.stack([fresh.flatten(), fixed[0].flatten()]))[0, 1]) < 0.5
    assert label.shape == (4, 7)
    late = inputs_of(200, 0)
    assert not torch.allclose(late[1], fixed[1], atol=0.1)


def test_background_std_does_not_count() -> None:
    label, scores = torch.zeros(3, 7), torch.zeros(3, 7)
    scores[:, 6] = 100.0
    scores[:, 2] = 3.0
    assert float(scored_loss(scores, label, PROPERTIES, recipe("v2").scored)) == pytest.approx(9 / 6)


def test_labels_of_the_test_pictures() -> None:
    labels = shown_labels(PROPERTIES)
    assert labels.shape == (7, 7)
    assert set(np.unique(np.abs(labels[:, :6]))) == {np.float32(1.2)}
    assert (labels[:, 6] == 0).all()
    # One property changes its sign from each label to the next.
    assert [(np.diff(labels, axis=0)[i] != 0).sum() for i in range(6)] == [1] * 6


@pytest.fixture(scope="module")
def finished(inputs: FineTuneInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run_recipe(small(), inputs, out, fabric=make_fabric("cpu"))


def test_files_of_a_run(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    rows = table(out / "train_log_v2.csv")
    assert list(rows[0])[1:5] == ["step_group", "warm_share", "rate", "loss"]
    assert [row["step_group"] for row in rows] == ["0", "1"]
    assert [float(row["warm_share"]) for row in rows] == [1.0, 0.9]
    six = [
        float(rows[0][f"{name}_mse"]) for name in ("eyes", "hair_color", "hair_length", "mouth", "pose", "back_mean")
    ]
    assert float(rows[0]["loss"]) == pytest.approx(np.mean(six), abs=2e-4)
    for group in (0, 1):
        assert (out / "inference_test_during_finetuning_v2" / f"step_group_{group:04d}" / "test_img.jpg").is_file()
    generator = checkpoints.load("stylegan", out / "generator.safetensors")
    assert isinstance(generator, Generator)
    published = torch.load(out / "stylegan_gen_fine_tuned_v2.pth", weights_only=True)
    assert torch.equal(published["synthesis.layer0.const"], generator.synthesis.const)
    assert result["best_epoch"] in (0, 1)
    assert result["steps"] == 6
    assert generator.config == SMALL


@pytest.mark.parametrize("stop_after", [2, 4])
def test_stopped_run_ends_like_an_uninterrupted_one(
    inputs: FineTuneInputs, tmp_path: Path, finished: tuple[Path, dict[str, Any]], stop_after: int
) -> None:
    first = run_recipe(small(), inputs, tmp_path, fabric=make_fabric("cpu"), stop_after=stop_after)
    assert first["stopped"]
    assert first["steps"] == stop_after
    second = run_recipe(small(), inputs, tmp_path, fabric=make_fabric("cpu"))
    wanted, made = (load_file(out / "generator.safetensors") for out in (finished[0], tmp_path))
    assert all(torch.equal(wanted[key], made[key]) for key in wanted)
    assert (tmp_path / "train_log_v2.csv").read_bytes() == (finished[0] / "train_log_v2.csv").read_bytes()
    assert second["best_loss"] == finished[1]["best_loss"]


def test_resumed_scorer_is_the_trained_one(inputs: FineTuneInputs, tmp_path: Path) -> None:
    settings = small(train_scorer=True, epochs=1)
    run_recipe(settings, inputs, tmp_path / "one", fabric=make_fabric("cpu"))
    run_recipe(settings, inputs, tmp_path / "two", fabric=make_fabric("cpu"), stop_after=2)
    run_recipe(settings, inputs, tmp_path / "two", fabric=make_fabric("cpu"))
    wanted, made = (load_file(tmp_path / name / "property_cnn.safetensors") for name in ("one", "two"))
    assert all(torch.equal(wanted[key], made[key]) for key in wanted)
    start = load_file(str(inputs.property_cnn))
    assert any(not torch.equal(start[key], made[key]) for key in start)


def test_stops_after_groups_without_improvement(inputs: FineTuneInputs, tmp_path: Path) -> None:
    settings = small(epochs=0, patience=1, batch_size=2, batches_per_epoch=1, learning_rate=1e-30)
    result = run_recipe(settings, inputs, tmp_path, fabric=make_fabric("cpu"))
    losses = [float(row["loss"]) for row in table(tmp_path / "train_log_v2.csv")]
    assert result["epochs"] == len(losses) == int(np.argmin(losses)) + 2


def test_rate_falls_and_rises_by_groups(inputs: FineTuneInputs, tmp_path: Path) -> None:
    run_recipe(small(epochs=3, cosine=2, batches_per_epoch=1), inputs, tmp_path, fabric=make_fabric("cpu"))
    rates = [float(row["rate"]) for row in table(tmp_path / "train_log_v2.csv")]
    assert rates == pytest.approx([1e-5, 0.5e-5, 0.0], abs=1e-9)


def test_damaged_numbers_stop_before_the_weights(inputs: FineTuneInputs, tmp_path: Path) -> None:
    run = opened(small(), inputs, tmp_path)
    with torch.no_grad():
        run.property_cnn.parts["mouth"].output.bias.fill_(float("inf"))
    before = states(run)
    with pytest.raises(TrainingStoppedError, match="stopped at step group 0, step 0: the loss 'mse' is inf"):
        run.batch()
    assert all(torch.equal(value, before[key]) for key, value in states(run).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": 0.5}, "mixing must be 0.0"),
        ({"scored": ("mouth",), "properties": ("eyes", "pose")}, "scored must be some of its properties eyes, pose"),
    ],
)
def test_recipes_that_cannot_be(inputs: FineTuneInputs, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run_recipe(small(**changes), inputs, tmp_path, fabric=make_fabric("cpu"))


def test_a_generator_without_label_is_refused_by_name(inputs: FineTuneInputs, tmp_path: Path) -> None:
    checkpoints.save(Generator(replace(SMALL, label_size=0, embedding_size=0)), tmp_path / "g.safetensors", "stylegan")
    with pytest.raises(InvalidInputError, match="recipe v2 starts from the generator of 'v1'"):
        run_recipe(
            small(), replace(inputs, generator=tmp_path / "g.safetensors"), tmp_path / "run", fabric=make_fabric("cpu")
        )
