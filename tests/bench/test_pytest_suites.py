"""The benches as tests of pytest: beside others' options, without pytest-benchmark, and as rows of its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("-p", "ohlora.bench.plugin", "-p", "no:cacheprovider")

# One group of two ways: one item a call, and ten items a call that takes as long.
ROWS = """
import sys, time
import pytest
from ohlora.bench import suites
from ohlora.bench.runner.timing import Group, Work

def works(options):
    def one(): time.sleep(0.02)
    yield Group("kernels", "a, b", "picture", {"one by one": Work(one), "ten, at once": Work(one, 10)})

for name in suites.SUITES:
    suites.SUITES[name] = works if name == "kernels" else lambda options: iter(())
sys.exit(pytest.main(sys.argv[1:]))
"""


def output_of(*arguments: object, folder: Path = ROOT, status: int = 0) -> str:
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which this process may be.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = inherited | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_project_may_have_options_of_common_names(tmp_path: Path) -> None:
    names = ("bundle", "presets", "full-size")
    lines = "".join(f"    parser.addoption('--{name}', default='theirs')\n" for name in names)
    (tmp_path / "conftest.py").write_text(f"def pytest_addoption(parser):\n{lines}")
    (tmp_path / "test_one.py").write_text(
        "def test_one(request):\n"
        f"    assert all(request.config.getoption('--' + name) == 'theirs' for name in {names})\n"
        "    assert request.config.getoption('--ohlora-bundle') == 'demo'\n"
    )
    assert "1 passed" in output_of("-m", "pytest", *PLUGINS, "-q", folder=tmp_path)


def test_benches_skip_without_pytest_benchmark() -> None:
    said = output_of("-m", "pytest", *PLUGINS, "-q", "-rs", "bench/test_suites_bench.py", "bench/test_ombre_bench.py")
    assert "pytest-benchmark is not loaded" in said
    assert "error" not in said
    assert "failed" not in said
    assert " skipped" in said


def test_rows_of_a_group_are_times_of_one_unit(tmp_path: Path) -> None:
    result = tmp_path / "rows.json"
    output_of(
        "-c", ROWS, *PLUGINS, "-p", "pytest_benchmark.plugin", "bench/test_suites_bench.py", "-k", "test_way",
        "--benchmark-min-rounds", 2, f"--benchmark-json={result}",
    )  # fmt: skip
    rows = {row["name"]: row for row in json.loads(result.read_text())["benchmarks"]}
    assert set(rows) == {"test_way[kernels-a-b-one-by-one]", "test_way[kernels-a-b-ten-at-once]"}
    slow, fast = (rows[name]["stats"] for name in sorted(rows))
    assert slow["rounds"] == fast["rounds"] == 2
    assert slow["min"] >= 0.02
    assert 0.002 <= fast["min"] < 0.02
    assert {row["group"] for row in rows.values()} == {"kernels: a, b, one picture"}
