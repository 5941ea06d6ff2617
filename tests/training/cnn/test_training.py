"""Training of classifiers: folds, retry rule, logs, resume."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.errors import CheckpointError, InvalidInputError, OhloraError, OutputError
from ohlora.io.images import encode_image
from ohlora.training import checkpoints
from ohlora.training.cnn import pictures
from ohlora.training.cnn.classifier import train_classifier, until_success
from ohlora.training.cnn.folds import make_folds, split_once
from ohlora.training.cnn.loop import finished
from ohlora.training.cnn.objectives import Classification, Regression
from ohlora.training.cnn.recipes import (
    CLASSIFIERS,
    KEEP_BEST,
    ClassifierRecipe,
    classifier_recipe,
    score_cnn_recipe,
)
from ohlora.training.data.labels import Labels, write_labels
from ohlora.training.data.portraits.parameters import index, parameters_from_seeds
from ohlora.training.data.portraits.render import render
from ohlora.training.loop.steps import EpochState, train_epochs
from tests.support.cnn_processes import train
from tests.support.score_cnn_pictures import write_pictures, write_v3_labels

COUNT = 24
OLD_LISTS = {
    "losses": "loss",
    "rows": "figures",
    "outputs": "outputs",
}  # of states before `training/loop`


def tiny(**changes: Any) -> ClassifierRecipe:
    return classifier_recipe(
        "v3",
        "glass",
        **{"width": 0.03, "folds": 2, "epochs": 3, "batch_size": 8, "threshold": 10.0, "learning_rate": 1e-3} | changes,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of pictures, label table."""
    folder = tmp_path_factory.mktemp("labelled")
    return write_pictures(folder / "images", COUNT), write_v3_labels(folder / "labels.csv", COUNT)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- folds ----


@given(
    st.integers(2, 6).flatmap(
        lambda folds: st.tuples(
            st.just(folds), st.integers(folds, 40), st.integers(folds, 40), st.integers(0, 2**32 - 1)
        )
    ),
    st.sampled_from(["k-fold", "stratified"]),
)
@settings(max_examples=60, deadline=None)
def test_folds_hold_every_row_out_once(sizes: tuple[int, int, int, int], kind: str) -> None:
    folds, ones, zeros, seed = sizes
    labels = np.random.default_rng(seed).permutation(np.r_[np.ones(ones), np.zeros(zeros)])
    splits = make_folds("age", labels, folds, kind, seed)
    assert len(splits) == folds
    held = np.concatenate([split.validation for split in splits])
    assert sorted(held) == list(range(len(labels)))
    for split in splits:
        assert sorted([*split.train, *split.validation]) == list(range(len(labels)))
        if kind == "stratified":
            assert abs(labels[split.validation].sum() - ones / folds) < 1
    again = make_folds("age", labels, folds, kind, seed)
    assert all(np.array_equal(a.validation, b.validation) for a, b in zip(splits, again, strict=True))


def test_folds_are_seeded_and_the_documented_size() -> None:
    labels = np.r_[np.ones(128), np.zeros(1872)]
    splits = make_folds("age", labels, 5, "stratified", 0)
    assert [(len(s.train), len(s.validation)) for s in splits] == [(1600, 400)] * 5
    other = make_folds("age", labels, 5, "stratified", 1)
    assert not np.array_equal(splits[0].validation, other[0].validation)


@pytest.mark.parametrize(
    ("ones", "words"), [(1, "1 of 20 pictures has"), (4, "4 of 20 pictures have"), (0, "0 of 20 pictures have")]
)
def test_a_class_with_too_few_members(ones: int, words: str) -> None:
    labels = np.r_[np.ones(ones), np.zeros(20 - ones)]
    for kind in ("k-fold", "stratified"):
        with pytest.raises(InvalidInputError, match=f"{words} glass = 1, 5 folds need at least 5: label more"):
            make_folds("glass", labels, 5, kind, 0)


def test_split_of_the_documented_sets() -> None:
    assert [len(part) for part in vars(split_once("property", 4703, 0.9, 0)).values()] == [4232, 471]
    assert len(split_once("hairstyle", 4930, 0.9, 0).train) == 4437
    with pytest.raises(InvalidInputError, match="1 pictures cannot be split"):
        split_once("property", 1, 0.9, 0)


# ---- recipes and schedules ----


