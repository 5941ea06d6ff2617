"""Commands in messages fit the way the package was installed; `ohlora doctor` finds what is broken, with the remedy."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.testing import CliRunner

from ohlora.base import installation
from ohlora.base.installation import install_command, package_reports, repair_command, upgrade_command
from ohlora.cli import app

ROOT = Path(__file__).resolve().parents[2]
DECLARED = getattr(installation._distribution(), "requires", None) or []


@pytest.fixture(autouse=True)
def _fresh_origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing kept from before, and an environment with pip, whether or not this one has it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: True if name == "pip" else real(name, *rest))
    installation._origin.cache_clear()
    yield
    installation._origin.cache_clear()


def lies_in(monkeypatch: pytest.MonkeyPatch, folder: Path, recorded: dict[str, dict[str, Any] | None]) -> None:
    """As if the package lay in `folder`, and pip had left these distributions (name of a folder: its direct_url)."""
    monkeypatch.setattr(installation, "__file__", str(folder / "ohlora" / "base" / "installation.py"))
    found = []
    for name, direct_url in recorded.items():
        info = folder / name
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ohlora\nVersion: 0.1.0\n")
        if direct_url is not None:
            (info / "direct_url.json").write_text(json.dumps(direct_url))
        found.append(metadata.Distribution.at(info))
    monkeypatch.setattr(metadata, "distributions", lambda **_: found)


def checkout(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    lies_in(monkeypatch, folder, {})
    return str(folder)


def test_a_checkout_is_named_with_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = checkout(monkeypatch, tmp_path / "with space")
    assert install_command("train") == f"cd '{folder}' && pip install -e '.[train]'"
    assert repair_command("train", ["torchvision"]) == (
        f"cd '{folder}' && pip uninstall -y torch torchvision && pip install -e '.[train]' -c constraints.txt"
    )
    assert repair_command("", ["av"]) == f"cd '{folder}' && pip uninstall -y av && pip install -e . -c constraints.txt"
    assert upgrade_command() == f"cd '{folder}' && (get newer sources) && pip install -e ."  # a ZIP, without git
    (Path(folder) / ".git").mkdir()
    assert upgrade_command() == f"cd '{folder}' && git pull && pip install -e ."


def test_commands_for_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = checkout(monkeypatch, tmp_path / "checkout")
    assert install_command("train")  # looks the checkout up while paths are this system's
    monkeypatch.setattr(installation, "os", SimpleNamespace(name="nt"))
    assert install_command("train") == f'cd /d "{folder}" && pip install -e ".[train]"'


def test_commands_in_an_environment_of_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = checkout(monkeypatch, tmp_path / "checkout")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert install_command("train") == f"cd {folder} && uv pip install -e '.[train]'"
    assert repair_command("", ["av"]) == f"cd {folder} && uv pip uninstall av && uv pip install -e . -c constraints.txt"


def test_a_wheel_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "file:///downloads/ohlora-0.1.0-py3-none-any.whl"
    lies_in(monkeypatch, tmp_path, {"old.dist-info": None, "new.dist-info": {"url": url, "archive_info": {}}})
    assert install_command("bench") == f"pip install 'ohlora[bench] @ {url}'"
    assert upgrade_command() == f"install a newer version than {url}"
    assert repair_command("", []) == f"pip install 'ohlora @ {url}'"


def test_a_repository_is_named_with_its_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vcs = {"vcs": "git", "requested_revision": "v1", "commit_id": "0" * 40}
    lies_in(monkeypatch, tmp_path, {"x.dist-info": {"url": "https://example.org/ohlora.git", "vcs_info": vcs}})
    assert install_command("train") == "pip install 'ohlora[train] @ git+https://example.org/ohlora.git@v1'"


def test_an_index_needs_no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lies_in(monkeypatch, tmp_path, {"ohlora.dist-info": None})
    assert install_command("train") == "pip install 'ohlora[train]'"
    assert upgrade_command() == "pip install --upgrade ohlora"


def test_without_metadata_nothing_is_declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lies_in(monkeypatch, tmp_path, {})
    assert list(package_reports()) == []


def broken_import(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    real = importlib.import_module

    def import_module(asked: str, package: str | None = None) -> ModuleType:
        if asked == name:
            raise error
        return real(asked, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def installed_as(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """As if these distributions had these versions, or (None) were not there."""
    real = metadata.version

    def version(name: str) -> str:
        stated = versions.get(name, "")
        if stated is None:
            raise metadata.PackageNotFoundError(name)
        return stated or real(name)

    monkeypatch.setattr(metadata, "version", version)


def doctor() -> tuple[int, dict[str, dict[str, Any]]]:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    return done.exit_code, {row["check"]: row for row in json.loads(done.stdout)["checks"]}


def test_doctor_imports_what_it_calls_ok() -> None:
    pytest.importorskip("torchvision")
    status, rows = doctor()
    assert status == 0
    for name in ("numpy", "numba", "openvino", "av", "packaging"):
        assert f"{name} {metadata.version(name)}" in rows["packages"]["detail"]
    for name in ("torch", "torchvision", "timm", "facenet-pytorch"):
        assert f"{name} {metadata.version(name)}" in rows["extra train"]["detail"]
    assert rows["numba kernel"]["ok"] is True
    assert {"torchvision", "timm", "segmentation_models_pytorch"} <= set(sys.modules)


def test_doctor_names_torchvision_beside_the_wrong_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    broken_import(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))
    status, rows = doctor()
    assert status == 1
    assert rows["extra train"]["ok"] is False
    detail = rows["extra train"]["detail"]
    assert "torchvision" in detail
    assert "RuntimeError: operator torchvision::nms does not exist" in detail
    assert "pip uninstall -y torch torchvision && pip install " in rows["extra train"]["repair"]


def test_doctor_names_a_version_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_as(monkeypatch, {"av": "14.0.0"})
    status, rows = doctor()
    assert status == 1
    assert "av 14.0.0 is installed, >=17.0 is needed" in rows["packages"]["detail"]
    assert "pip uninstall -y av && pip install " in rows["packages"]["repair"]


@pytest.mark.parametrize("name", ["numba", "cv2", "safetensors", "numpy"])
def test_doctor_goes_on_where_a_package_of_the_runtime_is_broken(name: str) -> None:
    """Whatever imports it fails in any way; every row says so, and the first says how to mend it."""
    code = f"""
