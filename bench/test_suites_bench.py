"""The suites of `ohlora bench` as rows of pytest-benchmark, for the bundle given by --ohlora-bundle.

Run: pytest bench/test_suites_bench.py --benchmark-only --benchmark-group-by=group [--ohlora-bundle MY]
     [--ohlora-presets exact,fast] [--ohlora-full-size] [--benchmark-min-rounds 3]
Times are those of one unit of the group (a portrait, a picture, a face), however many of them a call does. Every row
carries its accuracy against the group's baseline. Ratios are better taken from `ohlora bench`, which gives each way its
turn in every round; here one way is finished before the next begins.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ohlora.bench.conftest import NOT_LOADED, loaded
from ohlora.bench.runner.jobs import Folders
from ohlora.bench.runner.machine import keep_memory, machine
from ohlora.bench.runner.processes import run_command
from ohlora.bench.runner.records import row_id
from ohlora.bench.runner.subjects import PRESET_NAMES, QUICK_ITEMS, Options, Subject, bundle_subject, full_size_subject
from ohlora.bench.runner.timing import Group, Work
from ohlora.bench.suites import SUITES
from ohlora.bench.suites.processes import measured_job, render_of

TIMED = ("kernels", "engines", "stages", "pipeline", "cold-start")  # the others give figures that are no times of calls


@functools.cache
def options(config: pytest.Config) -> Options:
    keep_memory()
    presets = [name for name in config.getoption("--ohlora-presets").split(",") if name]
    config.add_cleanup(lambda: opened.subject.close())
    subject: Subject
    if config.getoption("--ohlora-full-size"):
        subject = full_size_subject(presets or PRESET_NAMES)
    else:
        subject = bundle_subject(config.getoption("--ohlora-bundle"), presets)
    opened = Options(subject, quick=True)
    return opened


def groups(config: pytest.Config) -> Iterator[Group | str]:
    """Groups, or in place of the rest of a suite why it cannot be measured."""
    if not loaded(config):
        yield NOT_LOADED
        return
    for name in TIMED:
        try:
            for group in SUITES[name](options(config)):
                assert isinstance(group, Group)
                config.add_cleanup(group.opened.close)
                yield group
        except ImportError as error:
            yield f"{name}: the train extra is not installed ({error})"


def per_unit(units: int) -> pytest.MarkDecorator:
    """Let pytest-benchmark's table show the time of one unit where a call does several, as in all rows of the group."""
    return pytest.mark.benchmark(timer=lambda: time.perf_counter() / units)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_way:
        cases = []
        for group in groups(metafunc.config):
            if isinstance(group, str):
                cases.append(pytest.param(None, group, marks=pytest.mark.skip(reason=group), id="left-out"))
            else:
                cases += [
                    pytest.param(group, name, marks=per_unit(work.units), id=row_id(group.suite, group.name, name))
                    for name, work in group.works.items()
                ]
        metafunc.parametrize(("group", "name"), cases)


def test_way(benchmark: Any, group: Group, name: str, rounds: int) -> None:
    work: Work = group.works[name]
    benchmark.group = f"{group.suite}: {group.name}, one {group.unit}"
    benchmark.extra_info |= {"units_of_a_call": work.units, "unit": group.unit, **machine()}
    benchmark.pedantic(work.call, rounds=rounds, warmup_rounds=1)
    if work.accuracy is not None:
        found = work.accuracy()
        benchmark.extra_info["accuracy"] = found
        # Gates of quality are the presets'; here only a broken way shall fail.
        assert found.get("psnr_db", 100.0) > 25
        assert found.get("iou", 1.0) > 0.98
        assert found.get("share_differing", 0.0) < 0.5


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cache")
    run_command(render_of(1, folder / "first"), folder)
    return folder


@pytest.mark.parametrize("items", [pytest.param(items, marks=per_unit(items)) for items in QUICK_ITEMS])
def test_job_of(benchmark: Any, cache: Any, items: int, rounds: int) -> None:
    """A job of the demo bundle in a process of its own."""
    benchmark.group = "scaling: items of one job, demo bundle, one item"
    peaks = []
    with Folders() as folders:

        def job() -> None:
            peaks.append(measured_job(items, folders.new(), cache).peak / 1e6)

        run: Callable[[], None] = job
        benchmark.pedantic(run, rounds=rounds)
    benchmark.extra_info |= {"items": items, "peak_mb": max(peaks)}