def test_documented_rows() -> None:
    assert {a: r.threshold for a, r in CLASSIFIERS["v3"].items()} == {
        "gender": 0.35, "quality": 0.13, "age": 0.23, "glass": 0.10,
    }  # fmt: skip
    assert {a: r.log_threshold for a, r in CLASSIFIERS["v3"].items()} == {
        "gender": 0.5, "quality": 0.9, "age": 0.1, "glass": 0.1,
    }  # fmt: skip
    assert CLASSIFIERS["v1"]["gender"].split == "k-fold"
    assert CLASSIFIERS["v1"]["quality"].split == CLASSIFIERS["v3"]["gender"].split == "stratified"
    assert [CLASSIFIERS["v3"][a].start for a in CLASSIFIERS["v3"]] == ["v1-model", "v1-model", "random", "random"]
    assert CLASSIFIERS["v3"]["age"].learning_rate == 2.5e-5
    assert CLASSIFIERS["v3"]["age"].model_name(3) == "cnn_ohlora_v3_age_model_3"
    assert CLASSIFIERS["v1"]["gender"].model_name(0) == "gender_model_0"
    assert score_cnn_recipe("hairstyle").patience == 45


@pytest.mark.parametrize(
    ("recipe", "make"),
    [
        (CLASSIFIERS["v1"]["gender"], lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10, eta_min=0)),
        (score_cnn_recipe("hairstyle"), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.95)),
    ],
)
def test_rates_are_those_of_pytorch(recipe: Any, make: Any) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    scheduler = make(optimizer)
    for epoch in range(45):
        assert recipe.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15)
        optimizer.step()
        scheduler.step()
    assert CLASSIFIERS["v1"]["gender"].rate(10) == 0
    assert CLASSIFIERS["v1"]["gender"].rate(20) == 5e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"split": "half"}, "split must be k-fold or stratified, got 'half'"),
        ({"on_failure": "cry"}, "on_failure must be error or keep-best"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"width": 0}, "width must be"),
        ({"precision": "16"}, "unknown precision"),
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        tiny(**changes)


# ---- the retry rule and the end of an attempt, with scripted losses ----


@pytest.mark.parametrize(
    ("scripted", "kept", "made"),
    [
        ([0.05], 0, 1),
        ([0.10], 0, 1),  # at most the threshold
        ([0.3, 0.2, 0.09, 0.01], 2, 3),
    ],
)
def test_retry_stops_at_the_first_success(scripted: Sequence[float], kept: int, made: int) -> None:
    calls: list[int] = []

    def attempt(number: int) -> float:
        calls.append(number)
        return scripted[number]

    recipe = classifier_recipe("v3", "glass", max_attempts=4)
    assert until_success(recipe, 0, [], attempt) == kept
    assert calls == list(range(made))


def test_retry_is_bounded() -> None:
    recipe = classifier_recipe("v3", "glass", max_attempts=3)
    scripted = [0.4, 0.2, 0.3]
    with pytest.raises(OhloraError, match=r"glass, fold 2: the smallest validation loss of 3 attempts is 0.2000"):
        until_success(recipe, 2, [], scripted.__getitem__)
    best = replace(recipe, on_failure=KEEP_BEST)
    assert until_success(best, 2, [], scripted.__getitem__) == 1
    # Attempts made before an interruption count.
    assert until_success(best, 2, scripted[:2], scripted.__getitem__) == 1
    assert until_success(best, 2, scripted, lambda number: pytest.fail("no attempt is left")) == 1


def test_patience_counts_from_the_best_epoch() -> None:
    losses = [0.5, 0.4, 0.4, *[0.45] * 30]  # equal is not better
    state, recipe = EpochState(), classifier_recipe("v1", "gender")
    train_epochs(state, partial(finished, recipe=recipe), lambda epoch: ({}, losses[epoch]), keep=lambda: None)
    assert (state.best_epoch, state.epoch) == (1, 22)


# ---- figures ----


