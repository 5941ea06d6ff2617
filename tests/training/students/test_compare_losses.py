"""The comparison of losses: table, ordering, overlays, and a whole small comparison that is stopped and goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.students import compare_losses
from ohlora.training.students.compare_losses import TITLES, as_markdown, colors, compare, ordering
from ohlora.training.students.recipes import PRESETS, PortraitMix
from ohlora.training.students.report import FIGURES, PUBLISHED
from tests.support.small_distillations import TINY, portrait, write_face


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for person in range(6):
        image, hair, _ = portrait(person, 0)
        write_face(folder, f"p{person}.png", image, hair_soft=hair)
    return folder


def published() -> dict[str, dict[str, float]]:
    return {name: dict(zip(FIGURES, values, strict=True)) for name, values in PUBLISHED.items()}


def test_published_figures_agree_with_each_other() -> None:
    for figures in published().values():
        assert figures["mse"] == pytest.approx(4 * figures["mse_published"], rel=2e-3)
        dice = 2 * figures["iou"] / (1 + figures["iou"])
        assert figures["dice"] == pytest.approx(dice, abs=1e-3)


def test_ordering() -> None:
    tests = published()
    assert ordering(tests) == {
        "mse_and_soft_bce_are_alike": True,
        "kl_is_far_below": True,
        "kl_recall_is_near_1": True,
        "kl_precision_is_low": True,
        "holds": True,
    }
    good = ordering({**tests, "kl": tests["mse"]})
    assert good is not None
    assert not good["holds"]
    assert not good["kl_precision_is_low"]
    worse = ordering({**tests, "soft_bce": {**tests["soft_bce"], "iou": 0.9}})
    assert worse is not None
    assert not worse["mse_and_soft_bce_are_alike"]
    assert ordering({"mse": tests["mse"]}) is None


def test_colours_of_agreement_and_error() -> None:
    label = np.array([[255, 0, 255, 0]], np.uint8)
    hair = np.array([[1, 1, 0, 0]], np.float32)
    assert colors(label, hair)[0].tolist() == [[0, 255, 255], [0, 255, 0], [0, 0, 255], [0, 0, 0]]


def test_refusals(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="held-out"):
        compare([faces], tmp_path / "a", replace(TINY, holdout=0.0))
    for losses in (("mse", "dice"), ("mse", "mse"), ()):
        with pytest.raises(InvalidInputError, match="losses to compare"):
            compare([faces], tmp_path / "a", TINY, losses=losses)
    assert not (tmp_path / "a").exists()


def test_stopped_comparison_goes_on(faces: Path, tmp_path: Path) -> None:
    mix = PortraitMix(portraits=4, held_out=1, resolution=32)
    config = replace(TINY, phases=((64, 1),), holdout=0.34, mix=mix)
    begun: list[str] = []

    def stop(loss: str, row: dict[str, Any]) -> None:
        begun.append(loss)
        if loss == "soft_bce":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([faces], tmp_path, config, accelerator="cpu", report=stop)
    assert begun == ["mse", "soft_bce"]
    begun.clear()
    result = compare([faces], tmp_path, config, shown=1, accelerator="cpu", report=lambda loss, row: begun.append(loss))
    assert begun == ["kl"]  # the epochs of the other two were saved
    assert [(row["loss"], row["pictures"]) for row in result["rows"]] == [
        (loss, pictures) for loss in TITLES for pictures in ("real", "portraits")
    ]
    kl = result["rows"][4]
    assert kl["mse"] == pytest.approx(4 * kl["mse_published"])
    assert kl["documented_recall"] == 1.0
    assert result["ordering"] is not None
    assert json.loads((tmp_path / "comparison.json").read_text())["rows"][0]["loss"] == "mse"
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["documented_iou"]) == 0.968
    assert rows[1]["documented_iou"] == ""
    text = (tmp_path / "comparison.md").read_text()
    assert "0.003177" in text
    assert "Documented ordering" in text
    for kind in ("original_x", "overlay_y_pred", "overlay_x_y_pred"):
        assert read_image(tmp_path / "kl" / "overlays" / f"img_0000_{kind}.jpg").shape == (224, 224, 3)


def test_markdown_without_all_losses() -> None:
    row = {"loss": "mse", "pictures": "real", "faces": 2, **dict.fromkeys(FIGURES, 0.5)}
    recipe = {"encoder": "e", "phases": [], "seed": 1}
    assert "all three" in as_markdown({"rows": [row], "recipe": recipe, "ordering": None})[-1]


def test_command(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from ohlora.cli import app

    seen: list[Any] = []

    def recorded(data: Any, out: Any, config: Any, **options: Any) -> dict[str, Any]:
        seen.append((config, options))
        return {"rows": [], "ordering": None}

    monkeypatch.setattr(compare_losses, "compare", recorded)
    job = ["train", "compare-losses", "--data", str(faces), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, [*job, "--json"]).exit_code == 0
    assert seen[0][0] == PRESETS["documented"]
    more = ["--recipe", "few-faces", "--size", "128", "--epochs", "30", "--portraits", "200", "--losses", "mse,kl"]
    done = CliRunner().invoke(app, [*job, *more])
    assert done.exit_code == 0, done.output
    config, options = seen[1]
    assert config.phases == ((128, 30),)
    assert config.mix == PortraitMix(portraits=200, held_out=40)
    assert options["losses"] == ["mse", "kl"]
