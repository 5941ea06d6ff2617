"""FineTune-v3: what moves, what is logged, what passes, and that a stopped run ends like an uninterrupted one."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ohlora.cli import main
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed, load_faces
from ohlora.training import checkpoints
from ohlora.training.finetune.cvae import CvaeTraining, encoder_config
from ohlora.training.finetune.cvae_tester import checkpoint_test, final_pictures
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import MADE_BY, FineTuneInputs, load_generator
from ohlora.training.finetune.pictures import Batch
from ohlora.training.finetune.property_test import (
    EPOCH_GRID,
    TESTER_GRID,
    Conditioning,
    compare,
    conditioning,
    gender_picture,
    label_grid,
    pearson,
)
from ohlora.training.finetune.property_test_files import read_latent, write_vectors
from ohlora.training.finetune.recipes import PROPERTIES, Recipe, recipe
from ohlora.training.finetune.run import run_recipe
from ohlora.training.finetune.scored import property_scores, rate_factor
from ohlora.training.finetune.transfer import published_names
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.steps import TrainingStoppedError
from ohlora.training.nets.cvae_encoder import CvaeEncoder, EncoderConfig
from ohlora.training.nets.score_cnns import ClassifierCnn, PropertyCnn, at_cnn_size
from ohlora.training.nets.stylegan import CONFIGS, Generator
from tests.support.conditional_inputs import SMALL, make_inputs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FineTuneInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def small(**changes: Any) -> Recipe:
    """v3 on ten pictures: two whole batches and a short one."""
    given = {"batch_size": 4, "epochs": 2, "log_every": 2, "test_latents": 2, "test_kept": 5, "learning_rate": 1e-2}
    return recipe("v3", **{**given, **changes})


def networks(out: Path) -> dict[str, Tensor]:
    parts = {name: load_file(out / f"{name}.safetensors") for name in ("generator", "encoder")}
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- one step ----


def opened(settings: Recipe, inputs: FineTuneInputs) -> CvaeTraining:
    """A run whose folder is not there yet."""
    return CvaeTraining(settings, inputs, RunFolder(Path("nowhere"), {}, make_fabric("cpu")), lambda event: None)


def one_step(settings: Recipe, inputs: FineTuneInputs) -> tuple[CvaeTraining, dict[str, Tensor], dict[str, Tensor]]:
    """Steps after one update, what they were before, and the losses."""
    steps = opened(settings, inputs)
    before = {key: value.clone() for key, value in everything(steps).items()}
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    label = torch.from_numpy(rng.standard_normal((4, 7)).astype(np.float32))
    losses = steps.update(Batch(image, label), Draws(1, 0, 0, 4, slice(0, 4), CPU), "here")
    return steps, before, losses


def everything(steps: CvaeTraining) -> dict[str, Tensor]:
    parts: dict[str, nn.Module | None] = {
        "generator": steps.generator,
        "encoder": steps.encoder,
        "property": steps.property_cnn,
        "gender": steps.gender_cnn,
    }
    return {f"{name}.{k}": v for name, part in parts.items() if part is not None for k, v in part.state_dict().items()}


def moved(steps: CvaeTraining, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in everything(steps).items() if not torch.equal(value, before[key])}


def test_step_moves_mapping_and_encoder_only(inputs: FineTuneInputs) -> None:
    steps, before, losses = one_step(small(), inputs)
    mapping = {f"generator.mapping.{name}" for name, _ in steps.generator.mapping.named_parameters()}
    encoder = {f"encoder.{name}" for name, _ in steps.encoder.named_parameters()}
    assert moved(steps, before) == mapping | encoder | {"generator.w_avg"}
    total = losses["mse"] + losses["gender_loss"] + 0.2 * losses["mu_loss"] + 0.05 * losses["logvar_loss"]
    assert float(losses["total_loss"]) == pytest.approx(float(total), rel=1e-5)
    assert losses["mean"].shape == (SMALL.z_size,)


def test_rates_of_the_two_groups(inputs: FineTuneInputs) -> None:
    steps = opened(recipe("v3"), inputs)
    assert [group["lr"] for group in steps.optimizer.param_groups] == [1e-4, 1e-5]
    assert all(group["weight_decay"] == 0.01 for group in steps.optimizer.param_groups)
    steps.at["epoch"] = 5
    factor = steps.set_rates()
    assert [group["lr"] for group in steps.optimizer.param_groups] == pytest.approx([0.5e-4, 0.5e-5])
    assert factor == pytest.approx(0.5)


def test_cosine_goes_down_and_up_again_like_the_documented_scheduler() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0)
    for epoch in range(35):
        assert rate_factor(epoch, 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()
    assert rate_factor(123, 0) == 1.0


def test_redrawn_tensors_are_those_of_the_document(inputs: FineTuneInputs) -> None:
    start = load_generator(inputs.generator)
    steps = opened(small(), inputs)
    names, old = published_names(steps.generator), start.state_dict()
    changed = {
        theirs for theirs, ours in names.items()
        if old[ours].shape != (now := steps.generator.state_dict()[ours]).shape or not torch.equal(old[ours], now)
    }  # fmt: skip
    assert changed == {"mapping.dense0.weight", "mapping.label_weight"}
    assert steps.generator.config.embedding_size == 24


def test_scorers_are_in_evaluation_mode_unless_asked_otherwise(inputs: FineTuneInputs) -> None:
    first = one_step(small(), inputs)
    again = one_step(small(), inputs)
    dropped = one_step(small(scorers_train_mode=True), inputs)
    assert not first[0].property_cnn.training
    assert not first[0].gender_cnn.training  # type: ignore[union-attr]
    assert dropped[0].property_cnn.training
    assert float(first[2]["mse"]) == float(again[2]["mse"])
    assert float(first[2]["mse"]) != float(dropped[2]["mse"])
    assert float(dropped[2]["mse"]) == float(one_step(small(scorers_train_mode=True), inputs)[2]["mse"])


def test_term_against_pictures_of_men_can_be_switched(inputs: FineTuneInputs) -> None:
    unit, signed = one_step(small(), inputs)[2], one_step(small(gender_input="signed"), inputs)[2]
    assert float(unit["gender_loss"]) != float(signed["gender_loss"])
    without = one_step(small(gender_weight=0.0), replace(inputs, gender_cnn=None))
    assert without[0].gender_cnn is None
    assert float(without[2]["gender_loss"]) == 0.0
    image = torch.full((1, 3, 256, 256), -1.0)
    assert float(gender_picture(image, "unit").max()) == 0.0
    assert float(gender_picture(image, "signed").max()) == -1.0


def test_compat_recipe_is_what_was_published() -> None:
    settings = recipe("v3", compat=True)
    assert settings.scorers_train_mode
    assert settings.gender_input == "signed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": 0.9}, "mixing must be 0.0, got 0.9"),
        ({"random_noise": True}, "random_noise must be False"),
        ({"psi": 0.5}, "psi must be 1.0, got 0.5"),
        ({"scored": ()}, "scored must be some of its properties"),
        ({"properties": ("mouth", "pose", "hair_color"), "scored": ("eyes",)}, "scored must be some of"),
        ({"properties": ("mouth",), "scored": ("mouth",)}, "1 label values has no documented eyes, mouth and pose"),
    ],
)
def test_recipes_that_cannot_be(inputs: FineTuneInputs, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run_recipe(small(**changes), inputs, tmp_path / "run", fabric=make_fabric("cpu"))


def test_missing_stage_is_named(inputs: FineTuneInputs, tmp_path: Path) -> None:
    for field in ("property_cnn", "gender_cnn"):
        with pytest.raises(InvalidInputError, match=re.escape(MADE_BY[field][1])):
            run_recipe(small(), replace(inputs, **{field: None}), tmp_path, fabric=make_fabric("cpu"))


def test_scores_have_gradients_for_what_is_asked_only(inputs: FineTuneInputs) -> None:
    cnn = checkpoints.load("cnn-property", str(inputs.property_cnn))
    assert isinstance(cnn, PropertyCnn)
    image = torch.rand(2, 3, 64, 64).mul(2).sub(1).requires_grad_(True)
    scores = property_scores(cnn, image, PROPERTIES, ("eyes",))
    with torch.no_grad():
        assert torch.allclose(scores, cnn(at_cnn_size(image)), atol=1e-6)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), image, retain_graph=True)
    assert float(gradient.abs().sum()) > 0
    (gradient,) = torch.autograd.grad(scores[:, 3].sum(), image, allow_unused=True)
    assert gradient is None or float(gradient.abs().sum()) == 0.0


def test_encoder_shrinks_with_its_generator() -> None:
    assert encoder_config(CONFIGS["v3"]) == EncoderConfig()
    smaller = replace(CONFIGS["v3"], resolution=128, channel_base=3072)
    assert encoder_config(smaller) == EncoderConfig(128, 512, 7, 3072 / 16384)


# ---- the test after an epoch ----


def test_documented_labels() -> None:
    labels = label_grid(EPOCH_GRID)
    assert labels.shape == (50, 7)
    assert labels[0].tolist() == pytest.approx([-1.8, 0, 0, -1.2, -1.2, 0, 0])
    assert labels[1].tolist() == pytest.approx([-1.8, 0, 0, -1.2, 0, 0, 0])
    assert labels[5].tolist() == pytest.approx([1.8, 0, 0, -1.2, -1.2, 0, 0])
    assert labels[10].tolist() == pytest.approx([-1.8, 0, 0, -0.6, -1.2, 0, 0])
    assert label_grid(TESTER_GRID).shape == (125, 7)
    assert label_grid(EPOCH_GRID, 3)[5].tolist() == pytest.approx([1.8, -1.2, -1.2])


@pytest.mark.parametrize(
    ("correlation", "mae", "passes"),
    [
        ((0.77, 0.85, 0.82), (1.0, 0.6, 1.4), True),
        ((0.76, 0.99, 0.99), (0.1, 0.1, 0.1), False),
        ((0.99, 0.84, 0.99), (0.1, 0.1, 0.1), False),
        ((0.99, 0.99, 0.81), (0.1, 0.1, 0.1), False),
        ((0.99, 0.99, 0.99), (1.01, 0.1, 0.1), False),
        ((0.99, 0.99, 0.99), (0.1, 0.61, 0.1), False),
        ((0.99, 0.99, 0.99), (0.1, 0.1, 1.41), False),
        ((0.99, float("nan"), 0.99), (0.1, 0.1, 0.1), False),
        ((0.8928, 0.8582, 0.9318), (0.9342, 0.4452, 1.2365), True),  # the documented face
    ],
)
def test_pass_rule(correlation: tuple[float, ...], mae: tuple[float, ...], passes: bool) -> None:
    rule = recipe("v3")
    measured = Conditioning(np.empty(0), np.empty(0), np.array([correlation]), np.array([mae]))
    assert measured.passed(rule.test_correlation, rule.test_error).tolist() == [passes]


def test_correlation_and_error_of_known_numbers() -> None:
    labels = np.array([[[-1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [1.0, 2.0, 2.0]]])
    scores = np.array([[[-3.0, 2.0, 1.0], [0.0, 1.0, 2.0], [3.0, 0.0, 3.0]]])
    made = compare(labels, scores)
    assert made.correlation[0, :2] == pytest.approx([1.0, -1.0])
    assert np.isnan(made.correlation[0, 2])  # the label does not vary
    assert made.mae[0] == pytest.approx([4 / 3, 4 / 3, 2 / 3])
    assert made.summary()["pose"] == {"correlation": 0.0, "mae": pytest.approx(2 / 3)}
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 40))
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])


class Painter(Generator):
    """Draws a picture whose level is its label's mouth value."""

    def forward(self, z: Tensor, label: Tensor | None = None, **_: Any) -> Tensor:
        assert not self.training
        assert label is not None
        return label[:, 3].view(-1, 1, 1, 1).expand(-1, 3, 32, 32) * 0.1 + z[:, :1, None, None] * 0.0


