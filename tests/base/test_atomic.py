"""A file is there complete or not at all, and every failure to write says what to do."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ohlora.base.atomic import (
    TEMPORARY_PREFIX,
    atomic_path,
    make_folder,
    remove_leftovers,
    write_bytes,
    write_csv,
    write_json,
)
from ohlora.errors import OutputError

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_bytes_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for data in (b"first", b"second, longer", b""):
        write_bytes(tmp_path / "a.bin", data)
        assert (tmp_path / "a.bin").read_bytes() == data
    assert names(tmp_path) == ["a.bin"]


def test_json_and_csv_files(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "größer"})
    write_json(tmp_path / "b.json", {"name": "größer"}, indent=None, ensure_ascii=False)
    assert (tmp_path / "a.json").read_text() == '{\n "name": "gr\\u00f6\\u00dfer"\n}\n'
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == '{"name": "größer"}\n'
    for name in ("a.csv", "a.csv.gz", "b.csv.gz"):
        write_csv(tmp_path / name, (row for row in (["x", "y"], [0.5, None], ['a "b"', "c,d"])))
    text = 'x,y\n0.5,\n"a ""b""","c,d"\n'
    assert (tmp_path / "a.csv").read_bytes() == text.encode()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == text.encode()
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_temporary_is_a_hidden_sibling_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.parent == tmp_path  # a rename is atomic inside one file system only
        assert temporary.name.startswith(TEMPORARY_PREFIX)
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
        assert not (tmp_path / "a.png").exists()
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [ValueError("bad frame"), KeyboardInterrupt()])
def test_a_failing_block_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(type(error)), atomic_path(tmp_path / "a") as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: free some space and run the same command again, it resumes"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "no permission: choose another place"),
        (errno.EROFS, "read-only: choose another place"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_each_failure_of_the_disk_has_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "a", b"new")
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'a'}: ")
    assert remedy in str(caught.value)
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), atomic_path(tmp_path / "a") as temporary:  # noqa: PT012
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x" * 10_000)
    assert names(tmp_path) == []


def test_a_missing_folder_and_a_long_name_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"gone.a: No such file or directory"):
        write_bytes(tmp_path / "gone" / "a", b"")
    # The temporary's name is short: only the rename meets the limit.
    with pytest.raises(OutputError, match="name is too long"):
        write_bytes(tmp_path / ("n" * 300), b"")
    assert names(tmp_path) == []


def test_make_folder(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    make_folder(tmp_path / "a" / "b")
    write_bytes(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="it is a file"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="in the place of a folder"):
        make_folder(tmp_path / "file" / "below")


def test_a_killed_writer_leaves_the_old_file_and_one_leftover(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from ohlora.base.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.bin")], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["a.bin"]
