"""The real chain end to end on small random networks: every stage joins the next, twice the same, cached, resumed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.data.labels import Labels, write_labels
from ohlora.training.nets.score_cnns import ATTRIBUTES
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.pipeline import engine
from ohlora.training.pipeline.engine import CACHED, RAN, run_stages
from ohlora.training.pipeline.manifest import Manifest, Output, describe
from ohlora.training.pipeline.presets import PRESETS
from ohlora.training.pipeline.report import make_report, write_report
from ohlora.training.pipeline.sections import PipelineSettings
from ohlora.training.pipeline.settings import as_yaml, load_settings, save_settings
from ohlora.training.pipeline.stages import GRAPH
from tests.support.command_line import status_of

ROOT = Path(__file__).resolve().parents[3]
LABELLED = 24


def tiny_generator(path: Path) -> Path:
    torch.manual_seed(3)
    net = Generator(GeneratorConfig(resolution=32, channel_base=256, channel_max=16))
    for name, parameter in net.named_parameters():  # random pictures that differ from seed to seed
        if name.endswith("affine.bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    checkpoints.save(net.eval(), path, "stylegan")
    return path


def hand_labels(path: Path) -> Path:
    rng = np.random.default_rng(1)
    values = {name: rng.permutation(np.arange(LABELLED) % 2).astype(float) for name in ATTRIBUTES}
    write_labels(path, Labels(np.arange(LABELLED), values), "v3")
    return path


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> PipelineSettings:
    folder = tmp_path_factory.mktemp("given")
    changes = [
        f"original.checkpoint={tiny_generator(folder / 'generator.safetensors')}",
        f"labels_v3.file={hand_labels(folder / 'labels.csv')}",
    ]
    return load_settings(PipelineSettings, PRESETS, preset="tiny", changes=changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, settings: PipelineSettings) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run")
    report: dict[str, Any] = {}
    states = run_stages(GRAPH, settings, out, finished=lambda made: report.update(write_report(out, made, settings)))
    assert {state.state for state in states.values()} == {RAN}
    return out, report


def test_every_stage_has_figures(run: tuple[Path, dict[str, Any]]) -> None:
    out, report = run
    assert set(report["figures"]) == set(GRAPH.stages)
    assert json.loads((out / "report.json").read_text()) == report


def test_again_nothing_runs(run: tuple[Path, dict[str, Any]], settings: PipelineSettings) -> None:
    out, _ = run
    assert {state.state for state in run_stages(GRAPH, settings, out).values()} == {CACHED}


@pytest.mark.slow
def test_stopped_after_any_stage_it_ends_with_the_same_figures(
    run: tuple[Path, dict[str, Any]],
    settings: PipelineSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every stage does its work twice over its own files: interrupted when all is done but not yet recorded."""
    stopped: set[str] = set()

    def stop_once(folder: Path, name: str, output: Output) -> Manifest:
        if folder.name not in stopped:
            stopped.add(folder.name)
            raise KeyboardInterrupt
        return describe(folder, name, output)

    monkeypatch.setattr(engine, "describe", stop_once)
    report: dict[str, Any] = {}
    while len(stopped) < len(GRAPH) or not report:
        with contextlib.suppress(KeyboardInterrupt):
            run_stages(GRAPH, settings, tmp_path, finished=lambda made: report.update(make_report(made, settings)))
    assert stopped == set(GRAPH.stages)
    assert report["figures"] == run[1]["figures"]


CHILD = """
import sys
from pathlib import Path
from ohlora.training.pipeline.engine import run_stages
from ohlora.training.pipeline.presets import PRESETS
from ohlora.training.pipeline.report import make_report, write_report
from ohlora.training.pipeline.sections import PipelineSettings
from ohlora.training.pipeline.settings import as_yaml, load_settings, save_settings
from ohlora.training.pipeline.stages import GRAPH
settings = load_settings(PipelineSettings, PRESETS, file=Path(sys.argv[1]))
out = Path(sys.argv[2])
run_stages(GRAPH, settings, out, finished=lambda made: write_report(out, made, settings))
"""


