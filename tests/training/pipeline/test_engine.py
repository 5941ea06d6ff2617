"""The pipeline's engine with small stages in place of networks: cache, resume, selection, settings, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

pytest.importorskip("yaml")

from ohlora.errors import InvalidInputError, OutputError
from ohlora.training.pipeline.cache import StageFolder
from ohlora.training.pipeline.engine import CACHED, RAN, RESUMED, WOULD_RESUME, WOULD_RUN, run_stages
from ohlora.training.pipeline.graph import External, Graph, Stage
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.settings import Section, as_yaml, load_settings, template
from ohlora.training.pipeline.work import Outcome, Work

ROOT = Path(__file__).resolve().parents[3]


class Numbers(Section):
    """How many numbers, and what is added to them."""

    count: int = Field(4, ge=1, description="numbers")
    add: int = 0
    file: str | None = Field(None, json_schema_extra={"keyless": True})
    slow: float = Field(0.0, json_schema_extra={"keyless": True})


class Settings(Section):
    """Settings of the small stages."""

    preset: str = "small"
    first: Numbers = Numbers()
    second: Numbers = Numbers()
    third: Numbers = Numbers()


def make(work: Work) -> Outcome:
    """Writes `count` files one after the other and keeps those of an interrupted call; `made`: how many it wrote."""
    section = next(iter(work.settings.values()))
    given = sum(sum(int(p.read_text()) for p in sorted(folder.glob("*.txt"))) for folder in work.inputs.values())
    folder = work.folder / "numbers"
    folder.mkdir(exist_ok=True)
    made = 0
    for i in range(section.count):
        path = folder / f"{i}.txt"
        if path.exists():
            continue
        time.sleep(section.slow)
        path.write_text(str(i + section.add + given))
        made += 1
        (work.folder / "progress").write_text(str(i + 1))
    total = sum(int(p.read_text()) for p in folder.glob("*.txt"))
    return Outcome({"numbers": Output("numbers", "*.txt")}, {"total": total}, {"made": made})


def wanted(sections: Any) -> list[External]:
    return [External("first.file", "make it with `ohlora make-it`")]


STAGES = (
    Stage("first", "numbers", make, settings=("first",)),
    Stage("second", "more numbers", make, {"of": "first.numbers"}, ("second",)),
    Stage("side", "beside the others", make, {"of": "first.numbers"}, ("third",)),
    Stage("third", "the last", make, {"one": "second.numbers", "two": "side.numbers"}, ("third",)),
)
GRAPH = Graph(STAGES)


def states(out: Path, settings: Settings | None = None, **options: Any) -> dict[str, str]:
    result = run_stages(GRAPH, settings or Settings(), out, **options)
    return {name: state.state for name, state in result.items()}


def figures(out: Path) -> dict[str, Any]:
    return {stage.name: StageFolder(out, stage.name).done().figures for stage in STAGES}  # type: ignore[union-attr]


def test_a_second_call_finds_everything_made(tmp_path: Path) -> None:
    assert set(states(tmp_path).values()) == {RAN}
    assert set(states(tmp_path).values()) == {CACHED}
    assert figures(tmp_path)["first"] == {"total": 6}
    assert figures(tmp_path)["second"] == {"total": 6 + 4 * 6}


def test_a_changed_setting_runs_its_stage_and_what_depends_on_it(tmp_path: Path) -> None:
    states(tmp_path)
    changed = states(tmp_path, Settings(second=Numbers(add=1)))
    assert changed == {"first": CACHED, "second": RAN, "side": CACHED, "third": RAN}
    assert figures(tmp_path)["second"] == {"total": 34}
    back = states(tmp_path)
    assert back == changed


def test_what_does_not_decide_the_result_changes_nothing(tmp_path: Path) -> None:
    states(tmp_path)
    assert set(states(tmp_path, Settings(second=Numbers(slow=0.001))).values()) == {CACHED}


def test_fewer_files_than_before_leave_none_of_the_old_ones(tmp_path: Path) -> None:
    states(tmp_path)
    states(tmp_path, Settings(first=Numbers(count=2)))
    assert sorted(p.name for p in (tmp_path / "first" / "numbers").iterdir()) == ["0.txt", "1.txt"]


def test_a_stage_that_makes_the_same_again_does_not_run_the_others(tmp_path: Path) -> None:
    states(tmp_path)
    assert states(tmp_path, force=["first"]) == {"first": RAN, "second": CACHED, "side": CACHED, "third": CACHED}


@pytest.mark.parametrize("damage", ["change", "delete", "add"])
def test_changed_outputs_are_noticed(tmp_path: Path, damage: str) -> None:
    states(tmp_path)
    file = tmp_path / "first" / "numbers" / "1.txt"
    if damage == "change":
        file.write_text("7")
    elif damage == "delete":
        file.unlink()
    else:
        (file.parent / "9.txt").write_text("1")
    seen = states(tmp_path, dry=True)
    assert seen["first"] == WOULD_RUN
    after = states(tmp_path)
    assert after["first"] == RAN
    assert after["second"] == CACHED  # the same numbers again
    assert figures(tmp_path)["first"] == {"total": 6}


def test_a_touched_file_is_read_again_and_found_the_same(tmp_path: Path) -> None:
    states(tmp_path)
    file = tmp_path / "first" / "numbers" / "1.txt"
    os.utime(file, (1, 1))
    assert states(tmp_path)["first"] == CACHED


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    seen = run_stages(GRAPH, Settings(), tmp_path / "run", dry=True)
    assert {name: s.state for name, s in seen.items()} == dict.fromkeys(seen, WOULD_RUN)
    assert seen["second"].why == "after first"
    assert not (tmp_path / "run").exists()


# --- selection -------------------------------------------------------------------------------------------------------


def names(**options: Any) -> list[str]:
    return [stage.name for stage in GRAPH.select(**options)]


def test_selection() -> None:
    assert names(until="second") == ["first", "second"]
    assert names(start="side") == ["side", "third"]
    assert names(until="third", start="second") == ["second", "third"]
    assert names(only=["third"]) == ["third"]
    assert names(skip=["third"]) == ["first", "second", "side"]


def test_selection_refuses_what_cannot_be() -> None:
    with pytest.raises(InvalidInputError, match=r"no stage 'secnd', did you mean 'second'\?"):
        names(until="secnd")
    with pytest.raises(InvalidInputError, match="third needs side"):
        names(skip=["side"])
    with pytest.raises(InvalidInputError, match="no stage is left"):
        names(only=["third"], skip=["third"])
    with pytest.raises(InvalidInputError, match="not among those asked for"):
        run_stages(GRAPH, Settings(), Path("x"), selected=GRAPH.select(until="first"), force=["third"])


def test_a_missing_input_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"third needs what second makes \(first comes first \(not made yet\)\)"
    ):
        states(tmp_path, selected=GRAPH.select(only=["third"]))
    states(tmp_path, selected=GRAPH.select(until="second"))
    with pytest.raises(InvalidInputError, match=r"third needs what side makes \(not made yet\).*--until third"):
        states(tmp_path, selected=GRAPH.select(only=["third"]))


def test_one_stage_alone_uses_what_is_there_but_nothing_stale(tmp_path: Path) -> None:
    states(tmp_path)
    with pytest.raises(InvalidInputError, match=r"what second makes \(its settings or inputs have changed\)"):
        states(tmp_path, Settings(second=Numbers(add=5)), selected=GRAPH.select(only=["third"]))
    seen = states(tmp_path, Settings(third=Numbers(add=5)), selected=GRAPH.select(start="side"))
    assert seen == {"first": CACHED, "second": CACHED, "side": RAN, "third": RAN}


# --- files of the user's ---------------------------------------------------------------------------------------------


def test_files_of_the_user_are_asked_for_before_anything_runs(tmp_path: Path) -> None:
    last = Stage("late", "reads a file", make, {"of": "first.numbers"}, ("first",), external=wanted)
    graph = Graph([STAGES[0], last])
    with pytest.raises(
        InvalidInputError, match=r"stage late: the setting first.file names no file; make it with `ohlora"
    ):
        run_stages(graph, Settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file = tmp_path / "labels.csv"
    with pytest.raises(InvalidInputError, match=r"labels.csv \(setting first.file\) is not there"):
        run_stages(graph, Settings(first=Numbers(file=str(file))), tmp_path / "run")
    file.write_text("a")
    given = Settings(first=Numbers(file=str(file)))
    assert run_stages(graph, given, tmp_path / "run")["late"].state == RAN
    other = tmp_path / "elsewhere.csv"
    file.rename(other)
    given = Settings(first=Numbers(file=str(other)))
    assert run_stages(graph, given, tmp_path / "run")["late"].state == CACHED  # the same content elsewhere
    other.write_text("b")
    assert run_stages(graph, given, tmp_path / "run")["late"].state == RAN


# --- interruptions ---------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from tests.training.pipeline.test_engine import GRAPH, Numbers, Settings
from ohlora.training.pipeline.engine import run_stages
name = sys.argv[2]
slow = {name: Numbers(slow=0.2)} if name != "side" else {"third": Numbers(slow=0.2)}
run_stages(GRAPH, Settings(**slow), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["first", "second", "side", "third"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_stage_goes_on_to_the_same_figures(tmp_path: Path, name: str, number: int) -> None:
    states(tmp_path / "whole")
    out = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out), name], cwd=ROOT, stderr=subprocess.DEVNULL)
    progress = out / name / "progress"
    deadline = time.monotonic() + 30
    while not progress.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.poll() is None, "ended before it could be stopped"
    child.send_signal(number)
    assert child.wait(timeout=30) != 0
    assert not (out / name / ".stage" / "done.json").exists()
    assert states(out, dry=True)[name] == WOULD_RESUME
    done = run_stages(GRAPH, Settings(), out)
    assert done[name].state == RESUMED
    assert done[name].done.timings["made"] < 4  # type: ignore[union-attr]
    assert figures(out) == figures(tmp_path / "whole")


def test_an_unfinished_stage_of_other_settings_starts_anew(tmp_path: Path) -> None:
    def stop(work: Work) -> Outcome:
        make(work)
        raise KeyboardInterrupt

    graph = Graph([Stage("first", "stops", stop, settings=("first",))])
    with pytest.raises(KeyboardInterrupt):
        run_stages(graph, Settings(first=Numbers(count=6)), tmp_path)
    seen = run_stages(GRAPH, Settings(), tmp_path)
    assert seen["first"].state == RAN
    assert len(list((tmp_path / "first" / "numbers").iterdir())) == 4


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    def nested(work: Work) -> Outcome:
        with pytest.raises(InvalidInputError, match=r"another ohlora process .* is writing to"):
            run_stages(GRAPH, Settings(), tmp_path)
        return make(work)

    run_stages(Graph([Stage("first", "tries", nested, settings=("first",))]), Settings(), tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInputError, match="was not made by this pipeline"):
        states(tmp_path)
    assert (tmp_path / "first" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    def full(work: Work) -> Outcome:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full: free some space and run the same command again"):
        run_stages(Graph([Stage("first", "fills", full)]), Settings(), tmp_path)


def test_errors_name_their_stage(tmp_path: Path) -> None:
    def wrong(work: Work) -> Outcome:
        raise InvalidInputError("three labels are missing")

    with pytest.raises(InvalidInputError, match="stage first: three labels are missing"):
        run_stages(Graph([Stage("first", "fails", wrong)]), Settings(), tmp_path)
    nothing = Stage("first", "makes nothing", lambda work: Outcome({"x": Output("x.txt")}))
    with pytest.raises(OutputError, match="has not made its output 'x'"):
        run_stages(Graph([nothing]), Settings(), tmp_path)


# --- settings --------------------------------------------------------------------------------------------------------

PRESETS: dict[str, dict[str, Any]] = {"small": {}, "large": {"first": {"count": 9}}}


def load(**options: Any) -> Settings:
    return load_settings(Settings, PRESETS, default="small", **options)


def test_a_file_goes_over_its_preset_and_changes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("preset: large\nfirst:\n  add: 3\nsecond:\n")
    settings = load(file=file, changes=["first.add=5", "third.slow=0.5"])
    assert (settings.first.count, settings.first.add, settings.third.slow) == (9, 5, 0.5)
    assert settings.second == Numbers()


@pytest.mark.parametrize("written", [template, as_yaml])
def test_what_is_written_is_read_back(tmp_path: Path, written: Any) -> None:
    settings = load(preset="large", changes=["second.add=2"])
    file = tmp_path / "effective.yaml"
    file.write_text(written(settings))
    assert load(file=file) == settings
    assert ("# numbers" in file.read_text()) == (written is template)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first: {cuont: 3}", r"my.yaml: unknown setting 'first.cuont', did you mean 'count'\? \(known: count, add"),
        ("frist: {count: 3}", r"unknown section or setting 'frist', did you mean 'first'\?"),
        ("first: {count: many}", r"first.count should be a valid integer.*got 'many'"),
        ("first: {count: 0}", r"first.count should be greater than or equal to 1, got 0"),
        ("first: 3", r"'first' is a section and needs fields, got 3"),
        ("first: {count: 3\n", r"my.yaml, line 2 is no YAML"),
        ("- a\n- b", r"must hold settings by name"),
        ("preset: huge", r"unknown preset 'huge'"),
        ("first: !!python/object/apply:os.system [ls]", r"is no YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load(file=file)


def test_two_presets_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("preset: large")
    with pytest.raises(InvalidInputError, match="written for preset 'large', asked for is 'small'"):
        load(file=file, preset="small")
    with pytest.raises(InvalidInputError, match="there is no settings file"):
        load(file=tmp_path / "other.yaml")
    with pytest.raises(InvalidInputError, match=r"--set 'x' is not understood"):
        load(changes=["x"])


def test_the_history_says_what_each_call_did(tmp_path: Path) -> None:
    states(tmp_path)
    states(tmp_path, Settings(third=Numbers(add=1)))
    lines = (tmp_path / ".ohlora" / "journal.jsonl").read_text().splitlines()
    assert [sorted(json.loads(line)["row"]["stages"]) for line in lines] == [
        ["first", "second", "side", "third"],
        ["side", "third"],
    ]
