"""Training in the zoo: resuming, stopping, the best epoch, and the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("lightning")

from ohlora.cli import app  # noqa: E402 - needs torch
from ohlora.errors import InvalidInputError, OhloraError  # noqa: E402
from ohlora.training.hairzoo import loop  # noqa: E402
from ohlora.training.hairzoo.checkpoint import load_checkpoint  # noqa: E402
from ohlora.training.hairzoo.config import ZooConfig  # noqa: E402
from ohlora.training.hairzoo.loop import run  # noqa: E402
from tests.support import hairzoo_sets  # noqa: E402

TINY = "tu-test_efficientnet"
CONFIG = ZooConfig(
    encoder_type=TINY, decoder_type="Linknet", image_size=64, epochs=3, batch_size=2, encoder_lr=1e-3,
    scheduler="CosineAnnealingLR", accumulation=2, floor=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def celeb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hairzoo_sets.celeb(tmp_path_factory.mktemp("celeb"), 12)


class Killed(Exception):
    pass


def test_a_stopped_run_resumes_to_the_same_weights(celeb: Path, tmp_path: Path) -> None:
    whole = run(CONFIG, [celeb], tmp_path / "whole", accelerator="cpu")

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        run(CONFIG, [celeb], tmp_path / "parts", accelerator="cpu", report=kill)
    last = tmp_path / "parts" / "last.pt"
    saved = torch.load(last, weights_only=True)
    torch.save({key: saved[key] for key in saved.keys() - {"format", "logged"}}, last)  # as before `training/loop`
    rows: list[dict[str, Any]] = []
    resumed = run(CONFIG, [celeb], tmp_path / "parts", accelerator="cpu", report=rows.append)
    assert [row["epoch"] for row in rows] == [2]
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in r["log"]] for r in (whole, resumed)]
    assert untimed[0] == untimed[1]
    states = [load_checkpoint(tmp_path / name / CONFIG.file_name).state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    # Best: strictly larger held-out Dice.
    dice = [row["valid_dice"] for row in whole["log"]]
    assert whole["best_epoch"] == int(np.argmax(dice))
    assert [row["best"] for row in whole["log"]] == [d > max(dice[:i], default=-1) for i, d in enumerate(dice)]
    assert {p.name for p in (tmp_path / "whole").iterdir()} == {
        CONFIG.file_name, "inputs.json", "last.pt", "log.jsonl", "report.json", "left_out.json", "overlays.jpg",
    }  # fmt: skip
    # Another recipe in the same folder is refused; how it is computed may change.
    with pytest.raises(InvalidInputError, match=r"other config \(encoder_lr was 0.001, now 0.002\)"):
        run(replace(CONFIG, encoder_lr=2e-3), [celeb], tmp_path / "whole", accelerator="cpu")
    assert run(CONFIG, [celeb], tmp_path / "whole", accelerator="cpu", workers=1)["log"] == whole["log"]


def test_accumulated_batches_are_one_large_one(celeb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loss that is a plain mean, and norms that do not look at the batch, two halves are the whole."""
    monkeypatch.setitem(loop.LOSSES, "bce-dice", torch.nn.functional.binary_cross_entropy_with_logits)
    image, label = torch.randn(4, 3, 64, 64), (torch.rand(4, 1, 64, 64) > 0.5).float()
    weights = []
    for batch, parts in ((4, 1), (2, 2)):
        config = replace(CONFIG, batch_size=batch, accumulation=parts)
        training = loop.Run(config, loop.open_data(config, [celeb]), tmp_path, accelerator="cpu")
        for module in training.raw.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                monkeypatch.setattr(module, "forward", lambda x: x)
        pairs = [[image[i : i + batch], label[i : i + batch]] for i in range(0, 4, batch)]
        before = torch.cat([p.detach().flatten() for p in training.raw.parameters()])
        training.train_epoch(pairs, 0)
        weights.append(torch.cat([p.detach().flatten() for p in training.raw.parameters()]) - before)
    # Adam's first step is the sign of the gradient; where that is rounding noise the two may differ.
    assert torch.isclose(weights[0], weights[1], atol=1e-4).float().mean() > 0.98
    assert weights[0].abs().max() > 5e-4


