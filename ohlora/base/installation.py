"""How this copy of ohlora was installed, and the pip commands that complete or repair it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Distributions whose import name is not their own with underscores.
_IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
    "openvino": "ohlora.engines.openvino_backend",  # these two keep telemetry out
    "onnxruntime": "ohlora.engines.onnxruntime_backend",
}
# Named for pip's choice beside torch; without torch any will do.
_NOT_CHECKED = ("cuda-toolkit",)
# Distributions that others stand in for.
_INSTEAD = {"onnxruntime": ("onnxruntime-gpu",)}
_DEVELOPERS = ("dev", "ptx")


def install_command(extra: str) -> str:
    """The command that adds `extra` to this installation.

    The package is not on an index, so the command names the checkout, or the wheel or repository that it came from.
    """
    return _install(extra)


def upgrade_command() -> str:
    """The command that brings a newer version of the package, or what to do first."""
    origin = _origin()
    if origin.url:
        return f"install a newer version than {origin.url}"
    if origin.checkout is None:
        return f"{_pip()} install --upgrade ohlora"
    newer = "git pull" if (origin.checkout / ".git").exists() else "(get newer sources)"
    return f"{_enter(origin.checkout)} && {newer} && {_pip()} install -e ."


def repair_command(extra: str, broken: list[str]) -> str:
    """Commands that reinstall the `broken` packages of `extra` ("": the runtime's).

    In a checkout they take the versions that were tested together.
    """
    # A package that is there but broken is left alone by pip, and torchvision breaks through torch.
    if "torchvision" in broken and "torch" not in broken:
        broken = ["torch", *broken]
    yes = " -y" if _pip() == "pip" else ""
    remove = f"{_pip()} uninstall{yes} {' '.join(broken)} && " if broken else ""
    return _install(extra, remove, " -c constraints.txt")


def _install(extra: str, before: str = "", pinned: str = "") -> str:
    """pinned: what a checkout adds."""
    origin, extras = _origin(), f"[{extra}]" if extra else ""
    if origin.checkout is None:
        named = f"ohlora{extras}{f' @ {origin.url}' if origin.url else ''}"
        return f"{before}{_pip()} install {_quoted(named)}"
    target = _quoted(f".{extras}") if extras else "."
    return f"{_enter(origin.checkout)} && {before}{_pip()} install -e {target}{pinned}"


def _pip() -> str:
    """Environments that uv makes have no pip of their own."""
    return "pip" if importlib.util.find_spec("pip") else "uv pip"


def _quoted(text: str) -> str:
    """As the system's shell reads it: cmd knows no single quotes."""
    if os.name == "nt":
        return f'"{text}"'
    return shlex.quote(text)


def _enter(folder: Path) -> str:
    return f"cd {'/d ' if os.name == 'nt' else ''}{_quoted(str(folder))}"


@dataclass(frozen=True)
class _Origin:
    """Where the package came from: checkout, the folder it runs from; url, a wheel or repository; neither, an index."""

    url: str = ""
    checkout: Path | None = None


@cache
def _origin() -> _Origin:
    folder = Path(__file__).resolve().parents[2]
    if (folder / "pyproject.toml").is_file():
        return _Origin(checkout=folder)
    found = _distribution()
    text = None if found is None else found.read_text("direct_url.json")
    if text is None:
        return _Origin()
    record = json.loads(text)
    url = str(record["url"])
    if "vcs_info" in record:
        revision = record["vcs_info"].get("requested_revision")
        url = f"{record['vcs_info']['vcs']}+{url}{f'@{revision}' if revision else ''}"
    return _Origin(url=url)


def _distribution() -> metadata.Distribution | None:
    """What pip recorded. A folder `ohlora.egg-info` that a build left in the working directory may be out of date."""
    found = list(metadata.distributions(name="ohlora"))
    return next((entry for entry in found if entry.read_text("direct_url.json")), found[0] if found else None)


@dataclass
class ExtraReport:
    """What is there of the runtime's packages (name "") or of an extra's.

    working: `NAME VERSION` of packages that are new enough and import. failing: those that do not import; outdated:
    those whose version is not in the range, both with the reason. missing: names of those that are not installed.
    """

    name: str
    working: list[str] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    outdated: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def repair(self) -> str:
        """The commands that bring everything into order; empty when it is."""
        broken = [*self.failing, *self.outdated]
        return repair_command(self.name, broken) if broken or self.missing else ""


def package_reports() -> Iterator[ExtraReport]:
    """Import every package that the runtime and its extras ask for, and compare its version with the lowest one.

    Yields nothing when ohlora itself is not installed (a checkout on sys.path), since nobody declared anything then.
    """
    from packaging.requirements import Requirement

    found = _distribution()
    if found is None:
        return
    requirements = [Requirement(text) for text in found.requires or ()]
    other_cuda = "gpu" if installed_version("cuda-toolkit").startswith("12.") else "gpu-cu12"
    hidden = (*_DEVELOPERS, other_cuda)  # the two extras for GPUs exclude each other
    extras = [name for name in found.metadata.get_all("Provides-Extra") or () if name not in hidden]
    for extra in ("", *extras):
        asked = [r for r in requirements if _applies(r, extra) and (not extra or not _applies(r, ""))]
        asked = [r for r in asked if r.name not in _NOT_CHECKED]
        if asked:
            yield _report(extra, asked)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def installed_version(name: str) -> str:
    """Of an installed distribution, else empty."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _report(extra: str, requirements: list[Requirement]) -> ExtraReport:
    report = ExtraReport(extra)
    for name in dict.fromkeys(requirement.name for requirement in requirements):
        here = next((one for one in (name, *_INSTEAD.get(name, ())) if installed_version(one)), name)
        version = installed_version(here)
        ranges = [r.specifier for r in requirements if r.name == name]
        outside = next((r for r in ranges if not r.contains(version, prereleases=True)), None) if version else None
        if not version:
            report.missing.append(name)
        elif outside is not None:
            report.outdated[name] = f"{here} {version} is installed, {outside} is needed"
        elif failure := _import_failure(name):
            report.failing[name] = f"{here} {version} does not import ({failure})"
        else:
            report.working.append(f"{here} {version}")
    return report


def _import_failure(name: str) -> str:
    try:
        importlib.import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken package fails in any way: torchvision beside the wrong torch, RuntimeError
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""
