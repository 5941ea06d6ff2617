"""The bench's own machinery: timing in turn, records, comparison, reports, the command."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import ohlora
from ohlora.bench.baselines.documented import DocumentedWay, PlainOnnxRuntime
from ohlora.bench.runner import readme, timing
from ohlora.bench.runner.compare import compare
from ohlora.bench.runner.records import Row, Run, joined, row_id, rows_of
from ohlora.bench.runner.report import BEGIN, END, markdown, number, update_readme
from ohlora.bench.runner.subjects import bundle_subject
from ohlora.bench.runner.timing import Group, Work, measure
from ohlora.bench.suites import SUITES, chosen
from ohlora.bench.suites import kernels as kernel_suite
from ohlora.bench.suites.roofline import work_of
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.errors import InvalidInputError
from ohlora.kernels.ombre import cpu as ombre_cpu

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"cpu": "A", "cores": 2, "python": "3.11", "versions": {}}


class Clock:
    """Time that works say they took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Work:
        order = iter(seconds)
        last = [0.0]

        def call() -> None:
            last[0] = next(order, last[0])
            self.now += last[0]

        return Work(call)


def test_ratios_are_of_the_same_round() -> None:
    """A machine that gets twice as slow in the middle changes times, not ratios."""
    clock = Clock()
    slowing = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    works = {"base": clock.takes(*slowing), "fast": clock.takes(*(t / 4 for t in slowing))}
    made = measure(works, "base", rounds=4, seconds=1e9, clock=clock)
    assert made["fast"].ratios == pytest.approx((4.0, 4.0, 4.0))
    assert made["base"].ratios == (1.0, 1.0, 1.0)
    assert made["base"].rounds == 4


def test_short_works_are_repeated_and_long_runs_end() -> None:
    clock, calls = Clock(), []

    def short() -> None:
        calls.append(1)
        clock.now += 0.01

    made = measure({"short": Work(short, units=10)}, rounds=2, seconds=1e9, clock=clock)
    assert made["short"].seconds[1] == pytest.approx(0.001)
    assert len(calls) == 2 + 2 * 30  # to warm up, then two turns of 0.3 s
    long = Clock()
    assert measure({"long": long.takes(100.0)}, rounds=50, seconds=250.0, clock=long)["long"].rounds == 3
    with pytest.raises(ValueError, match="baseline 'none' is none of a"):
        measure({"a": Work(lambda: None)}, "none")


def row(**values: object) -> Row:
    first = Row("kernels", "ombre", "Numba", "picture", ms=1.0, quartiles_ms=(0.9, 1.1), rounds=5,
                baseline="NumPy", times_baseline=30.0, times_quartiles=(29.0, 31.0),
                accuracy={"psnr_db": 50.0}, goal=30.0)  # fmt: skip
    return replace(first, **values)  # type: ignore[arg-type]