class Level(PropertyCnn):
    """Scores the level of a picture ten times, with dropout when it is not in evaluation mode."""

    def only(self, image: Tensor, parts: Any) -> Tensor:
        assert not self.training
        level = image.mean((1, 2, 3), keepdim=False)[:, None] * 10
        return torch.cat([torch.zeros_like(level), level, -level], 1)


def test_conditioning_measures_label_against_score() -> None:
    generator, cnn = Painter(SMALL).train(), Level().train()
    labels, z = label_grid(EPOCH_GRID), np.zeros((3, SMALL.z_size), np.float32)
    seen: list[tuple[int, int]] = []
    made = conditioning(generator, cnn, z, labels, watch=lambda i, images: seen.append((i, len(images))))
    assert made.scores.shape == (3, 50, 3)
    assert made.correlation[:, 1] == pytest.approx(1.0)
    assert made.mae[:, 1] == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(made.correlation[:, 0]).all()
    assert generator.training  # as it was
    assert cnn.training
    assert [sum(count for latent, count in seen if latent == i) for i in range(3)] == [50, 50, 50]
    other = conditioning(generator, cnn, z, labels, batch_size=7)
    assert np.allclose(other.scores, made.scores)
    for wrong in (np.zeros((2, 5), np.float32), np.zeros((2, 4, 7), np.float32)):
        with pytest.raises(InvalidInputError, match="labels must have shape"):
            conditioning(generator, cnn, z, wrong)