def test_a_loss_that_is_no_number_stops_and_keeps_the_epoch_before(
    celeb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, epochs=2)
    documented = loop.LOSSES["bce-dice"]
    calls = []

    def broken(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return documented(logits, label) * (float("nan") if len(calls) > 8 else 1.0)

    monkeypatch.setitem(loop.LOSSES, "bce-dice", broken)
    with pytest.raises(OhloraError, match="stopped at epoch 2: the loss 'training' is nan"):
        run(config, [celeb], tmp_path, accelerator="cpu")
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert saved["state"]["epoch"] == 1
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


def test_data_and_options_that_cannot_work(celeb: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown decoder"):
        run(replace(CONFIG, decoder_type="Unett"), [celeb], tmp_path / "nothing", accelerator="cpu")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InvalidInputError, match="--batch-size"):
        run(replace(CONFIG, batch_size=50), [celeb], tmp_path, accelerator="cpu")
    with pytest.raises(InvalidInputError, match="--data"):
        run(CONFIG, [], tmp_path)
    with pytest.raises(InvalidInputError, match="one folder, got 2"):
        run(CONFIG, [celeb, celeb], tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="fp16"):
            run(replace(CONFIG, precision="fp16"), [celeb], tmp_path, accelerator="cpu")
    with pytest.raises(InvalidInputError, match="--batch-size 2"):
        run(replace(CONFIG, decoder_type="DeepLabV3", batch_size=1), [celeb], tmp_path / "one", accelerator="cpu")


def test_dice_rises_and_the_commands_show_it(celeb: Path, tmp_path: Path) -> None:
    """Train, look at the report, start another from its weights, and find hair with it."""
    runner, out = CliRunner(), tmp_path / "run"
    arguments = [
        "train", "hairzoo", "--data", str(celeb), "--out", str(out), "--encoder-type", TINY,
        "--decoder-type", "Linknet",
        "--img-size", "64", "--epochs", "6", "--batch-size", "2", "--encoder-lr", "0.003", "--accelerator", "cpu",
        "--json",
    ]  # fmt: skip
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    dice = [row["valid_dice"] for row in result["log"]]
    assert result["best_dice"] == max(dice) > dice[0]
    assert result["best_dice"] > 0.7
    assert result["held_out"]["dice"] == pytest.approx(result["best_dice"], abs=0.05)
    assert result["pictures"] == {"train": 9, "held_out": 3, "left_out": 0}
    finished = runner.invoke(app, arguments[:-1])
    assert f"network -> {out / result['checkpoint']}" in finished.output
    assert "all 3 held-out pictures pooled: iou " in finished.output

    again = run(replace(CONFIG, epochs=1, start_from=str(out / result["checkpoint"])), [celeb], tmp_path / "second")
    assert again["log"][0]["valid_dice"] > dice[0]

    photos = tmp_path / "photos"
    image, mask = hairzoo_sets.blob(50, 90)
    hairzoo_sets.write(photos / "a.png", image)
    (photos / "b.png").write_bytes(b"no picture")
    found = runner.invoke(
        app, ["train", "hairzoo-inference", str(out / result["checkpoint"]), str(photos), "--out", str(tmp_path / "r"),
              "--json"],
    )  # fmt: skip
    assert found.exit_code == 1  # one of them failed
    summary = json.loads(found.stdout)
    assert summary["img_size"] == 64  # as trained, from report.json
    assert list(summary["failed"]) == [str(photos / "b.png")]
    written = cv2.imread(str(tmp_path / "r/a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert written.shape == (90, 90)
    assert set(np.unique(written)) <= {0, 255}
    agree = 2 * ((written > 0) & (mask > 0)).sum() / ((written > 0).sum() + (mask > 0).sum())
    assert agree > 0.7
    side = cv2.imread(str(tmp_path / "r/a_output.jpg"))
    assert side.shape == (90, 2 * 90 + 8, 3)
    assert np.abs(side[:, :90, ::-1].astype(int) - image).mean() < 12  # the picture, not a blank figure
    assert np.abs(side[:, -90:, 0].astype(int) - written).mean() < 6


@pytest.mark.parametrize("kind", ["korean", "faces"])
def test_other_data_sets_train(kind: str, tmp_path: Path) -> None:
    folder = getattr(hairzoo_sets, kind)(tmp_path / "data")
    config = replace(CONFIG, data_type=kind, epochs=1)
    result = run(config, [folder], tmp_path / "run", accelerator="cpu")
    assert (tmp_path / "run" / f"{TINY}_Linknet_fold0_{'light' if kind == 'korean' else 'faces'}.pth").is_file()
    assert result["pictures"]["train"] > 0
    assert 0 <= result["best_dice"] <= 1


def test_preparing_from_the_command_line(tmp_path: Path) -> None:
    source = hairzoo_sets.published_celeb(tmp_path / "source", 7, without_mask=(2,))
    done = CliRunner().invoke(app, ["train", "hairzoo-data", str(source), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["pictures"] == summary["copied"] == 6
    assert summary["left_out"] == {"00002": "no hair mask"}


def test_what_a_training_found_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = dict.fromkeys(("iou", "dice", "recall", "precision"), 0.5)
    result = {"checkpoint": "a.pth", "best_epoch": 1, "epochs": 3, "best_dice": 0.25, "pictures": {"held_out": 2}}
    monkeypatch.setattr(loop, "run", lambda *given, **options: {**result, "held_out": figures})
    done = CliRunner().invoke(app, ["train", "hairzoo", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert done.output.splitlines() == [
        f"network -> {tmp_path / 'a.pth'}",
        "best epoch 2 of 3, Dice 0.2500; all 2 held-out pictures pooled: iou 0.5000, dice 0.5000, recall 0.5000, "
        "precision 0.5000",
    ]


def test_names_are_listed() -> None:
    names = json.loads(CliRunner().invoke(app, ["train", "hairzoo", "--list", "--json"]).stdout)
    assert {"timm-efficientnet-b0", "se_resnext50_32x4d"} <= set(names["encoders"])
    assert {"Unet", "DeepLabV3Plus"} <= set(names["decoders"])


def test_mixed_precision_trains_and_resumes_with_another(celeb: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, precision="bf16")
    result = run(config, [celeb], tmp_path, accelerator="cpu")
    assert np.isfinite(result["log"][0]["valid_loss"])
    assert result["config"]["precision"] == "bf16"
    state = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    assert all(value.dtype != torch.bfloat16 for value in state.values())
    run(replace(config, precision="fp32"), [celeb], tmp_path, accelerator="cpu")
