"""What the wheel holds: real files below ohlora/, the demo bundle, the example; nothing at top level, no tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# PyPI refuses files above 100 MB, but everybody who installs this downloads it: the demo's generator (float16) and
# hair student (6.6 MB) are all that may weigh, and 25 MB leaves them room.
LIMIT_MB = 25


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, since setuptools leaves build folders beside the sources.
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            ".git", ".venv*", "*.egg-info", "build", "dist", "runs", "out", "out-*", ".*_cache"
        ),
    )
    # The build backend itself: environments that uv makes have no pip.
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=source, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("ohlora-*.whl")
    assert path.stat().st_size < LIMIT_MB * 1e6
    return zipfile.ZipFile(path)


def test_everything_is_below_ohlora(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ohlora"}


def test_every_module_of_the_checkout_is_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for layer in ("kernels", "training", "export", "bench"):
        for path in (ROOT / layer).rglob("*.py"):
            # Studies are commands of a checkout.
            study = path.is_relative_to(ROOT / "bench" / "studies")
            assert (f"ohlora/{path.relative_to(ROOT).as_posix()}" in names) != study
    for path in (ROOT / "ohlora").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    for page in ("local", "label", "select"):  # what the browser loads
        for path in (ROOT / "training" / "pages" / page).iterdir():
            assert path.is_dir() or f"ohlora/{path.relative_to(ROOT).as_posix()}" in names


def test_data_files(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder in ("bundle/demo", "bundle/photo", "examples", "photos/detector"):
        files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ohlora" / folder).iterdir() if path.is_file()]
        assert files
        assert set(files) <= names
    assert {"ohlora/py.typed", "ohlora/examples/astronaut.jpg", "ohlora/kernels/ombre/hue_table.json"} <= names
    manifest = json.loads(wheel.read("ohlora/bundle/demo/bundle.json"))
    assert {f"ohlora/bundle/demo/{file}" for file in manifest["files"]} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "/tests/" in name or name.endswith((".pth", ".pkl"))]