# ---- whole runs ----


@pytest.fixture(scope="module")
def finished(inputs: FineTuneInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two epochs in one go, with a rule that every latent passes."""
    out = tmp_path_factory.mktemp("whole")
    result = run_recipe(passing(), inputs, out, fabric=make_fabric("cpu"))
    return out, result


def passing(**changes: Any) -> Recipe:
    return small(test_correlation=(-1.0, -1.0, -1.0), test_error=(1e9, 1e9, 1e9), **changes)


def test_log_has_the_documented_columns(finished: tuple[Path, dict[str, Any]]) -> None:
    rows = table(finished[0] / "train_log_v3.csv")
    types = ("eyes", "hair_color", "hair_length", "mouth", "pose", "back_mean", "back_std")
    wanted = ["", "epoch", "batch_idx", "total_loss", "mse", "gender_loss", "mu_loss", "logvar_loss"]
    assert list(rows[0]) == [*wanted, *(f"{name}_mse" for name in types), *(f"{name}_abs" for name in types)]
    assert [(row["epoch"], row["batch_idx"]) for row in rows] == [
        ("0", "0"), ("0", "2"), ("0", "-"), ("1", "0"), ("1", "2"), ("1", "-"),
    ]  # fmt: skip
    three = [float(rows[0][f"{name}_mse"]) for name in ("eyes", "mouth", "pose")]
    assert float(rows[0]["mse"]) == pytest.approx(np.mean(three), abs=2e-4)


def test_files_of_the_test(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    folder = out / "inference_test_during_finetuning_v3" / "epoch_0001"
    for name in ("mus", "log_vars", "zs"):
        rows = table(folder / f"test_{name}.csv")
        assert len(rows) == 2
        assert list(rows[0]) == [str(i) for i in range(SMALL.z_size)]
    header = [*(f"{p}_label" for p in ("eyes", "mouth", "pose")), *(f"{p}_score" for p in ("eyes", "mouth", "pose"))]
    rows = table(folder / "1" / "test_result.csv")
    assert list(rows[0]) == ["img_no", *header]
    assert len(rows) == 50
    each = table(folder / "result_each_z.csv")
    assert [row["passed"] for row in each] == [str(int(row["eyes_corr"] != "")) for row in each]
    labels = [float(row["mouth_label"]) for row in rows]
    scores = [float(row["mouth_score"]) for row in rows]
    assert float(each[1]["mouth_mae"]) == pytest.approx(np.abs(np.subtract(labels, scores)).mean(), abs=1e-3)
    random = table(folder / "test_random_gen_result.csv")
    assert list(random[0]) == ["img_no", *(f"{p}_score" for p in PROPERTIES), "gender_score"]
    assert len(random) == 2
    assert {path.name for path in folder.iterdir()} >= {"0", "1", "test_random_gen_img.jpg"}
    assert (folder / "0" / "test_img.jpg").is_file()
    assert result["passed"].keys() == {"0", "1"}


def test_networks_are_written_in_both_layouts(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    generator = checkpoints.load("stylegan", out / "generator.safetensors")
    encoder = checkpoints.load("cvae-encoder-v3", out / "encoder.safetensors")
    assert isinstance(generator, Generator)
    assert isinstance(encoder, CvaeEncoder)
    prefix = "stylegan_gen_fine_tuned_v3"
    names = {path.name for path in out.glob("*.pth")}
    passed = {f"{prefix}_ckpt_{epoch:04d}_{part}.pth" for epoch in (0, 1) for part in ("gen", "enc")}
    assert names == {f"{prefix}.pth", f"{prefix}_encoder.pth", *passed}
    published = torch.load(out / f"{prefix}.pth", weights_only=True)
    assert published["mapping.label_weight"].shape == (7, 24)
    assert torch.equal(published["mapping.dense0.weight"], generator.mapping.dense[0].weight)
    again = checkpoints.load("cvae-encoder-v3", out / f"{prefix}_encoder.pth")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), encoder.parameters(), strict=True))
    # The best epoch's networks are those of its own checkpoint.
    best = torch.load(out / f"{prefix}_ckpt_{result['best_epoch']:04d}_gen.pth", weights_only=True)
    assert all(torch.equal(best[key], published[key]) for key in published)


def test_no_checkpoint_without_a_latent_that_passes(inputs: FineTuneInputs, tmp_path: Path) -> None:
    result = run_recipe(small(epochs=1), inputs, tmp_path, fabric=make_fabric("cpu"))
    assert result["passed"] == {}
    assert not list(tmp_path.glob("*_ckpt_*"))


@pytest.mark.parametrize("stop_after", [1, 4])
def test_stopped_run_ends_like_an_uninterrupted_one(
    inputs: FineTuneInputs, tmp_path: Path, finished: tuple[Path, dict[str, Any]], stop_after: int
) -> None:
    """Once within an epoch, once in the next."""
    first = run_recipe(passing(), inputs, tmp_path, fabric=make_fabric("cpu"), stop_after=stop_after)
    assert first["stopped"]
    assert first["steps"] == stop_after
    second = run_recipe(passing(), inputs, tmp_path, fabric=make_fabric("cpu"))
    assert not second["stopped"]
    wanted, made = networks(finished[0]), networks(tmp_path)
    assert all(torch.equal(wanted[key], made[key]) for key in wanted)
    for name in (
        "train_log_v3.csv",
        "inference_test_during_finetuning_v3/epoch_0001/test_zs.csv",
        "inference_test_during_finetuning_v3/epoch_0001/result_each_z.csv",
    ):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()
    for key in ("losses", "conditioning", "passed", "best_epoch", "best_loss"):
        assert second[key] == finished[1][key]


def test_more_epochs_go_on(inputs: FineTuneInputs, tmp_path: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    run_recipe(passing(epochs=1), inputs, tmp_path, fabric=make_fabric("cpu"))
    run_recipe(passing(epochs=2), inputs, tmp_path, fabric=make_fabric("cpu"))
    wanted, made = networks(finished[0]), networks(tmp_path)
    assert all(torch.equal(wanted[key], made[key]) for key in wanted)


def test_another_recipe_is_refused(inputs: FineTuneInputs, tmp_path: Path) -> None:
    run_recipe(small(epochs=1), inputs, tmp_path, fabric=make_fabric("cpu"), stop_after=1)
    with pytest.raises(InvalidInputError, match=r"a run with other recipe \(mean_weight was 0.2, now 0.5\)"):
        run_recipe(small(mean_weight=0.5), inputs, tmp_path, fabric=make_fabric("cpu"))


def test_stop_rule(inputs: FineTuneInputs, tmp_path: Path) -> None:
    """Epochs without end, nothing learned (rates of nearly 0): stops `patience` epochs after the best one."""
    settings = small(epochs=0, min_epochs=2, patience=1, learning_rate=1e-30, encoder_rate=1e-30, test_latents=1)
    result = run_recipe(settings, inputs, tmp_path, fabric=make_fabric("cpu"))
    means = [float(row["total_loss"]) for row in table(tmp_path / "train_log_v3.csv") if row["batch_idx"] == "-"]
    best = [int(np.argmin(means[: epoch + 1])) for epoch in range(len(means))]
    fits = [epoch >= 2 and epoch - best[epoch] >= 1 for epoch in range(len(means))]
    assert fits == [False] * (len(means) - 1) + [True]
    assert result["epochs"] == len(means)


def test_damaged_numbers_stop_before_the_weights(inputs: FineTuneInputs, tmp_path: Path) -> None:
    cnn = checkpoints.load("cnn-gender", str(inputs.gender_cnn))
    assert isinstance(cnn, ClassifierCnn)
    steps = opened(small(), inputs)
    before = {key: value.clone() for key, value in everything(steps).items()}
    label = torch.full((4, 7), float("nan"))
    batch = Batch(torch.zeros(4, 3, 32, 32), label)
    with pytest.raises(TrainingStoppedError, match="stopped at epoch 3, batch 9: the loss 'total_loss' is nan"):
        steps.update(batch, Draws(1, 0, 0, 4, slice(0, 4), CPU), "epoch 3, batch 9")
    assert moved(steps, before) == set()


def test_one_picture_a_file_on_request(inputs: FineTuneInputs, tmp_path: Path) -> None:
    run_recipe(small(epochs=1, test_latents=1, dump="files"), inputs, tmp_path, fabric=make_fabric("cpu"))
    folder = tmp_path / "inference_test_during_finetuning_v3" / "epoch_0000"
    assert sorted(path.name for path in (folder / "0").glob("*.png"))[::49] == ["test_img_000.png", "test_img_049.png"]
    assert (folder / "test_random_gen_img_000.png").is_file()


TWO = """
import sys
from pathlib import Path
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.steps import TrainingStoppedError
from ohlora.training.finetune.run import run_recipe
from tests.support.conditional_inputs import inputs_in
from tests.training.finetune.test_cvae import passing

fabric = make_fabric("cpu", devices=2)
fabric.launch()
run_recipe(passing(), inputs_in(Path(sys.argv[1])), Path(sys.argv[2]), fabric=fabric)
"""


@pytest.mark.slow
def test_two_processes_are_one_up_to_rounding(
    inputs: FineTuneInputs, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    root = Path(__file__).resolve().parents[3]
    folder = Path(inputs.generator).parent
    subprocess.run(
        [sys.executable, str(script), str(folder), str(tmp_path / "run")],
        check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    wanted, made = networks(finished[0]), networks(tmp_path / "run")
    start = {f"generator.{key}": value for key, value in load_generator(inputs.generator).state_dict().items()}
    for key, value in wanted.items():
        assert torch.allclose(made[key], value, rtol=1e-4, atol=1e-5), key
    assert any(not torch.equal(start[key], made[key]) for key in start if start[key].shape == made[key].shape)
    logs = [table(out / "train_log_v3.csv") for out in (finished[0], tmp_path / "run")]
    for one, two in zip(*logs, strict=True):
        assert float(two["total_loss"]) == pytest.approx(float(one["total_loss"]), abs=2e-4)


def test_tested_latents_are_read_by_the_runtime(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path = finished[0] / "inference_test_during_finetuning_v3" / "epoch_0000" / "test_zs.csv"
    with pytest.raises(InvalidInputError, match="test_zs"):
        load_faces([str(path)], 0)  # 16 values are no latent of the runtime, and not misread as one
    z = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    write_vectors(tmp_path / "z.csv", z)
    assert np.array_equal(load_faces([str(tmp_path / "z.csv")], 0)[1].z, z[1])


# ---- the tester of a finished generator ----


def test_latents_by_name(tmp_path: Path) -> None:
    z = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    write_vectors(tmp_path / "z.csv", z)
    assert np.array_equal(read_latent(f"{tmp_path / 'z.csv'}:2", 16), z[2])
    assert np.array_equal(read_latent("17", 512), face_from_seed(17).z)
    for text, message in (
        (f"{tmp_path / 'z.csv'}:3", "has rows 0 to 2, not '3'"),
        (f"{tmp_path / 'none.csv'}:0", "cannot read the z-vector table"),
        ("mine", "is not a latent"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_latent(text, 16)
    with pytest.raises(InvalidInputError, match="holds latents of 16 values, this generator takes 512"):
        read_latent(f"{tmp_path / 'z.csv'}:0", 512)


def test_checkpoint_tester(inputs: FineTuneInputs, tmp_path: Path) -> None:
    generator, cnn = Painter(SMALL), Level()
    z = np.full(SMALL.z_size, 0.5, np.float32)
    result = checkpoint_test(generator, z, tmp_path, property_cnn=cnn)
    assert result["exact"]["mouth"]["correlation"] == pytest.approx(1.0)
    rows = table(tmp_path / "near" / "test_result.csv")
    assert len(rows) == 125
    assert [rows[1][f"{name}_label"] for name in ("eyes", "mouth", "pose")] == ["-1.8", "-1.2", "0.0"]
    assert [rows[5][f"{name}_label"] for name in ("eyes", "mouth", "pose")] == ["-1.8", "-0.6", "-1.2"]
    assert (tmp_path / "exact" / "test_img.jpg").is_file()
    with pytest.raises(InvalidInputError, match="one latent of 16 values is needed"):
        checkpoint_test(generator, np.zeros(7, np.float32), tmp_path)


def test_latents_near_the_chosen_one() -> None:
    seen: list[Tensor] = []

    class Watched(Painter):
        def forward(self, z: Tensor, label: Tensor | None = None, **_: Any) -> Tensor:
            seen.append(z)
            return super().forward(z, label)

    with tempfile.TemporaryDirectory() as folder:
        checkpoint_test(Watched(SMALL), np.ones(16, np.float32), Path(folder))
        drawn = torch.cat(seen)
        assert torch.equal(drawn[:125], torch.ones(125, 16))
        assert float((drawn[125:] - 1).std()) == pytest.approx(0.3, abs=0.03)
        seen.clear()
        made = final_pictures(Watched(SMALL), np.ones(16, np.float32), Path(folder) / "final")
        assert len(list(made.glob("*.jpg"))) == 20
        drawn = torch.cat(seen)
        assert torch.equal(drawn[0], torch.ones(16))
        assert float((drawn[1:] - 1).std()) == pytest.approx(0.3, abs=0.06)


def test_tester_from_the_command_line(
    inputs: FineTuneInputs,
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = finished[0] / "generator.safetensors"
    arguments = ["train", "finetune-test", str(generator), "--property-cnn", str(inputs.property_cnn), "--json"]
    given = ["ohlora", *arguments, "--z", "3", "--final", "2", "--out", str(tmp_path)]
    with patch.object(sys, "argv", given), pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["exact"].keys() == {"eyes", "mouth", "pose"}
    assert sorted(path.name for path in (tmp_path / "final_inference_test_v3").iterdir()) == [
        "000000.jpg",
        "000001.jpg",
    ]
