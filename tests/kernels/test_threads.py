"""Cores and compiled code of the process: quotas of containers, users without a home."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ohlora.kernels import threads
from ohlora.kernels.user_folders import CACHE_VARIABLE, cache_folder

ROOT = Path(__file__).resolve().parents[2]
DYE = """
import numpy as np
from ohlora.kernels.ombre import apply_ombre
images, hair = np.full((40, 64, 64, 3), 90, np.uint8), np.ones((40, 32, 32), np.float32)
print(int(apply_ombre(images, hair, 0.5, 0.7, 0.5, backend="cpu").sum()))
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert threads.cpu_quota(tmp_path) == math.inf
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "max 100000\n")
    assert threads.cpu_quota.__wrapped__(tmp_path) == math.inf


def test_the_smallest_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/pod/container\n")
    write(tmp_path / "sys/fs/cgroup/pod/container/cpu.max", "400000 100000\n")
    write(tmp_path / "sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
    assert threads.cpu_quota(tmp_path) == 1.5


def test_a_quota_of_the_first_version_and_a_path_of_the_host(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert threads.cpu_quota(tmp_path) == 0.5


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.2, 2), (math.inf, None)])
def test_usable_cores_are_bounded_by_the_quota(
    quota: float, cores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.usable_cores() == (cores or 8)


def no_home(name: str) -> str:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("find", [no_home, lambda name: f"~/.cache/{name}"], ids=["raises", "relative"])
def test_a_user_without_a_home_has_no_cache(find: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", find)
    assert cache_folder("engines") is None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
@pytest.mark.parametrize("cache", [False, True])
def test_kernels_of_a_user_who_can_write_nowhere(cache: bool, tmp_path: Path) -> None:
    """The source folder is another user's: compiled without a cache, or kept below the folder that was named."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o755)
    kept.chmod(0o777)
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    environment |= {CACHE_VARIABLE: str(kept)} if cache else {}
    user = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import numba"], capture_output=True, env=environment).returncode:
        pytest.skip("this Python cannot be read by another user")
    done = subprocess.run(
        [*user, sys.executable, "-c", DYE], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    own = subprocess.run([sys.executable, "-c", DYE], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == own.stdout
    assert list(place.iterdir()) == []
    assert bool(list(kept.rglob("*.nbi"))) is cache
