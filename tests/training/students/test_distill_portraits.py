"""Distillation from several sources: real pictures, portraits, a generator's pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training.data import generated_faces
from ohlora.training.data.portrait_faces import HELD_OUT_SEEDS, TEST_SEEDS, TRAIN_SEEDS, write_portraits
from ohlora.training.nets.effisegnet import EffiSegNet
from ohlora.training.students import distill
from ohlora.training.students.distill import HairLesson, run
from ohlora.training.students.recipes import PRESETS, DistillConfig, PortraitMix, preset, with_portraits
from ohlora.training.students.report import epoch_line, figures_line, write_report
from ohlora.training.students.sources import (
    REAL,
    Sources,
    Split,
    epoch_order,
    find_sources,
    next_in_turn,
)
from ohlora.training.weights.student import load_student
from tests.support import small_distillations
from tests.support.imitators import Imitator, Stranger
from tests.support.small_distillations import SHORT

MIX = PortraitMix(portraits=6, held_out=2, resolution=64)
TINY = DistillConfig(**SHORT, mix=MIX)


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine "real" people."""
    return small_distillations.write_portraits(tmp_path_factory.mktemp("real"), [64] * 9)


def imitate(monkeypatch: pytest.MonkeyPatch, kind: type[Imitator] = Imitator) -> None:
    monkeypatch.setattr(generated_faces, "open_generator", lambda source: kind())


def numbered(real: int, drawn: dict[str, int]) -> Sources:
    """Sources of made-up sizes, without pictures."""
    splits = {REAL: Split(np.arange(real), np.arange(0), np.arange(0))}
    start = real
    for name, size in drawn.items():
        splits[name] = Split(np.arange(start, start + size), np.arange(0), np.arange(0))
        start += size
    return Sources([], [], splits, {})


# --- what an epoch holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "drawn"), [(0.5, 100), (0.2, 25), (0.75, 300)])
def test_share_of_drawn_pictures(share: float, drawn: int) -> None:
    config = replace(TINY, mix=replace(MIX, share=share))
    order = epoch_order(numbered(100, {"portraits": 1000}), config, 0)
    assert len(order) == 100 + drawn
    assert set(range(100)) <= set(order)  # every real picture, once
    assert len(set(order)) == len(order)


def test_share_is_divided_between_the_drawn_sources() -> None:
    order = epoch_order(numbered(101, {"portraits": 300, "generated": 300}), TINY, 0)
    counts = [int(((order >= low) & (order < high)).sum()) for low, high in ((0, 101), (101, 401), (401, 701))]
    assert counts == [101, 51, 50]


def test_all_portraits_take_their_turn_before_any_comes_again() -> None:
    pool = np.arange(50, 80)
    epochs = [next_in_turn(pool, 12, epoch, (7, 0)) for epoch in range(5)]
    flat = np.concatenate(epochs)
    assert sorted(flat[:30]) == sorted(flat[30:60]) == list(pool)
    assert list(flat[:30]) != list(flat[30:60])
    assert np.array_equal(next_in_turn(pool, 12, 3, (7, 0)), epochs[3])
    # A pool smaller than its part of one epoch is gone through several times.
    few = next_in_turn(pool[:2], 5, 0, (7, 0))
    assert sorted(few[:2]) == sorted(few[2:4]) == [50, 51]


def test_epochs_differ_and_repeat_exactly() -> None:
    sources = numbered(20, {"portraits": 100})
    one, again, other = (epoch_order(sources, TINY, epoch) for epoch in (0, 0, 1))
    assert np.array_equal(one, again)
    assert set(one) != set(other)


def test_real_pictures_alone_are_shuffled_as_before() -> None:
    config = replace(TINY, mix=None)
    expected = np.random.default_rng((config.seed, 4)).permutation(np.arange(30))
    assert np.array_equal(epoch_order(numbered(30, {}), config, 4), expected)
    assert "mix" not in config.as_dict()  # so a run from before portraits still resumes


# --- sources ---------------------------------------------------------------------------------------------------------


def test_sources_keep_held_out_people_apart(real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch)
    config = replace(TINY, mix=replace(MIX, generator="some.safetensors", generated=4))
    notes: list[str] = []
    sources = find_sources([real_folder], tmp_path, config, notes.append)
    assert list(sources.splits) == ["real", "portraits", "generated"]
    assert sources.origin["generated"]["generator"] == "imitator"
    assert any("some.safetensors" in note for note in notes)
    for name, first in (("portraits", "portrait"), ("generated", "generated")):
        split = sources.splits[name]
        train, held = ([sources.pictures[i].name for i in part] for part in (split.train, split.test))
        assert train[0] == f"{first}_{TRAIN_SEEDS.start}"
        assert held == [f"{first}_{HELD_OUT_SEEDS.start + i}" for i in range(2)]
        assert len(train) == {"portraits": 6, "generated": 4}[name]
    for image, label in HairLesson(sources, config).batches(0):
        assert image.shape[1:] == (3, 64, 64)
        assert label.shape[1:] == (1, 64, 64)
        assert float(label.min()) >= 0
        assert float(label.max()) <= 1