def test_figures_of_a_classifier() -> None:
    logits = np.array([[3.0], [-3.0], [0.1], [-0.1]], np.float32)
    row = Classification(0.5).measure(logits, np.array([[1.0], [0.0], [0.0], [1.0]], np.float32)).row
    assert (row["tp"], row["tn"], row["fp"], row["fn"]) == (1, 1, 1, 1)
    assert (row["val_accuracy"], row["val_recall"], row["val_f1_score"], row["val_auroc"]) == (0.5, 0.5, 0.5, 0.75)
    p = torch.sigmoid(torch.from_numpy(logits))
    wanted = torch.nn.functional.binary_cross_entropy(p, torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
    assert row["val_loss"] == pytest.approx(float(wanted), abs=1e-6)
    none = Classification(0.999).measure(logits, np.zeros((4, 1), np.float32)).row
    assert none["val_recall"] is none["val_precision"] is none["val_f1_score"] is none["val_auroc"] is None


def test_figures_of_scores_are_the_published_ones(shared: Path) -> None:
    log = rows(shared / "data" / "ohlora" / "v1" / "property_score_cnn" / "train_log_v2_cnn.csv")
    recipe = score_cnn_recipe("property")
    for row in log[::9]:
        total, spread = float(row["valid_loss"]), float(row["back_std_score_loss"])
        assert (7 * total - spread) / 6 == pytest.approx(float(row["val_loss_except_back_std"]), abs=2e-4)
    output = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    target = output + np.linspace(0, 1, 7, dtype=np.float32)
    measured = Regression(recipe.columns, recipe.excluded, recipe.excluded_log_name).measure(output, target)
    assert list(measured.row) == list(log[0])[1:]
    assert measured.loss == pytest.approx(float(np.square(np.linspace(0, 1, 7))[:6].mean()), rel=1e-5)
    assert measured.row["eyes_score_corr"] == pytest.approx(1)
    assert len(measured.outputs) == 30


# ---- whole trainings ----


def test_logs_have_the_published_layout(data: tuple[Path, Path], tmp_path: Path, shared: Path) -> None:
    result = train_classifier("glass", *data, tmp_path, tiny())
    published = shared / "data" / "ohlora" / "v3" / "generate_dataset" / "cnn_log"
    made = tmp_path / "log"
    for name in ("train_log_glass.csv", "epoch_detail_glass_0.csv"):
        assert (made / name).read_text().splitlines()[0] == (published / name).read_text().splitlines()[0]
    log = rows(made / "train_log_glass.csv")
    assert [row["fold_no"] for row in log] == ["0", "1"]
    detail = rows(made / "epoch_detail_glass_1.csv")
    losses = [float(row["val_loss"]) for row in detail]
    assert json.loads(log[1]["val_loss_list"]) == [round(loss, 4) for loss in losses]
    assert log[1]["total_epochs"] == str(len(losses)) == "3"
    assert log[1]["best_epoch"] == str(int(np.argmin(losses))) == str(result.best_epoch[1])
    assert log[1]["success"] == "True"
    assert float(log[1]["min_val_loss"]) == round(min(losses), 4)
    # The models measure as logged.
    for fold, model in enumerate(result.models):
        network = checkpoints.load("cnn-glass", model)
        published_file = checkpoints.load("cnn-glass", model.with_suffix(".pt"))
        image = torch.rand(1, 3, 256, 256)
        assert torch.equal(network(image), published_file(image))
        assert model.stem == f"cnn_ohlora_v3_glass_model_{fold}"


class Killed(Exception):
    pass


def test_resume_gives_the_same_weights(data: tuple[Path, Path], tmp_path: Path) -> None:
    whole = train_classifier("glass", *data, tmp_path / "whole", tiny())
    stopped = tmp_path / "stopped"

    def kill(row: dict[str, Any]) -> None:
        if (row["fold"], row["epoch"]) in kills:
            kills.discard((row["fold"], row["epoch"]))
            raise Killed

    kills = {(0, 1), (1, 0), (1, 1)}
    seen: list[tuple[int, int]] = []
    for _ in range(4):
        try:
            torch.rand(7)  # the caller's random stream has no part in it
            again = train_classifier(
                "glass",
                *data,
                stopped,
                tiny(),
                report=lambda row: (seen.append((row["fold"], row["epoch"])), kill(row))[0],
            )
        except Killed:
            continue
        break
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert again.min_val_loss == whole.min_val_loss
    for a, b in zip(whole.models, again.models, strict=True):
        first, second = weights(a.with_suffix(".pt")), weights(b.with_suffix(".pt"))
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert not list(stopped.glob("*.pt"))
    # A finished one is left alone, a lost model is made again.
    train_classifier("glass", *data, stopped, tiny(), report=lambda row: pytest.fail("nothing is to do"))
    again.models[0].unlink()
    third = train_classifier("glass", *data, stopped, tiny())
    assert all(torch.equal(v, weights(whole.models[0].with_suffix(".pt"))[k]) for k, v in weights(
        third.models[0].with_suffix(".pt")).items())  # fmt: skip
    assert [row["fold_no"] for row in rows(stopped / "log" / "train_log_glass.csv")] == ["0", "1"]


def test_states_of_older_versions_are_resumed(data: tuple[Path, Path], tmp_path: Path) -> None:
    whole = train_classifier("glass", *data, tmp_path / "whole", tiny())
    seen: list[tuple[int, int]] = []

    def kill(row: dict[str, Any]) -> None:
        seen.append((row["fold"], row["epoch"]))
        if seen == [(0, 0), (0, 1)]:
            raise Killed

    with pytest.raises(Killed):
        train_classifier("glass", *data, tmp_path / "old", tiny(), report=kill)
    path = tmp_path / "old" / "resume_glass.pt"
    saved = torch.load(path, weights_only=True)
    state, best = saved.pop("state"), saved.pop("best")
    old = {name: [row[key] for row in state["log"]] for name, key in OLD_LISTS.items()}
    kept = {"best_epoch": state["best_epoch"], "best_state": best, "seconds": state["seconds"]}
    parts = {key: saved[key] for key in ("identity", "purpose", "network", "optimizer")}
    torch.save({**parts, "attempt": {**old, **kept}}, path)
    again = train_classifier("glass", *data, tmp_path / "old", tiny(), report=kill)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert again.min_val_loss == whole.min_val_loss
    first, second = (weights(result.models[0].with_suffix(".pt")) for result in (whole, again))
    assert all(torch.equal(first[key], second[key]) for key in first)
    detail = [tmp_path / name / "log" / "epoch_detail_glass_0.csv" for name in ("whole", "old")]
    assert detail[0].read_bytes() == detail[1].read_bytes()


def test_failed_attempts_are_logged_and_the_best_is_kept(data: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tiny(threshold=1e-9, max_attempts=2, epochs=1)
    with pytest.raises(OhloraError, match="fold 0: the smallest validation loss of 2 attempts"):
        train_classifier("glass", *data, tmp_path, recipe)
    log = rows(tmp_path / "log" / "train_log_glass.csv")
    assert [(row["fold_no"], row["success"]) for row in log] == [("0", "False")] * 2
    assert log[0]["val_loss_list"] != log[1]["val_loss_list"]  # other initial weights
    # The same folder goes on with the attempts that are there.
    seen: list[tuple[int, int]] = []
    result = train_classifier(
        "glass",
        *data,
        tmp_path,
        replace(recipe, on_failure=KEEP_BEST),
        report=lambda row: seen.append((row["fold"], row["attempt"])),
    )
    assert seen == [(1, 0), (1, 1)]
    assert result.success == (False, False)
    assert result.attempts == (2, 2)
    losses = [min(json.loads(row["val_loss_list"])) for row in rows(tmp_path / "log" / "train_log_glass.csv")]
    assert result.min_val_loss == pytest.approx((min(losses[:2]), min(losses[2:])), abs=1e-4)
    detail = rows(tmp_path / "log" / "epoch_detail_glass_0.csv")
    assert float(detail[0]["val_loss"]) == pytest.approx(min(losses[:2]), abs=1e-4)


def test_start_weights(data: tuple[Path, Path], tmp_path: Path) -> None:
    glass = train_classifier("glass", *data, tmp_path / "first", tiny(epochs=1))
    recipe = tiny(start="v1-model", learning_rate=1e-12, epochs=1)
    tuned = train_classifier("glass", *data, tmp_path / "second", recipe, start_from=glass.models[0])
    before, after = weights(glass.models[0].with_suffix(".pt")), weights(tuned.models[1].with_suffix(".pt"))
    assert all(torch.allclose(before[key], after[key], atol=1e-9) for key in before)
    with pytest.raises(InvalidInputError, match="starts from a v1 model: name its weights"):
        train_classifier("glass", *data, tmp_path / "third", recipe)
    with pytest.raises(InvalidInputError, match="use --width"):
        train_classifier("glass", *data, tmp_path / "third", replace(recipe, width=0.1), start_from=glass.models[0])
    with pytest.raises(InvalidInputError, match="starts from random weights"):
        train_classifier("glass", *data, tmp_path / "third", tiny(), start_from=glass.models[0])
    gender = classifier_recipe("v3", "gender", width=0.03)
    with pytest.raises(CheckpointError, match="no 'cnn-gender'"):
        train_classifier("gender", *data, tmp_path / "third", gender, start_from=glass.models[0])
    assert not (tmp_path / "third").exists()


def test_labels_of_other_pictures_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    labels = Labels(np.arange(20, 20 + COUNT), {"gender": np.arange(COUNT) % 2.0, "quality": np.arange(COUNT) % 2.0})
    write_labels(tmp_path / "v1.csv", labels, "v1")
    recipe = classifier_recipe("v1", "gender", width=0.03)
    with pytest.raises(
        InvalidInputError, match=r"20 of 24 labels have no picture in .*: number 24, 25, 26, 27, 28 [.]{3}"
    ):
        train_classifier("gender", data[0], tmp_path / "v1.csv", tmp_path / "out", recipe)
    with pytest.raises(InvalidInputError, match="no labels for 'age'"):
        train_classifier("age", data[0], tmp_path / "v1.csv", tmp_path / "out", classifier_recipe("v3", "age"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_training_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    train_classifier("glass", *data, tmp_path, tiny(epochs=1))
    with pytest.raises(InvalidInputError, match=r"with other recipe \(batch_size was 8, now 4\): choose another --out"):
        train_classifier("glass", *data, tmp_path, tiny(epochs=1, seed=3, batch_size=4))
    train_classifier("glass", *data, tmp_path, tiny(epochs=1, seed=3), resume=False)


def test_a_loss_that_is_no_number_stops(data: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        OhloraError, match=r"stopped at glass fold 0 attempt 0, epoch \d: the loss '\w+' is \S+ No epoch before it"
    ):
        train_classifier("glass", *data, tmp_path, tiny(learning_rate=1e30, epochs=4))


def test_a_full_disk_is_named(data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"cannot write .*resume_glass.pt: the disk is full"):
            train_classifier("glass", *data, tmp_path, tiny(epochs=1))
    train_classifier("glass", *data, tmp_path, tiny(epochs=1))


def test_many_pictures_go_to_disk(data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_classifier("glass", *data, tmp_path / "memory", tiny(epochs=1))
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", 1000)
    notes: list[str] = []
    again = train_classifier("glass", *data, tmp_path / "disk", tiny(epochs=1), note=notes.append)
    assert "24 pictures" in notes[0]
    assert list((tmp_path / "disk").glob("pictures-*/chunk-*.npy"))
    assert again.min_val_loss == whole.min_val_loss


def test_it_learns_what_is_visible(data: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tiny(epochs=12, width=0.1, learning_rate=3e-3, threshold=0.1, batch_size=4)
    result = train_classifier("glass", *data, tmp_path, recipe)
    assert max(result.min_val_loss) < 0.1
    last = rows(tmp_path / "log" / "epoch_detail_glass_0.csv")[result.best_epoch[0]]
    assert last["val_auroc"] == "1.0"


@pytest.mark.slow  # starts Python and PyTorch twice
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    images, labels = write_pictures(tmp_path / "images", 26), write_v3_labels(tmp_path / "labels.csv", 26)
    alone = train(images, labels, tmp_path / "one", 1)
    command = [sys.executable, "-m", "tests.support.cnn_processes", images, labels, tmp_path / "two", "2"]
    done = subprocess.run(
        [*map(str, command)],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for model in alone.models:
        first = weights(model.with_suffix(".pt"))
        second = weights(tmp_path / "two" / "models" / model.with_suffix(".pt").name)
        assert max(float((first[key] - second[key]).abs().max()) for key in first) < 1e-5
    assert len(rows(tmp_path / "two" / "log" / "train_log_glass.csv")) == 2


@pytest.mark.slow  # half a minute
def test_hair_of_portraits_is_learned(tmp_path: Path) -> None:
    """Fair or dark, with the quality classifier, which looks at the top of the picture."""
    count = 160
    fair = np.arange(count) % 2.0
    parameters = parameters_from_seeds(range(count))
    parameters[:, index("hair_shade")] = np.where(fair, 0.95, 0.05)
    parameters[:, index("hair_grey")], parameters[:, index("hair_length")] = 0.0, 0.7
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(render(parameters, 128).images):
        (images / f"{number:06d}.png").write_bytes(encode_image(image, "png"))
    write_labels(tmp_path / "labels.csv", Labels(np.arange(count), {"quality": fair, "gender": fair}), "v1")
    recipe = classifier_recipe(
        "v1",
        "quality",
        width=0.125,
        folds=2,
        epochs=16,
        half_period=20,
        batch_size=4,
        learning_rate=1e-3,
        threshold=0.5,
        log_threshold=0.5,
    )
    result = train_classifier("quality", images, tmp_path / "labels.csv", tmp_path / "out", recipe)
    # Always answering 0.5 has a loss of 0.693.
    assert max(result.min_val_loss) < 0.5
    for fold in range(2):
        detail = rows(tmp_path / "out" / "log" / f"epoch_detail_quality_{fold}.csv")[result.best_epoch[fold]]
        assert float(detail["val_auroc"]) > 0.95
