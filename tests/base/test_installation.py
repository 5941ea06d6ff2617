"""Commands in messages fit the way the package was installed; `ohlora doctor` finds what is broken, with the remedy."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
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
def _fresh_origin() -> Iterator[None]:
    installation._origin.cache_clear()
    yield
    installation._origin.cache_clear()


def lies_in(monkeypatch: pytest.MonkeyPatch, folder: Path, recorded: dict[str, str | None]) -> None:
    """As if the package lay in `folder`, and pip had left these distributions (name of a folder: its direct_url)."""
    monkeypatch.setattr(installation, "__file__", str(folder / "ohlora" / "base" / "installation.py"))
    found = []
    for name, url in recorded.items():
        info = folder / name
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ohlora\nVersion: 0.1.0\n")
        if url is not None:
            (info / "direct_url.json").write_text(json.dumps({"url": url, "archive_info": {}}))
        found.append(metadata.Distribution.at(info))
    monkeypatch.setattr(metadata, "distributions", lambda **_: found)


def test_a_checkout_is_named_with_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkout = tmp_path / "with space"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    lies_in(monkeypatch, checkout, {})
    assert install_command("train") == f"cd '{checkout}' && pip install -e '.[train]'"
    assert upgrade_command() == f"cd '{checkout}' && git pull && pip install -e ."
    assert repair_command("train", ["torchvision"]) == (
        f"cd '{checkout}' && pip uninstall -y torch torchvision && pip install -e '.[train]' -c constraints.txt"
    )
    assert repair_command("", ["av"]) == (
        f"cd '{checkout}' && pip uninstall -y av && pip install -e . -c constraints.txt"
    )


def test_a_wheel_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "file:///downloads/ohlora-0.1.0-py3-none-any.whl"
    lies_in(monkeypatch, tmp_path, {"old.dist-info": None, "ohlora.dist-info": url})
    assert install_command("bench") == f"pip install 'ohlora[bench] @ {url}'"
    assert upgrade_command() == "install a newer wheel of ohlora"
    assert repair_command("", []) == f"pip install 'ohlora @ {url}'"


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
    assert "pip uninstall -y torch torchvision && pip install " in detail


def test_doctor_names_a_version_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "14.0.0" if name == "av" else real(name))
    status, rows = doctor()
    assert status == 1
    assert "av 14.0.0 is installed, >=17.0 is needed" in rows["packages"]["detail"]
    assert "pip uninstall -y av && pip install " in rows["packages"]["detail"]


def test_doctor_goes_on_where_a_package_of_the_runtime_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenCV of before NumPy 2 beside NumPy 2: whatever imports it fails, and every row says so."""

    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "cv2":
                raise ImportError("numpy.core.multiarray failed to import")

    for name in [name for name in sys.modules if name.split(".")[0] == "cv2" or name.startswith("ohlora.kernels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    status, rows = doctor()
    assert status == 1
    assert "opencv-python-headless" in rows["packages"]["detail"]
    assert "pip uninstall -y opencv-python-headless && pip install " in rows["packages"]["detail"]
    assert rows["numba kernel"]["ok"] is False
    assert "multiarray failed to import" in rows["numba kernel"]["detail"]


def test_doctor_without_an_extra_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {Requirement(text).name for text in DECLARED if "extra == 'train'" in text.replace('"', "'")}
    assert "torch" in extra
    real = metadata.version

    def version(name: str) -> str:
        if name in extra:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    status, rows = doctor()
    assert status == 0
    assert rows["extra train"]["ok"] is None
    assert rows["extra train"]["detail"] == f"not installed: {install_command('train')}"


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
    for requirement in asked:
        extras = ["", "train", "dev", "bench", "gpu"]
        if not any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        entries = [r for r in pinned[canonicalize_name(requirement.name)] if r.marker is None or r.marker.evaluate()]
        assert len(entries) == 1, f"{requirement.name}: {entries}"
        (specifier,) = entries[0].specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(Version(specifier.version)), f"{entries[0]} against {requirement}"
