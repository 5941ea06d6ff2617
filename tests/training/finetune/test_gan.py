"""The GAN fine-tuning loop: what a run leaves, resuming to the same weights, refusing what does not fit."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ohlora.cli import app
from ohlora.errors import InvalidInputError, OutputError
from ohlora.scores.table import read_score_table, write_score_table
from ohlora.training import checkpoints
from ohlora.training.finetune import pictures as training_pictures
from ohlora.training.finetune import published
from ohlora.training.finetune.discriminator_start import train_discriminator
from ohlora.training.finetune.gan_steps import GanSteps
from ohlora.training.finetune.gan_watch import GanWatch
from ohlora.training.finetune.inputs import FineTuneInputs, load_discriminator, load_generator
from ohlora.training.finetune.pictures import Batches, jittered, open_pictures
from ohlora.training.finetune.recipes import RECIPES, DiscriminatorStart
from ohlora.training.finetune.run import run_recipe
from ohlora.training.finetune.trial_pictures import PLANS
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.steps import TrainingStoppedError
from ohlora.training.nets import stylegan, stylegan_discriminator
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.published import published_state
from tests.support.finetune_sets import PICTURES, SIZE, make_inputs, short, tiny_generator, write_numbered
from tests.support.long_runs import terminated

BATCHES = 3  # of an epoch: 4, 4 and 2 pictures
ROOT = Path(__file__).resolve().parents[3]


def go(version: str, inputs: FineTuneInputs, out: Path, stop_after: int = 0, **changes: Any) -> dict[str, Any]:
    return run_recipe(short(version, **changes), inputs, out, fabric=make_fabric("cpu"), stop_after=stop_after)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same(first: Path, second: Path) -> None:
    """Equal to the last bit."""
    for name in ("generator.safetensors", "discriminator.safetensors"):
        a, b = load_file(first / name), load_file(second / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(value, b[key]) for key, value in a.items()), name


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> FineTuneInputs:
    return make_inputs(tmp_path_factory.mktemp("v1"), "v1")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> FineTuneInputs:
    """Start weights of v4 to v9."""
    return make_inputs(tmp_path_factory.mktemp("later"), "v4")


@pytest.fixture(scope="module")
def whole(v1: FineTuneInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    result = go("v1", v1, out)
    assert (result["epochs"], result["steps"], result["images"], result["stopped"]) == (2, 6, 2 * PICTURES, False)
    return out


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    rows = table(whole / "train_log.csv")
    assert list(rows[0]) == [
        "", "epoch", "idx", "d_loss", "g_loss", "g_train_count", "real_scores_mean", "fake_scores_mean",
        "real_fake_auroc",
    ]  # fmt: skip
    assert [(row[""], row["epoch"], row["idx"]) for row in rows] == [
        ("0", "0", "0"), ("1", "0", "2"), ("2", "1", "0"), ("3", "1", "2"),
    ]  # fmt: skip
    assert len(list(whole.glob("checkpoint-*.pt"))) == 2
    assert len(list((whole / "inference_test_during_finetuning").glob("epoch_*.jpg"))) == 4
    assert (whole / "inference_test_before_finetuning.jpg").is_file()
    assert (whole / "inference_test_real_fake.png").is_file()
    assert not list(whole.rglob(".ohlora-tmp-*"))
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["last_row"]["idx"] == 2
    assert summary["trained"]["generator"]["trained"] < summary["trained"]["generator"]["parameters"]


def test_published_files_hold_the_networks_under_the_published_names(whole: Path) -> None:
    generator = checkpoints.load("stylegan", whole / "generator.safetensors")
    discriminator = checkpoints.load("discriminator", whole / "discriminator.safetensors")
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    for name, state in (
        ("stylegan_gen_fine_tuned_v1.pth", published_state(generator)),
        ("stylegan_dis_fine_tuned_v1.pth", published_state(discriminator)),
    ):
        stored = torch.load(whole / name, weights_only=True)
        assert stored.keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in stored.items())


@pytest.mark.slow  # 200 MB each
def test_published_files_of_the_documented_size_can_be_loaded_strictly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(stylegan.CONFIGS["v9"])
    discriminator = Discriminator(stylegan_discriminator.CONFIGS["v9"])
    published.save_networks(tmp_path, "v9", generator, discriminator)
    loaded = checkpoints.load("stylegan-finetune-v9", tmp_path / "stylegan_gen_fine_tuned_v9.pth")
    assert torch.equal(loaded.state_dict()["mapping.split.0.weight"], generator.mapping.split[0].weight)
    checkpoints.load("discriminator-finetune-v9", tmp_path / "stylegan_dis_fine_tuned_v9.pth")
    assert load_generator(tmp_path / "stylegan_gen_fine_tuned_v9.pth").config.split_size == 2048
    assert load_discriminator(tmp_path / "stylegan_dis_fine_tuned_v9.pth").config.label_size == 7


@pytest.mark.parametrize("stops", [(3,), (4, 1)])
def test_a_resumed_run_ends_with_the_same_weights(
    v1: FineTuneInputs, whole: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:
        assert go("v1", v1, tmp_path, stop_after=stop)["stopped"]
    assert not go("v1", v1, tmp_path)["stopped"]
    assert_same(tmp_path, whole)
    assert (tmp_path / "train_log.csv").read_bytes() == (whole / "train_log.csv").read_bytes()


def test_pictures_that_do_not_fit_into_memory_lie_in_a_store(
    v1: FineTuneInputs, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_pictures, "IN_MEMORY", 0)
    go("v1", v1, tmp_path)
    assert (tmp_path / "pictures" / "chunk-00000.npy").is_file()
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("version", ["v4", "v5", "v8", "v9"])
def test_the_other_recipes_resume_too(later: FineTuneInputs, tmp_path: Path, version: str) -> None:
    """Repeats, dropout, jitter and conditional truncation come back as they were."""
    changes: dict[str, Any] = {"epochs": 1, "batches_per_epoch": 2, "mixing": 0.5, "test": "v1"}
    go(version, later, tmp_path / "whole", **changes)
    go(version, later, tmp_path / "parts", stop_after=1, **changes)
    result = go(version, later, tmp_path / "parts", **changes)
    assert result["steps"] == 2
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_killed_run_resumes_to_the_same_weights(v1: FineTuneInputs, whole: Path, tmp_path: Path) -> None:
    """Rows that were written after the last state are written again, once."""
    out = tmp_path / "run"
    go("v1", v1, out, stop_after=2)
    state = sorted(out.glob("checkpoint-*.pt"))[-1].read_bytes()
    go("v1", v1, out, stop_after=2)
    for path in out.glob("checkpoint-*.pt"):
        path.unlink()
    (out / "checkpoint-00000002.pt").write_bytes(state)
    (out / ".ohlora-tmp-left.pt").write_bytes(b"half")
    with (out / "train_log.csv").open("a") as file:
        file.write("9,9,9,0.1")
    go("v1", v1, out)
    assert_same(out, whole)
    assert (out / "train_log.csv").read_bytes() == (whole / "train_log.csv").read_bytes()
    assert not list(out.glob(".ohlora-tmp-*"))


def train_for_a_signal(folder: str, out: str) -> None:
    """A run that is far too long, for the test below to end."""
    root = Path(folder)
    inputs = FineTuneInputs(root / "generator.safetensors", root / "discriminator.safetensors", root / "images")
    result = go("v1", inputs, Path(out), labels="zeros", epochs=100_000)
    assert result["stopped"]


@pytest.mark.slow  # starts Python and PyTorch
def test_a_signal_ends_a_run_after_the_batch_under_way(v1: FineTuneInputs, tmp_path: Path) -> None:
    arguments = f"{str(Path(v1.generator).parent)!r}, {str(tmp_path)!r}"
    code = f"from tests.training.finetune.test_gan import train_for_a_signal as run; run({arguments})"
    assert terminated(code, (tmp_path / "train_log.csv").is_file) == 0
    assert list(tmp_path.glob("checkpoint-*.pt"))
    assert json.loads((tmp_path / "summary.json").read_text())["stopped"]


def test_a_finished_run_is_not_trained_again_but_can_be_made_longer(v1: FineTuneInputs, tmp_path: Path) -> None:
    go("v1", v1, tmp_path, epochs=1)
    before = (tmp_path / "checkpoint-00000003.pt").stat().st_mtime_ns
    assert go("v1", v1, tmp_path, epochs=1)["steps"] == BATCHES
    assert (tmp_path / "checkpoint-00000003.pt").stat().st_mtime_ns == before
    assert go("v1", v1, tmp_path, epochs=2)["steps"] == 2 * BATCHES


def test_another_recipe_or_other_inputs_are_refused(v1: FineTuneInputs, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"holds a run with other recipe \(r1_gamma was 10.0, now 5.0\)"):
        go("v1", v1, whole, r1_gamma=5.0)
    other = tmp_path / "scores.csv"
    scores = read_score_table(cast(Path, v1.scores))
    write_score_table(other, replace(scores, values=scores.values + 1))
    with pytest.raises(InvalidInputError, match=r"holds a run with other inputs \(scores was"):
        go("v1", replace(v1, scores=other), whole)
    (tmp_path / "checkpoint-00000003.pt").write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match=r"cannot resume from .*checkpoint-00000003.pt.*--restart"):
        go("v1", v1, tmp_path)


def test_missing_inputs_name_the_stage_that_makes_them(v1: FineTuneInputs, tmp_path: Path) -> None:
    for name, stage in (
        ("discriminator", "ohlora train finetune-discriminator"),
        ("images", "ohlora train sample"),
        ("scores", "ohlora score images"),
    ):
        with pytest.raises(InvalidInputError, match=f"--{name.replace('_', '-')} .made by .*{stage}"):
            go("v1", replace(v1, **{name: None}), tmp_path)
        with pytest.raises(InvalidInputError, match=rf"{tmp_path / 'none'}: it is made by .*{stage}"):
            go("v1", replace(v1, **{name: tmp_path / "none"}), tmp_path / "out")
    with pytest.raises(InvalidInputError, match="property CNN: --property-cnn"):
        go("v5", replace(v1, property_cnn=None), tmp_path)
    assert not (tmp_path / "out").exists()


def test_pictures_and_scores_must_match(v1: FineTuneInputs, tmp_path: Path) -> None:
    table = read_score_table(cast(Path, v1.scores))
    half = tmp_path / "half.csv"
    write_score_table(half, table.rows(table.numbers[2:]))
    with pytest.raises(
        InvalidInputError, match=r"half.csv has no scores for 2 of 10 pictures of .*: number 3, 5; score them"
    ):
        open_pictures(short("v1"), replace(v1, scores=half))
    values = table.values.copy()
    values[4, 3] = np.nan
    write_score_table(tmp_path / "gap.csv", replace(table, values=values))
    with pytest.raises(InvalidInputError, match=r"gap.csv has empty cells for 1 pictures .number 11. in mouth_score"):
        open_pictures(short("v1"), replace(v1, scores=tmp_path / "gap.csv"))
    # A gap in a column that the label does not hold is none of its business.
    open_pictures(short("v1", properties=("eyes", "pose")), replace(v1, scores=tmp_path / "gap.csv"))
    # With zero labels a table says which pictures are trained on.
    listed = open_pictures(short("v8"), replace(v1, scores=half))
    assert listed.numbers == table.numbers[2:].tolist()
    assert not listed.labels.any()
    write_numbered(tmp_path / "few", count=3)
    with pytest.raises(InvalidInputError, match=r"few lacks 7 of the 10 pictures of .*scores.csv: number 9"):
        open_pictures(short("v8"), replace(v1, images=tmp_path / "few"))


def test_labels_are_joined_by_number(v1: FineTuneInputs) -> None:
    table = read_score_table(cast(Path, v1.scores))
    pictures = open_pictures(short("v4"), v1)
    assert pictures.numbers == sorted(table.numbers.tolist())
    np.testing.assert_array_equal(pictures.labels, table.values[:, [0, 3, 4]].astype(np.float32))


def test_batches_that_cannot_be_grouped_are_refused_before_work_starts(v1: FineTuneInputs, tmp_path: Path) -> None:
    message = r"a batch of 7 cannot be cut into groups of 3 .*batch_size up to 3, or another one with last_batch=drop"
    with pytest.raises(InvalidInputError, match=message):
        go("v1", v1, tmp_path / "out", batch_size=7, group=3)
    assert not (tmp_path / "out").exists()
    Batches(4703, 16).require_groups(16)  # the last batch of 15 is one group
    with pytest.raises(InvalidInputError, match="a batch of 31 cannot be cut into groups of 16"):
        Batches(4703, 64).require_groups(16)
    with pytest.raises(InvalidInputError, match="3 pictures make no batch of 4"):
        Batches(3, 4, last_batch="drop")


@pytest.mark.parametrize(
    ("count", "size", "number", "last"), [(4703, 16, 294, 15), (4703, 8, 588, 7), (4930, 8, 617, 2)]
)
def test_documented_numbers_of_batches(count: int, size: int, number: int, last: int) -> None:
    batches = Batches(count, size)
    assert (len(batches), batches.size(number - 1)) == (number, last)
    seen = np.concatenate([batches.indices(7, 3, batch) for batch in range(number)])
    assert sorted(seen.tolist()) == list(range(count))
    assert not np.array_equal(batches.indices(7, 3, 0), batches.indices(7, 4, 0))


@pytest.mark.parametrize(("version", "first", "others", "batches"), [("v8", 34, 13, 617), ("v1", 39, 30, 294)])
def test_documented_log_moments(version: str, first: int, others: int, batches: int) -> None:
    watch = cast(GanWatch, SimpleNamespace(recipe=RECIPES[version]))
    counts = [sum(GanWatch.wanted(watch, epoch, batch) for batch in range(batches)) for epoch in (0, 1)]
    assert counts == [first, others]


def test_documented_test_labels() -> None:
    assert [PLANS[v].latents * (len(PLANS[v].rows) or 1) for v in ("v1", "v4", "v5", "v8", "v9")] == [
        70,
        50,
        80,
        100,
        100,
    ]
    labels = PLANS["v4"].labels(("eyes", "mouth", "pose"), 7)
    np.testing.assert_allclose(labels[[0, 1, 5, 10]], [
        [-1.8, -1.2, -1.2], [-1.8, -1.2, 0.0], [1.8, -1.2, -1.2], [-1.8, -0.6, -1.2],
    ])  # fmt: skip
    assert PLANS["v4"].labels(("hair_color", "pose"), 7)[0].tolist() == [0.0, pytest.approx(-1.2)]
    assert PLANS["v8"].labels(("eyes",) * 7, 7).shape == (100, 7)


def test_v4_writes_its_errors_and_v5_its_label_table(later: FineTuneInputs, tmp_path: Path) -> None:
    go("v4", later, tmp_path / "v4", epochs=1, batches_per_epoch=1)
    assert (tmp_path / "v4/train_log_v4.csv").is_file()
    (row,) = table(tmp_path / "v4/train_log_v4_errors.csv")
    assert list(row) == [
        "", "epoch", "batch_idx", "eyes_corr", "mouth_corr", "pose_corr", "eyes_mae", "mouth_mae", "pose_mae",
    ]  # fmt: skip
    assert float(row["eyes_mae"]) > 0
    go("v5", later, tmp_path / "v5", epochs=1, batches_per_epoch=1, dump="files")
    (row,) = table(tmp_path / "v5/train_log.csv")
    assert {"d_train_count", "eyes_corr", "pose_mae"} <= row.keys()
    folder = tmp_path / "v5/inference_test_during_finetuning/epoch_0000_idx_0000"
    assert len(list(folder.glob("*.jpg"))) == 80
    rows = table(folder / "label_info.csv")
    assert [row["eyes_label"] for row in rows[::40]] == ["-1.6", "1.6"]
    assert len(list((tmp_path / "v5/inference_test_real_fake").glob("*.png"))) == 8
    assert (tmp_path / "v5/inference_test_after_finetuning/psi_0.25/000000.jpg").is_file()


def test_classifiers_watch_v8(later: FineTuneInputs, tmp_path: Path) -> None:
    from ohlora.training.nets.score_cnns import ATTRIBUTES, ClassifierCnn, ClassifierConfig

    torch.manual_seed(1)
    for attribute in ATTRIBUTES:
        for k in range(2):
            net = ClassifierCnn(ClassifierConfig(attribute, 1 / 64))
            checkpoints.save(net, tmp_path / f"{attribute}_model_{k}.safetensors", f"cnn-{attribute}")
    inputs = replace(later, scores=None, monitor_models=tmp_path)
    go("v8", inputs, tmp_path / "out", epochs=1, batches_per_epoch=1)
    (row,) = table(tmp_path / "out/train_log.csv")
    rows = table(tmp_path / "out/inference_test_during_finetuning/epoch_0000_idx_0000_inference_test_result.csv")
    assert len(rows) == 100
    mean = np.mean([float(r["gender_score_cnn_0"]) + float(r["gender_score_cnn_1"]) for r in rows]) / 2
    assert float(row["mean_gender_score"]) == pytest.approx(mean, abs=1e-4)


def test_a_loss_that_is_no_number_keeps_the_good_weights(
    v1: FineTuneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = training_pictures.to_tensor
    made: list[int] = []

    def poisoned(*arguments: Any) -> torch.Tensor:
        made.append(1)
        return original(*arguments) * (float("nan") if len(made) > 4 else 1.0)

    monkeypatch.setattr(training_pictures, "to_tensor", poisoned)
    with pytest.raises(
        TrainingStoppedError, match=r"stopped at epoch 1, batch 1: the loss 'discriminator loss' is nan"
    ):
        go("v1", v1, tmp_path)
    state = checkpoints.load("stylegan", tmp_path / "generator.safetensors").state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert not (tmp_path / "summary.json").exists()


def test_a_full_disk_leaves_nothing_half_written(
    v1: FineTuneInputs, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go("v1", v1, tmp_path, stop_after=2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pt", ".pth", ".safetensors")}

    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"cannot write .*stylegan_gen_fine_tuned_v1.pth.*disk is full"):
            go("v1", v1, tmp_path)
    after = {path: path.read_bytes() for path in before}
    assert not list(tmp_path.glob(".ohlora-tmp-*"))
    assert all(after[path] == data for path, data in before.items() if path.suffix != ".safetensors")
    go("v1", v1, tmp_path)
    assert_same(tmp_path, whole)


def test_jitter_changes_brightness_and_contrast_only_so_far() -> None:
    images = torch.rand(64, 3, 4, 4) * 2 - 1
    changed = jittered(images, 0.1, (7, 8, 0, 0))
    assert torch.equal(changed, jittered(images, 0.1, (7, 8, 0, 0)))
    assert not torch.equal(changed, jittered(images, 0.1, (7, 8, 0, 1)))
    torch.testing.assert_close(jittered(images, 0.0, (1,)), images)
    assert float((changed - images).abs().max()) <= 2 * (1.1 * 1.1 - 1) + 1e-6
    assert float(changed.abs().max()) <= 1
    grey = torch.full((8, 3, 4, 4), 0.2)
    factor = (jittered(grey, 0.1, (3,)) + 1) / 1.2
    assert float(factor.std()) > 0.01
    assert float((factor - 1).abs().max()) <= 0.1 + 1e-5


def test_a_generator_of_another_size_than_the_discriminator_is_refused(v1: FineTuneInputs, tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = Generator(replace(tiny_generator().config, resolution=2 * SIZE))
    checkpoints.save(other, tmp_path / "other.safetensors", "stylegan")
    with pytest.raises(InvalidInputError, match=r"looks at 8 pixels, the generator draws 16"):
        go("v1", replace(v1, generator=tmp_path / "other.safetensors"), tmp_path / "out")


def test_a_start_discriminator_learns_to_tell_pictures_apart(v1: FineTuneInputs, tmp_path: Path) -> None:
    settings = DiscriminatorStart(steps=30, batch_size=4, learning_rate=5e-3, log_every=10)
    arguments = (v1.generator, cast(Path, v1.images))
    result = train_discriminator(*arguments, tmp_path / "whole", settings, fabric=make_fabric("cpu"))
    rows = table(tmp_path / "whole/train_log.csv")
    assert [row["step"] for row in rows] == ["10", "20", "30"]
    assert result["last_row"]["real_scores_mean"] > result["last_row"]["fake_scores_mean"] + 0.5
    stopped = train_discriminator(*arguments, tmp_path / "parts", settings, fabric=make_fabric("cpu"), stop_after=11)
    assert stopped["stopped"]
    assert stopped["steps"] == 11
    train_discriminator(*arguments, tmp_path / "parts", settings, fabric=make_fabric("cpu"))
    name = "discriminator.safetensors"
    parts, whole = load_file(tmp_path / "parts" / name), load_file(tmp_path / "whole" / name)
    assert all(torch.equal(value, whole[key]) for key, value in parts.items())
    # And v1 starts from it.
    go("v1", replace(v1, discriminator=tmp_path / "whole" / name), tmp_path / "v1", epochs=1, batches_per_epoch=1)
    with pytest.raises(InvalidInputError, match=r"steps must be at least 1, got 0"):
        DiscriminatorStart(steps=0)


def test_the_command_line_trains_and_resumes(
    v1: FineTuneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "train", "finetune", "v1", "--generator", str(v1.generator), "--discriminator", str(v1.discriminator),
        "--images", str(v1.images), "--scores", str(v1.scores), "--set", "batch_size=4", "--set", "epochs=1",
        "--out", str(tmp_path), "--accelerator", "cpu", "--json",
    ]  # fmt: skip
    runner = CliRunner()
    first = runner.invoke(app, [*command, "--stop-after", "2"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout.splitlines()[-1])["stopped"]
    original = GanSteps.train_batch
    with monkeypatch.context() as patched:
        patched.setattr(GanSteps, "train_batch", lambda *a: (os.kill(os.getpid(), signal.SIGTERM), original(*a))[1])
        interrupted = runner.invoke(app, [*command, "--set", "epochs=2"])
    assert interrupted.exit_code == 130
    assert json.loads(interrupted.stdout.splitlines()[-1])["steps"] == BATCHES
    second = runner.invoke(app, command)
    assert json.loads(second.stdout.splitlines()[-1])["steps"] == BATCHES
    wrong = runner.invoke(app, [*command, "--set", "mixing=2"])
    assert isinstance(wrong.exception, InvalidInputError)
    shown = runner.invoke(app, ["train", "finetune", "v4", "--compat", "--show"])
    assert json.loads(shown.stdout)["mixing"] == 0.9
