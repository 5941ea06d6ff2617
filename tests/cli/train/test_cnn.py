"""The score CNN commands: a whole chain on tiny pictures, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ohlora.scores.table import PROPERTY_COLUMNS, read_score_table
from tests.support.command_line import status_of
from tests.support.score_cnn_pictures import write_pictures, write_scores, write_v3_labels

TINY = ("--width", "0.02", "--epochs", "1", "--batch-size", "8")
COMMANDS = ("classifier", "classify", "filter", "property-cnn", "hairstyle-cnn", "merge-cnn", "rescore")


def run(*arguments: str | Path) -> int:
    """Exit status of `ohlora train ...`."""
    return status_of("train", *arguments)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "images", 20)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"ohlora train {command}" in " ".join(capsys.readouterr().out.split())


def test_classifiers_to_filtered_pictures(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_v3_labels(tmp_path / "labels.csv", 12)
    common = ("--labels", labels, "--folds", "2", "--threshold", "9", *TINY, "--out", tmp_path / "cnn")
    for attribute in ("age", "glass"):
        assert run("classifier", attribute, images, *common, "--json") == 0
        out = capsys.readouterr()
        result = json.loads(out.out)
        assert result["attribute"] == attribute
        assert len(result["models"]) == 2
        assert f"{attribute}, fold 1, epoch 0: validation loss" in out.err
    models = tmp_path / "cnn" / "models"
    assert run("classify", images, "--models", models, "--labels", labels, "--out", tmp_path / "scores", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pictures"] == {"age": 8, "glass": 8}
    table = read_score_table(result["table"])
    assert table.columns == ("age_score", "glass_score")
    assert len(table) == 20
    rules = ("--rule", "glass_score>=0.0", "--rule", "age_score<=1")
    kept = tmp_path / "kept"
    assert run("filter", result["table"], "--images", images, *rules, "--labels", labels, "--out", kept) == 0
    text = capsys.readouterr().out
    assert "labelled by hand: rejects 12, 12 of them by nothing else" in text
    assert "8 of 20 pictures kept (8 copied now)" in text
    assert len(list(kept.glob("*.png"))) == 8


def test_score_cnns_to_merged(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seven = write_scores(tmp_path / "seven.csv", 20, PROPERTY_COLUMNS)
    one = write_scores(tmp_path / "one.csv", 20, ("hairstyle_score",))
    out = tmp_path / "out"
    assert run("property-cnn", images, "--scores", seven, *TINY, "--out", out) == 0
    assert "correlation with the scores: eyes" in capsys.readouterr().out
    assert run("hairstyle-cnn", images, "--scores", one, *TINY, "--out", out, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    property_model = out / "stylegan_gen_fine_tuned_v2_cnn.pth"
    assert run("merge-cnn", property_model, result["model"], "--out", out, "--json") == 0
    merged = json.loads(capsys.readouterr().out)["model"]
    assert run("rescore", images, "--model", merged, "--kind", "merged", "--out", tmp_path / "s", "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["pictures"] == 20
    assert len(read_score_table(scores["table"]).columns) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("classifier", "beauty", "."), "v3 has no classifier 'beauty'"),
        (("classifier", "gender", ".", "--version", "v2"), "unknown classifier version 'v2'"),
        (("classifier", "gender", "."), "there is no label table labels.csv"),
        (("classifier", "gender", ".", "--precision", "16"), "unknown precision '16'"),
        (("classify", ".", "--models", "nowhere"), "no gender_model_N.pt in nowhere: train them with"),
        (("filter", "nothing.csv", "--images", "."), "there is no table nothing.csv"),
        (("filter", "nothing.csv", "--images", ".", "--recipe", "v2"), "unknown filter 'v2'"),
        (("property-cnn", ".", "--scores", "no.csv"), "there is no table no.csv"),
        (("property-cnn", ".", "--scores", "no.csv", "--missing", "zero"), "missing must be error or drop"),
        (("merge-cnn", "a.pth", "b.pth"), "no weights file a.pth"),
        (("rescore", "nowhere", "--model", "a.pth"), "there is no folder nowhere"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ("--labels", "labels.csv") if arguments[0] == "classifier" else ()
    assert run(*arguments, *labels) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert words in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())