def test_portraits_from_a_folder(real_folder: Path, tmp_path: Path) -> None:
    write_portraits(tmp_path / "set", count=3, resolution=32)
    config = with_portraits(replace(TINY, mix=None), str(tmp_path / "set"))
    assert config.mix is not None
    sources = find_sources([real_folder], tmp_path, replace(config, mix=replace(config.mix, held_out=1)))
    assert [sources.pictures[i].name for i in sources.splits["portraits"].train] == [
        f"portrait_{seed}" for seed in range(TRAIN_SEEDS.start, TRAIN_SEEDS.start + 3)
    ]


@pytest.mark.parametrize("kept", [HELD_OUT_SEEDS, TEST_SEEDS])
def test_folder_with_held_out_people_is_refused(real_folder: Path, tmp_path: Path, kept: range) -> None:
    write_portraits(tmp_path / "set", count=2, resolution=16, first_seed=kept.start - 1)
    config = replace(TINY, mix=replace(MIX, folder=str(tmp_path / "set")))
    with pytest.raises(InvalidInputError, match="kept for measuring"):
        find_sources([real_folder], tmp_path, config)


def test_foreign_generator_is_refused(real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, Stranger)
    with pytest.raises(InvalidInputError, match="does not draw the portraits"):
        find_sources([real_folder], tmp_path, replace(TINY, mix=replace(MIX, generator="g.safetensors")))


# --- recipes and options ---------------------------------------------------------------------------------------------


def test_portrait_recipe_goes_on_from_a_student() -> None:
    with pytest.raises(InvalidInputError, match="--start-from"):
        preset("portraits")
    config = preset("portraits", start_from="s.safetensors")
    assert config.mix == PortraitMix()
    assert PRESETS["few-faces"].mix is PRESETS["documented"].mix is None


def test_portrait_options() -> None:
    plain, mixed = PRESETS["few-faces"], PRESETS["portraits"]
    assert with_portraits(plain, None) is plain
    some = with_portraits(plain, "300", share=0.25).mix
    assert some is not None
    assert (some.portraits, some.generator, some.share) == (300, None, 0.25)
    only = with_portraits(plain, None, generator="g.safetensors", generated=70).mix
    assert only is not None
    assert (only.portraits, only.folder, only.generator, only.generated) == (0, None, "g.safetensors", 70)
    both = with_portraits(mixed, None, generator="demo").mix
    assert both is not None
    assert (both.portraits, both.generator) == (PortraitMix().portraits, "demo")
    folder = with_portraits(mixed, "data/set").mix
    assert folder is not None
    assert (folder.portraits, folder.folder) == (0, "data/set")


