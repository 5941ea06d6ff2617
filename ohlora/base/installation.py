"""How this copy of ohlora was installed, and the pip commands that complete or repair it."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Distributions whose import name is not their own with underscores; "" where there is nothing to import.
_IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "onnxruntime-gpu": "onnxruntime",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
    "openvino": "ohlora.engines.openvino_backend",  # which keeps its telemetry out
    "cuda-toolkit": "",
}
# What developers install is not checked; neither are extras that others repeat.
_NOT_CHECKED = ("dev", "ptx", "gpu-cu12")


def install_command(extra: str) -> str:
    """The pip command that adds `extra` to this installation.

    The package is not on an index, so the command names the checkout, or the wheel that it came from.
    """
    origin = _origin()
    if origin is None:
        return f"pip install 'ohlora[{extra}]'"
    if origin.folder is None:
        return f"pip install 'ohlora[{extra}] @ {origin.url}'"
    return f"cd {quote(str(origin.folder))} && pip install -e '.[{extra}]'"


def upgrade_command() -> str:
    """The command that brings a newer version of the package."""
    origin = _origin()
    if origin is None:
        return "pip install --upgrade ohlora"
    if origin.folder is None:
        return "install a newer wheel of ohlora"
    return f"cd {quote(str(origin.folder))} && git pull && pip install -e ."


@dataclass(frozen=True)
class _Origin:
    """Where the package came from. folder: the checkout that it runs from, else None."""

    url: str
    folder: Path | None


@cache
def _origin() -> _Origin | None:
    """None for a package that came from an index."""
    folder = Path(__file__).resolve().parents[2]
    if (folder / "pyproject.toml").is_file():
        return _Origin("", folder)
    found = _distribution()
    text = None if found is None else found.read_text("direct_url.json")
    return None if text is None else _Origin(json.loads(text)["url"], None)


def _distribution() -> metadata.Distribution | None:
    """What pip recorded. A folder `ohlora.egg-info` that a build left in the working directory may be out of date."""
    found = list(metadata.distributions(name="ohlora"))
    return next((entry for entry in found if entry.read_text("direct_url.json")), found[0] if found else None)


@dataclass
class ExtraReport:
    """What is there of the runtime's packages (name "") or of an extra's.

    working: `NAME VERSION` of packages that are new enough and import. broken: what is wrong with the others.
    """

    name: str
    working: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    repair: str = ""


def package_reports() -> Iterator[ExtraReport]:
    """Import every package that the runtime and its extras ask for, and compare its version with the lowest one.

    Yields nothing when ohlora itself is not installed (a checkout on sys.path), since nobody declared anything then.
    """
    from packaging.requirements import Requirement

    found = _distribution()
    if found is None:
        return
    requirements = [Requirement(text) for text in found.requires or ()]
    extras = [name for name in found.metadata.get_all("Provides-Extra") or () if name not in _NOT_CHECKED]
    for extra in ("", *extras):
        asked = [r for r in requirements if _applies(r, extra) and (not extra or not _applies(r, ""))]
        if asked:
            yield _report(extra, asked)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _report(extra: str, requirements: list[Requirement]) -> ExtraReport:
    report = ExtraReport(extra)
    names = {requirement.name: requirement for requirement in reversed(requirements)}
    for name in reversed(names):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            report.missing.append(name)
            continue
        ranges = [r.specifier for r in requirements if r.name == name]
        outside = next((r for r in ranges if not r.contains(version, prereleases=True)), None)
        if outside is not None:
            report.broken.append(f"{name} {version} is installed, {outside} is needed")
        elif failure := _import_failure(name):
            report.broken.append(f"{name} {version} does not import ({failure})")
        else:
            report.working.append(f"{name} {version}")
    if report.broken or report.missing:
        report.repair = repair_command(extra, [entry.split()[0] for entry in report.broken])
    return report


def _import_failure(name: str) -> str:
    module = _IMPORT_NAMES.get(name, name.replace("-", "_"))
    if not module:
        return ""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package fails in any way: torchvision beside the wrong torch, RuntimeError
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def repair_command(extra: str, broken: list[str]) -> str:
    """Commands that reinstall the `broken` packages of `extra` ("": the runtime's).

    In a checkout they take the versions that were tested together.
    """
    # A package that is there but broken is left alone by pip, and torchvision breaks through torch.
    if "torchvision" in broken and "torch" not in broken:
        broken = ["torch", *broken]
    remove = f"pip uninstall -y {' '.join(broken)} && " if broken else ""
    origin = _origin()
    if origin is not None and origin.folder is not None:
        target = f"'.[{extra}]'" if extra else "."
        return f"cd {quote(str(origin.folder))} && {remove}pip install -e {target} -c constraints.txt"
    package = f"ohlora[{extra}]" if extra else "ohlora"
    return f"{remove}pip install '{package}{f' @ {origin.url}' if origin else ''}'"