@pytest.mark.slow
def test_killed_in_each_stage_it_ends_with_the_same_figures(
    run: tuple[Path, dict[str, Any]], settings: PipelineSettings, tmp_path: Path
) -> None:
    file, out = tmp_path / "settings.yaml", tmp_path / "run"
    file.write_text(as_yaml(settings))
    command = [sys.executable, "-c", CHILD, str(file), str(out)]
    for number, name in enumerate(GRAPH.stages):
        record = out / name / ".stage"
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (record / "started.json").exists() and not (record / "done.json").exists():
            assert child.poll() is None, f"ended before {name}"
            time.sleep(0.01)
        time.sleep(0.05 * (number % 7))  # early in one stage, later in the next
        child.kill()
        child.wait(timeout=60)
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert json.loads((out / "report.json").read_text())["figures"] == run[1]["figures"]


def command(*arguments: str | Path) -> int:
    """Exit status of `ohlora train pipeline`."""
    return status_of("train", "pipeline", *arguments)


def test_the_command_line(
    run: tuple[Path, dict[str, Any]], settings: PipelineSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = run
    save_settings(out, settings)
    asked = ("--settings", out / "settings.yaml", "--out", out)
    assert command(*asked, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in summary["stages"].values()} == {CACHED}
    assert summary["figures"] == report["figures"]
    assert command(*asked, "--from", "filtr-v1") == 2
    assert "did you mean 'filter-v1'?" in capsys.readouterr().err
    assert command(*asked, "--dry-run", "--until", "filter-v1", "--set", "filter_v1.rules=[quality_score>=0.1]") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].startswith("filter-v1 ")
    assert "would run (its settings or inputs have changed)" in shown[-1]
    assert all("cached" in line for line in shown[:-1])
    assert command("--list", "--json") == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)] == list(GRAPH.stages)
    assert command("--preset", "documented", "--write-settings", out / "my.yaml") == 0
    assert command("--preset", "documented", "--write-settings", out / "my.yaml") == 2


def test_the_report_is_one_file_with_all_there_is_to_see(run: tuple[Path, dict[str, Any]]) -> None:
    out, _ = run
    page = (out / "report.html").read_text()
    assert "Measured effect" in page
    assert page.count("data:image/jpeg;base64,") >= 10
    assert page.count("<svg") > 20
    assert 'src="data:' in page
    assert "href=" not in page
    for name in GRAPH.stages:
        assert f"<td>{name}</td>" in page


def test_the_documented_preset_asks_for_what_a_person_gives(tmp_path: Path) -> None:
    settings = load_settings(PipelineSettings, PRESETS, preset="documented")
    with pytest.raises(InvalidInputError) as refused:
        run_stages(GRAPH, settings, tmp_path / "run")
    for text in (
        "stage original: the setting original.checkpoint names no file",
        "stage labels-v1: the setting labels_v1.file names no file; label the pictures with `ohlora train label",
        "stage labels-v3: the setting labels_v3.file",
        "stage parse-v1: the setting parse_v1.teacher",
    ):
        assert text in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_labels_of_other_pictures_are_refused_at_the_start(settings: PipelineSettings, tmp_path: Path) -> None:
    numbers = np.arange(100, 100 + LABELLED)
    write_labels(tmp_path / "labels.csv", Labels(numbers, {n: np.zeros(LABELLED) for n in ATTRIBUTES}), "v3")
    wrong = settings.labels_v3.model_copy(update={"file": str(tmp_path / "labels.csv")})
    with pytest.raises(
        InvalidInputError, match=r"stage labels-v3: .* labels picture 100 and 23 more, which is not sampled"
    ):
        run_stages(GRAPH, settings.model_copy(update={"labels_v3": wrong}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