import sys
sys.modules[{name!r}] = None  # its import fails from now on
from ohlora.cli import app
app(["doctor", "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr[-2000:]
    rows = {row["check"]: row for row in json.loads(done.stdout)["checks"]}
    distribution = {"cv2": "opencv-python-headless"}.get(name, name)
    assert f"{distribution} {metadata.version(distribution)} does not import" in rows["packages"]["detail"]
    assert re.search(rf"pip uninstall .*\b{distribution}\b.* && ", rows["packages"]["repair"])


def test_a_failing_extra_counts_though_another_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    broken_import(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))
    installed_as(monkeypatch, {"pyarrow": None})
    status, rows = doctor()
    assert status == 1
    assert rows["extra train"]["ok"] is False
    assert "not installed: pyarrow" in rows["extra train"]["detail"]


def test_an_extra_that_was_never_asked_for_may_be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    installed_as(monkeypatch, {"pyarrow": None, "scipy": "1.2.0"})
    status, rows = doctor()
    assert status == 0
    assert rows["extra train"]["ok"] is None
    assert "scipy 1.2.0 is installed" in rows["extra train"]["detail"]


def test_onnxruntime_for_gpus_stands_in_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version("onnxruntime")
    installed_as(monkeypatch, {"onnxruntime": None, "onnxruntime-gpu": version})
    (runtime, *_) = package_reports()
    assert not runtime.missing
    assert f"onnxruntime-gpu {version}" in runtime.working


def test_cuda_12_is_an_extra_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_import(monkeypatch, "numba_cuda", ImportError("no driver"))  # whether or not it is installed here
    installed_as(monkeypatch, {"cuda-toolkit": "12.9.1", "numba-cuda": "0.30.4"})
    reports = {report.name: report for report in package_reports()}
    assert "gpu" not in reports
    assert not reports["gpu-cu12"].outdated
    assert not reports["gpu-cu12"].missing


def test_doctor_without_an_extra_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {Requirement(text).name for text in DECLARED if "extra == 'train'" in text.replace('"', "'")}
    assert "torch" in extra
    installed_as(monkeypatch, dict.fromkeys(extra))
    status, rows = doctor()
    assert status == 0
    assert rows["extra train"]["ok"] is None
    assert rows["extra train"]["repair"] == install_command("train")


def test_doctor_reports_a_kernel_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    from ohlora.kernels import ombre

    real = ombre.apply_ombre

    def apply_ombre(*args: Any, backend: str, **settings: Any) -> Any:
        if backend == "cpu":
            raise RuntimeError("LLVM ERROR: symbol not found")
        return real(*args, backend=backend, **settings)

    monkeypatch.setattr(ombre, "apply_ombre", apply_ombre)
    status, rows = doctor()
    assert status == 1
    assert "does not compile (LLVM ERROR: symbol not found)" in rows["numba kernel"]["detail"]


def test_constraints_hold_every_requirement() -> None:
    """`constraints.txt` pins what the README's test command installs, within what pyproject.toml allows."""
    pinned: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            pinned.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    asked = [Requirement(text) for text in DECLARED]
    assert asked, "ohlora is not installed: pip install -e '.[train,dev]' -c constraints.txt"
    for requirement in asked:
        extras = ["", "train", "dev", "bench", "gpu"]
        if not any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        entries = [r for r in pinned[canonicalize_name(requirement.name)] if r.marker is None or r.marker.evaluate()]
        assert len(entries) == 1, f"{requirement.name}: {entries}"
        (specifier,) = entries[0].specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(Version(specifier.version)), f"{entries[0]} against {requirement}"