@pytest.mark.parametrize(
    ("portraits", "changes", "what"),
    [
        ("300", {"share": 0.0}, "between 0 and 1"),
        ("300", {"share": 1.0}, "between 0 and 1"),
        ("0", {}, "without portraits"),
        ("300", {"generator": "demo", "generated": 0}, "generated must be at least 1, got 0"),
        (None, {"generated": 5}, "need --portraits or --generated"),
        (None, {"share": 0.5}, "need --portraits or --generated"),
    ],
)
def test_impossible_portrait_options(portraits: str | None, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        with_portraits(PRESETS["few-faces"], portraits, **changes)


# --- the stage -------------------------------------------------------------------------------------------------------


def test_epoch_is_chosen_by_the_mean_over_real_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {0: 0.4, 1: 0.1, 2: 0.3}  # by the first index of a source

    def measured(self: Any, model: Any, indices: np.ndarray, device: Any) -> tuple[float, Any]:
        class Figures:
            def summary(self) -> dict[str, float]:
                return {"iou": 0.5 + int(indices[0])}

        return losses[int(indices[0])], Figures()

    def validated(splits: dict[str, Split]) -> dict[str, Any]:
        model, device = EffiSegNet.__new__(EffiSegNet), torch.device("cpu")
        return HairLesson(Sources([], [], splits, {}), TINY).validate(model, device)

    monkeypatch.setattr(HairLesson, "measure", measured)
    held = {name: Split(np.arange(0), np.array([i]), np.array([i])) for i, name in enumerate((REAL, "a", "b"))}
    row = validated(held)
    assert row["valid_loss"] == pytest.approx((0.4 + (0.1 + 0.3) / 2) / 2)
    assert row["iou"] == 0.5
    assert {name: part["valid_loss"] for name, part in row["sources"].items()} == {REAL: 0.4, "a": 0.1, "b": 0.3}
    alone = validated({REAL: held[REAL]})
    assert alone == {"valid_loss": 0.4, "iou": 0.5}
    # Nothing real is held out: drawn pictures are measured, but they choose nothing.
    empty = Split(np.arange(5), np.arange(0), np.arange(0))
    assert "valid_loss" not in validated({**held, REAL: empty})


def stop_after(epochs: int) -> Any:
    def report(row: dict[str, Any]) -> None:
        if row["epoch"] + 1 == epochs:
            raise KeyboardInterrupt

    return report


def test_stopped_mixed_run_resumes_to_the_same_weights(
    real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitate(monkeypatch)
    config = replace(TINY, mix=replace(MIX, generator="g.safetensors", generated=3))
    rows: list[dict[str, Any]] = []
    whole, sources = run([real_folder], tmp_path / "a", config, accelerator="cpu", report=rows.append)
    with pytest.raises(KeyboardInterrupt):
        run([real_folder], tmp_path / "b", config, accelerator="cpu", report=stop_after(1))
    resumed, _ = run([real_folder], tmp_path / "b", config, accelerator="cpu")
    one, other = (load_student(tmp_path / run / "student.safetensors").state_dict() for run in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole["sources"] == resumed["sources"]
    assert whole["test"] == whole["sources"]["real"]["test"]
    assert list(whole["sources"]["generated"]["test_faces"]) == [
        f"generated_{HELD_OUT_SEEDS.start + i}" for i in (0, 1)
    ]
    assert set(rows[0]["sources"]) == {"real", "portraits", "generated"}
    assert "portraits IoU" in epoch_line(rows[0], 2)
    assert "held out, generated" in figures_line(tmp_path, whole)
    changed = replace(config, mix=replace(MIX, generator="g.safetensors", generated=3, share=0.4))
    with pytest.raises(InvalidInputError, match=r"other config \(mix was"):
        run([real_folder], tmp_path / "b", changed, accelerator="cpu")
    write_report(tmp_path / "a", whole, sources.pictures)
    text = (tmp_path / "a" / "report.md").read_text()
    assert "held-out people" in text
    assert "unseen generated" in text
    for sheet in ("overlays.jpg", "overlays_portraits.jpg", "overlays_generated.jpg"):
        assert (tmp_path / "a" / sheet).stat().st_size > 1000


def test_loss_that_is_no_number_stops_and_keeps_the_weights(
    real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, holdout=0.0, mix=None, phases=((64, 1),))
    run([real_folder], tmp_path, config, accelerator="cpu")
    before = (tmp_path / "student.safetensors").read_bytes()
    monkeypatch.setitem(distill.LOSSES, "soft_bce", lambda logits, label: logits.sum() * float("nan"))
    with pytest.raises(OhloraError, match="stopped at epoch 1: the loss 'training' is nan"):
        run([real_folder], tmp_path, config, accelerator="cpu", resume=False)
    assert (tmp_path / "student.safetensors").read_bytes() == before


def test_command_passes_the_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from ohlora.cli import app
    from ohlora.training.students import report

    seen: list[DistillConfig] = []

    def recorded(data: Any, out: Any, config: DistillConfig, **options: Any) -> tuple[dict[str, Any], Sources]:
        seen.append(config)
        return {"config": config.as_dict()}, Sources([], [], {}, {})

    monkeypatch.setattr(distill, "run", recorded)
    monkeypatch.setattr(report, "write_report", lambda *arguments: None)
    job = ["train", "distill", "--data", "faces", "--out", str(tmp_path), "--recipe", "portraits"]
    options = ["--start-from", "s.safetensors", "--generated", "demo", "--generated-count", "9"]
    done = CliRunner().invoke(app, [*job, *options, "--portraits", "4", "--portrait-share", "0.25", "--json"])
    assert done.exit_code == 0, done.output
    assert seen[0].mix == PortraitMix(share=0.25, portraits=4, generator="demo", generated=9)
    assert seen[0].start_from == "s.safetensors"
    assert json.loads(done.stdout)["config"]["mix"]["generator"] == "demo"
    assert CliRunner().invoke(app, job).exit_code != 0  # a student to start from is missing
