"""`ohlora train gan`: what it refuses, and one whole tiny run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ohlora.training.gan.steps import Steps
from tests.support.command_line import status_of

TINY = ("--phases", "16:0.016:batch_size=4:pixel=1", "--images", "12", "--no-compile", "--precision", "fp32")


def run(*arguments: str | Path) -> int:
    """Exit status of the command."""
    return status_of("train", "gan", *arguments)


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for option in ("--recipe", "--time-limit", "--resolution", "--start-from", "--measure"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "biggan"), "unknown recipe 'biggan': choose portraits or stylegan"),
        (("--resolution", "100"), "--resolution 100: the recipe has phases at 32, 64, 128, 256 pixels"),
        (("--precision", "16"), "unknown precision '16'"),
        (("--phases", "64"), "write RESOLUTION:KIMG"),
        (("--augment", "swirl"), "--augment must be color, translation, cutout or flip, got 'swirl'"),
        (("--recipe", "stylegan"), "needs a folder of pictures"),
        (("somewhere",), "renders its own pictures"),
        (("nowhere", "--recipe", "stylegan"), "nowhere"),
        (("--start-from", "none.safetensors"), "none.safetensors"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(*arguments, "--out", out) == 2
    message = capsys.readouterr().err
    assert words in " ".join(message.split())
    assert "Traceback" not in message
    assert not (out / "generator.safetensors").exists()


def test_whole_run_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ohlora.training.data.portraits")
    out = tmp_path / "run"
    assert run(*TINY, "--out", out, "--measure", 12, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 4
    assert result["figures"]["psnr"] > 3
    assert (out / "report.json").is_file()
    assert run(*TINY, "--out", out, "--measure", 0) == 0  # nothing left to train
    assert "4 steps" in capsys.readouterr().out
    assert run(*TINY, "--out", out, "--seed", 8) == 2
    assert "seed was 7, now 8" in " ".join(capsys.readouterr().err.split())


def test_an_interrupted_run_is_saved_and_ends_with_status_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Steps.step

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "step", interrupted)
        assert run(*TINY, "--out", tmp_path, "--json") == 130
    result = json.loads(capsys.readouterr().out)
    assert (result["steps"], result["stopped"]) == (1, True)
    assert run(*TINY, "--out", tmp_path, "--measure", 0) == 0
    assert "4 steps" in capsys.readouterr().out


def test_folder_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(24):
        cv2.imwrite(str(pictures / f"{i}.png"), rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    arguments = (pictures, "--recipe", "stylegan", "--phases", "8:0.008:batch_size=4,16:0.016:batch_size=4:fade=0.5")
    assert run(*arguments, "--no-compile", "--out", tmp_path / "run", "--measure", 16, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["resolution"] == 16
    assert result["steps"] == 6
    assert "psnr" not in result["figures"] or result["figures"]["psnr"] is None