def run_of(*rows: Row, **machine: object) -> Run:
    return Run(MACHINE | machine, {"subject": "demo", "presets": ["as given"], "suites": ["kernels"]}, list(rows))


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    saved = run_of(row(), row(name="other", times_quartiles=None, goal=None), row(name="m", value=1.05, ms=None))
    saved.left_out.append({"suite": "engines", "why": "no torch"})
    saved.save(tmp_path / "bench.json")
    assert Run.load(tmp_path / "bench.json") == saved
    for content, message in (
        ("{", "is not valid JSON"),
        ('{"format": 7}', "bench format 7"),
        ('{"format": 1, "rows": []}', "is no result"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InvalidInputError, match=message):
            Run.load(tmp_path / "bad.json")
    with pytest.raises(InvalidInputError, match="bench result"):
        Run.load(tmp_path / "missing.json")


def test_suites_of_two_runs_are_joined_and_groups_are_not(tmp_path: Path) -> None:
    old = run_of(row(), row(suite="stages", times_baseline=2.0))
    old.settings["suites"] = ["kernels", "stages"]
    new = run_of(row(times_baseline=40.0, name="one"))
    made = joined(new, old)
    assert [(one.suite, one.name, one.times_baseline) for one in made.rows] == [
        ("stages", "Numba", 2.0), ("kernels", "one", 40.0),
    ]  # fmt: skip
    assert made.settings["suites"] == ["stages", "kernels"]
    with pytest.raises(InvalidInputError, match="of another machine"):
        joined(run_of(row(), cpu="B"), old)


def test_goals() -> None:
    assert row().met
    assert not row(times_baseline=29.9).met
    assert row(goal=None).met is None
    assert row(goal=3.0, goal_kind="seconds", ms=2999.0).met
    assert not row(goal=3.0, goal_kind="seconds", ms=3001.0).met
    assert row(goal=1.1, goal_kind="ratio", value=1.1).met
    assert not row(goal=1.1, goal_kind="ratio", value=1.2).met


def test_what_counts_as_a_regression() -> None:
    old = run_of(row())
    assert compare(run_of(row(times_baseline=25.0, times_quartiles=(24.0, 26.0))), old) == []
    (slower,) = compare(run_of(row(times_baseline=20.0, times_quartiles=(19.0, 21.0))), old)
    assert (slower.kind, slower.text) == ("slower", "20x the baseline, was 30x")
    # A spread that reaches back into the margin is no finding.
    assert compare(run_of(row(times_baseline=20.0, times_quartiles=(15.0, 25.0))), old) == []
    (worse,) = compare(run_of(row(accuracy={"psnr_db": 45.0})), old)
    assert worse.kind == "less accurate"
    assert compare(run_of(row(accuracy={"psnr_db": 60.0})), old) == []
    (missing,) = compare(run_of(row(name="another")), old)
    assert missing.kind == "missing"
    assert missing.regression
    assert compare(run_of(row(suite="stages")), old) == []  # a suite that was not run
    absolute = row(baseline=None, times_baseline=None, times_quartiles=None)
    late = replace(absolute, ms=2.0, quartiles_ms=(1.9, 2.1))
    (found,) = compare(run_of(late), run_of(absolute))
    assert found.text == "2 ms, was 1 ms"
    (other,) = compare(run_of(late, cpu="B"), run_of(absolute))
    assert (other.kind, other.regression) == ("not compared", False)
    memory = row(value=1.0, ms=None, baseline=None, times_baseline=None, times_quartiles=None, quartiles_ms=None)
    (grown,) = compare(run_of(replace(memory, value=1.5)), run_of(memory))
    assert grown.text == "1.5, was 1"


def test_a_slow_down_of_a_way_and_its_baseline_is_found_by_processor_time() -> None:
    clock, cpu = Clock(), Clock()

    def run_at(speed: float, **machine: object) -> Run:
        def busy(seconds: float) -> Work:
            def call() -> None:
                clock.now += seconds / speed
                cpu.now += 2 * seconds / speed  # two threads

            return Work(call, units=10)

        works = {"base": busy(4.0), "ours": busy(1.0)}
        group = Group("kernels", "ombre", "image", works, "base")
        return run_of(*rows_of(group, measure(works, "base", rounds=3, clock=clock, cpu_clock=cpu)), **machine)

    old = run_at(1.0)
    assert [(one.ms, one.cpu_ms) for one in old.rows] == [(400.0, 800.0), (100.0, 200.0)]
    assert compare(run_at(1.0), old) == []
    (found,) = compare(run_at(0.5), old)
    assert (found.row[2], found.regression) == ("ours", True)
    assert found.text == "400 ms of processor time, was 200 ms of processor time"
    assert compare(run_at(0.5, cpu="B"), old) == []


def test_processor_time_counts_processes_that_have_ended() -> None:
    begun = timing.cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert timing.cpu_seconds() - begun > 0.1


def test_rows_of_earlier_results_have_todays_names(tmp_path: Path) -> None:
    run_of(row(name="ohlora exact, openvino f32"), row(name="student, f16 and bf16")).save(tmp_path / "bench.json")
    names = [one.name for one in Run.load(tmp_path / "bench.json").rows]
    assert names == ["ohlora exact, openvino fp32", "student, fp16 and bf16"]
    assert row_id("engines", "synthesis, batch 8", names[0]) == "engines-synthesis-batch-8-ohlora-exact-openvino-fp32"


@given(st.floats(0.01, 1e4), st.floats(0.0, 0.9), st.floats(0.0, 2.0))
def test_a_loss_beyond_the_margin_is_found_and_one_within_is_not(was: float, margin: float, factor: float) -> None:
    now = was * factor
    found = compare(
        run_of(row(times_baseline=now, times_quartiles=None)),
        run_of(row(times_baseline=was, times_quartiles=None)),
        margin,
    )
    if factor < 1 - margin - 1e-9:
        assert [change.kind for change in found] == ["slower"]
    elif factor > 1 - margin + 1e-9:
        assert found == []


def test_numbers_have_three_digits() -> None:
    assert [number(v) for v in (0.01234, 1.5, 12.34, 99.96, 1234.5)] == ["0.0123", "1.5", "12.3", "100", "1,234"]


def test_report_and_readme(tmp_path: Path) -> None:
    run = run_of(
        row(name="NumPy", times_baseline=1.0, goal=None, accuracy={}), row(group="ombre, batch of 64"),
        row(suite="pipeline", group="portraits", name="ohlora fast", accuracy={"psnr_db": 41.2, "worst_db": 39.0}),
    )  # fmt: skip
    text = markdown(run, ["plots/techniques.svg"])
    assert "30x (29 to 31)" in text
    assert "30x or more: met" in text
    assert "41.2 dB (worst 39.0)" in text
    assert "![techniques](plots/techniques.svg)" in text
    page = tmp_path / "README.md"
    page.write_text("before\n")
    with pytest.raises(InvalidInputError, match="no place for the table"):
        update_readme(page, run)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert update_readme(page, run)
    assert not update_readme(page, run)
    made = page.read_text()
    assert made.startswith("before\n")
    assert made.endswith("after\n")
    assert "old" not in made
    run.save(tmp_path / "bench.json")
    assert readme.in_step(page, tmp_path / "bench.json")
    run.rows[0] = row(ms=2.0, group="ombre, batch of 64")
    run.save(tmp_path / "bench.json")
    assert not readme.in_step(page, tmp_path / "bench.json")


def test_the_readme_shows_the_committed_result() -> None:
    assert readme.in_step(ROOT / "README.md", ROOT / "bench" / "results" / "bench.json")


def test_suites_by_name() -> None:
    assert chosen([]) == list(SUITES)
    assert chosen(["stages", "kernels"]) == ["kernels", "stages"]
    with pytest.raises(InvalidInputError, match="no suite 'kernel': choose of kernels"):
        chosen(["kernel"])


def invoke(*arguments: object) -> object:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_the_command_catches_a_slowed_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real suite on fewer pictures; the second run's blend waits before it works."""
    monkeypatch.setattr(timing, "TURN", 0.05)
    monkeypatch.setattr(kernel_suite, "OMBRE_BATCH", 8)
    monkeypatch.setattr(kernel_suite, "SWEEP", 8)
    monkeypatch.setattr(kernel_suite, "SCORE_BATCH", 8)
    monkeypatch.setattr(kernel_suite, "SAMPLE", 1)
    first = invoke("--suite", "kernels", "--quick", "--out", tmp_path / "first")
    assert first.exit_code == 0, first.output
    saved = tmp_path / "first" / "bench.json"
    assert {"kernels"} == {entry["suite"] for entry in json.loads(saved.read_text())["rows"]}
    assert "scores v2" in (tmp_path / "first" / "report.md").read_text()
    assert (tmp_path / "first" / "plots" / "techniques.svg").exists() is (
        importlib.util.find_spec("matplotlib") is not None
    )
    real = ombre_cpu._blend

    def slowed(*arguments: object) -> None:
        time.sleep(0.05)  # hundreds of times what it takes: no noise of a busy machine hides that
        real(*arguments)

    monkeypatch.setattr(ombre_cpu, "_blend", slowed)
    second = invoke("--suite", "kernels", "--quick", "--compare", saved, "--margin", "0.5")
    assert second.exit_code == 1, second.output
    assert "slower: kernels / ombre, 8 dyes of one picture / Numba" in second.output
    third = invoke("--suite", "kernels", "--quick", "--compare", saved, "--margin", "0.5", "--json")
    told = json.loads(third.stdout.strip().splitlines()[-1])
    assert told["changes"]
    assert {one["id"] for one in told["rows"]} >= {"kernels-ombre-8-dyes-of-one-picture-Numba"}
    assert all(one["cpu_ms"] > 0 for one in told["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "kernel"), "no suite 'kernel'"),
        (("--compare", "none.json"), "there is no bench result none.json"),
        (("--presets", "quick"), "no preset 'quick': choose of exact, balanced, fast"),
        (("--full-size", "--bundle", "mine"), "either --bundle or --full-size"),
        (("--bundle", "none"), "none"),
    ],
)
def test_bad_requests(arguments: tuple[str, ...], message: str) -> None:
    done = invoke("--quick", "--suite", "engines", *arguments) if "--suite" not in arguments else invoke(*arguments)
    assert message in str(done.exception)


def test_accuracy_is_measured_once_the_group_is() -> None:
    calls = []
    work = Work(lambda: None, accuracy=lambda: calls.append(1) or {"psnr_db": 1 / 3})  # type: ignore[func-returns-value]
    group = Group("s", "g", "picture", {"a": work, "base": Work(lambda: None)}, "base")
    first, second = rows_of(group, measure(group.works, "base", rounds=1))
    assert (first.name, second.name) == ("base", "a")
    assert second.accuracy == {"psnr_db": 0.33333}
    for kind, goal in (("times", None), ("seconds", 3.0)):  # no baseline: a ratio cannot be judged, seconds can
        alone = Group("s", "g", "start", {"a": Work(lambda: None, goal=3.0)}, goal_kind=kind)
        assert rows_of(alone, measure(alone.works, rounds=1))[0].goal == goal
    assert calls == [1]


def test_work_of_a_network() -> None:
    """The demo's student has 0.68 billion multiplications (bench/results/rewrites_student.json), counted by PyTorch."""
    demo = Bundle.open("demo")
    macs, moved = work_of(demo.file(demo.hair_part().file), 4)
    assert macs == pytest.approx(0.693e9, rel=0.01)
    assert moved > 4 * 3.2e6
    assert work_of(demo.file(demo.hair_part().file), 2)[1] * 2 == moved


def test_the_documented_way_makes_the_bundles_pictures(tmp_path: Path) -> None:
    """The baseline does the same thing: its speed would mean nothing otherwise."""
    subject = bundle_subject("demo")
    assert subject.documented is not None
    seeds = range(40, 43)
    with ohlora.Renderer("demo", "onnxruntime") as renderer:
        wanted = renderer.render(ohlora.SeedRange(40, 42), ombres=[ohlora.Ombre(0.5, 0.7, 0.5)])
    for batch, channels_last in ((1, False), (2, True)):
        way = DocumentedWay(subject.documented.generator, subject.documented.student, batch, channels_last)
        difference = np.abs(np.stack(way.dyed(seeds, 0.5)).astype(int) - wanted)
        assert np.sqrt(np.mean(difference**2.0)) < 0.5  # grey levels; the hair maps differ by rounding to float16
    plain = PlainOnnxRuntime(subject.documented.generator, subject.documented.student)
    assert np.sqrt(np.mean((np.stack(plain.dyed(seeds, 0.5)).astype(float) - wanted) ** 2)) < 0.5
    plain.render(seeds, 0.5, tmp_path)
    files = sorted(tmp_path.glob("*.jpg"))
    assert [file.stem for file in files] == ["000040", "000041", "000042"]
    (tmp_path / "again").mkdir()
    plain.recolor(files, 0.1, tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.jpg"))) == 3
    subject.close()
