"""A folder is replaced whole: by an error, a kill at any step or a second process, the old or the new one is there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ohlora.base import atomic
from ohlora.base.atomic import install_folder, lock_file, recover_folder
from ohlora.errors import InvalidInputError, OutputError

ROOT = Path(__file__).resolve().parents[2]
MARK = "it.json"
# How the new folder takes its place: in one step, or by two renames where the system has no such step.
WAYS = pytest.mark.parametrize("exchange", [True, False])


def known(folder: Path) -> bool:
    return (folder / MARK).is_file()


def install(folder: Path, text: str, overwrite: bool = True) -> None:
    with install_folder(folder, what="a thing", known=known, overwrite=overwrite) as building:
        (building / MARK).write_text(text)
        (building / "data").write_text(text * 1000)


def content(folder: Path) -> str:
    text = (folder / MARK).read_text()
    assert (folder / "data").read_text() == text * 1000
    assert len(list(folder.iterdir())) == 2
    return text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def only_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.fixture
def way(request: pytest.FixtureRequest, exchange: bool) -> None:
    if not exchange:
        request.getfixturevalue("only_renames")


@WAYS
@pytest.mark.usefixtures("way")
def test_a_folder_is_made_and_replaced(tmp_path: Path) -> None:
    for text in ("one", "two"):
        install(tmp_path / "deep" / "out", text)
        assert content(tmp_path / "deep" / "out") == text
    assert names(tmp_path / "deep") == ["out"]
    (tmp_path / "deep" / "empty").mkdir()
    install(tmp_path / "deep" / "empty", "three", overwrite=False)
    assert content(tmp_path / "deep" / "empty") == "three"
    assert names(tmp_path / "deep") == ["empty", "out"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_linux_exchanges_folders_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    assert not atomic._exchange(tmp_path / "a", tmp_path / "gone")


def test_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("thesis", "file", "link"):
        with pytest.raises(InvalidInputError, match="exists and is not a thing: choose another --out, it is left"):
            install(tmp_path / name, "new")
    with pytest.raises(InvalidInputError, match="exists and is not a thing"):
        install(Path("/"), "new")
    install(tmp_path / "out", "old")
    with pytest.raises(InvalidInputError, match=r"is a thing already: .*--overwrite"):
        install(tmp_path / "out", "new", overwrite=False)
    assert content(tmp_path / "out") == "old"
    assert names(tmp_path) == ["file", "link", "out", "thesis"]
    assert names(tmp_path / "thesis") == ["thesis.txt"]


def test_what_came_while_the_folder_was_built_is_left_alone(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(InvalidInputError, match="exists and is not a thing"),
        install_folder(tmp_path / "out", what="a thing", known=known, overwrite=True),
    ):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["thesis.txt"]


@WAYS
@pytest.mark.usefixtures("way")
def test_the_folder_that_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    install(tmp_path / "real", "old")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "out").symlink_to(tmp_path / "real")
    install(tmp_path / "links" / "out", "new")
    assert content(tmp_path / "real") == "new"
    assert (tmp_path / "links" / "out").is_symlink()
    (tmp_path / "links" / "ahead").symlink_to(tmp_path / "later")
    install(tmp_path / "links" / "ahead", "new")
    assert content(tmp_path / "later") == "new"
    assert (names(tmp_path), names(tmp_path / "links")) == (["later", "links", "real"], ["ahead", "out"])


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failing_block_keeps_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    install(tmp_path / "out", "old")
    with (  # noqa: PT012
        pytest.raises(type(error)),
        install_folder(tmp_path / "out", what="a thing", known=known, overwrite=True) as building,
    ):
        (building / MARK).write_text("half")
        raise error
    assert content(tmp_path / "out") == "old"
    assert names(tmp_path) == ["out"]


def failing_rename(fails: Callable[[Path, Path], bool], code: int) -> Callable[[Path, Path], Path]:
    honest = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if fails(self, target):
            raise OSError(code, os.strerror(code))
        return honest(self, target)

    return rename


@pytest.mark.usefixtures("only_renames")
@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission: choose another place")]
)
@pytest.mark.parametrize("step", ["first", "second"])
def test_a_failing_rename_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, message: str
) -> None:
    out = tmp_path / "out"
    install(out, "old")

    def fails(source: Path, target: Path) -> bool:
        return source == out if step == "first" else target == out and "ohlora-new" in source.name

    monkeypatch.setattr(Path, "rename", failing_rename(fails, code))
    with pytest.raises(OutputError, match=f"cannot write .*out: {message}"):
        install(out, "new")
    assert content(out) == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("only_renames")
def test_where_the_way_back_fails_too_the_next_run_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    install(out, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing_rename(lambda source, target: target == out, errno.EIO))
        with pytest.raises(OutputError, match="Input/output error"):
            install(out, "new")
        assert not out.exists()
    assert content(recover_folder(out)) == "old"
    assert names(tmp_path) == ["out"]


# The child counts what it does to the file system and dies before or after step N of it.
CHILD = """
import os, shutil, sys
from pathlib import Path
from ohlora.base import atomic
out, exchange, last, when = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3]), sys.argv[4]
done = 0
def counted(function):
    def call(*args, **kwargs):
        global done
        done += 1
        if done == last and when == "before":
            os._exit(9)
        result = function(*args, **kwargs)
        if done == last and when == "after":
            os._exit(9)
        return result
    return call
if not exchange:
    atomic._exchange = lambda one, other: False
else:
    atomic._exchange = counted(atomic._exchange)
for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "unlink"), (os, "open"), (os, "rmdir"), (os, "unlink")):
    setattr(owner, name, counted(getattr(owner, name)))
with atomic.install_folder(out, what="a thing", known=lambda path: True, overwrite=True) as building:
    for name, text in (("it.json", "new"), ("data", "new" * 1000)):
        done += 1
        if done == last:
            os._exit(9)
        (building / name).write_text(text)
"""


def killed(out: Path, exchange: bool, step: int, when: str) -> bool:
    """Whether the child died; it finished its work when there is no such step."""
    arguments = [sys.executable, "-c", CHILD, str(out), str(exchange), str(step), when]
    code = subprocess.run(arguments, cwd=ROOT, check=False).returncode
    assert code in (0, 9)
    return code == 9


@WAYS
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_the_old_or_the_new_folder_is_there(tmp_path: Path, exchange: bool, when: str) -> None:
    seen = set()
    step = 0
    died = True
    while died:
        step += 1
        read, run = tmp_path / f"read{step}", tmp_path / f"run{step}"
        for place in (read, run):
            install(place / "out", "old")
            (place / ".out2.ohlora-old-1").mkdir()  # of another job
            (place / ".out2.ohlora-new-1").mkdir()
            died = killed(place / "out", exchange, step, when)
        if exchange:  # at once, for whoever looks
            assert content(read / "out") in ("old", "new")
        seen.add(content(recover_folder(read / "out")))
        install(run / "out", "newer")
        assert content(run / "out") == "newer"
        assert names(run) == [".out2.ohlora-new-1", ".out2.ohlora-old-1", "out"]
    assert step > 6
    assert seen == {"old", "new"}


@pytest.mark.usefixtures("only_renames")
def test_the_only_copy_is_never_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "empty", "other"):
        install(out, "old")
        out.rename(tmp_path / ".out.ohlora-old-12345")  # where a kill between the renames leaves it
        if name == "empty":
            out.mkdir()
        if name != "other":
            install(out, "new")
            assert content(out) == "new"
            continue
        out.mkdir()
        (out / MARK).write_text("made by hand since")
        with pytest.raises(OutputError, match=r"holds what was at .*: move one of them away"):
            install(out, "new")
        assert content(tmp_path / ".out.ohlora-old-12345") == "old"
        assert content(recover_folder(tmp_path / ".out.ohlora-old-12345")) == "old"
        assert (recover_folder(out) / MARK).read_text() == "made by hand since"


def test_a_reader_finds_the_folder_where_it_cannot_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    install(out, "old")
    out.rename(tmp_path / ".out.ohlora-old-12345")

    def read_only(*arguments: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert content(recover_folder(out)) == "old"
        with pytest.raises(OutputError, match=r"cannot write .*out: the file system is read-only"):
            install(out, "new")
    assert names(tmp_path) == [".out.ohlora-old-12345"]
    assert recover_folder(tmp_path / "never") == tmp_path / "never"


def test_a_reader_waits_for_a_process_between_its_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    install(out, "old")
    out.rename(tmp_path / ".out.ohlora-old-12345")
    with lock_file(tmp_path / ".out.ohlora-lock", out) as lock:

        def sleep(seconds: float) -> None:
            (tmp_path / ".out.ohlora-old-12345").rename(out)
            lock.close()

        monkeypatch.setattr(atomic.time, "sleep", sleep)
        assert content(recover_folder(out)) == "old"


@pytest.mark.skipif(atomic.fcntl is None, reason="needs flock")
def test_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import sys; from ohlora.base.atomic import install_folder\n"
        "with install_folder(sys.argv[1], what='a thing', known=lambda path: True) as building:\n"
        "    (building / 'it.json').write_text('theirs'); (building / 'data').write_text('theirs' * 1000)\n"
        "    print('building', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(out)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    busy = rf"another ohlora process \(process {child.pid}\) is writing to .*out: wait for it or choose another --out"
    with pytest.raises(InvalidInputError, match=busy):
        install(out, "mine")
    child.communicate()
    assert content(out) == "theirs"
    install(out, "mine")
    assert content(out) == "mine"
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(atomic.fcntl is None, reason="needs flock")
def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    honest, files = atomic.fcntl.flock, []

    def flock(file: int, operation: int) -> None:
        files.append(file)
        honest(file, operation)
        if len(files) == 1:
            path.unlink()

    monkeypatch.setattr(atomic.fcntl, "flock", flock)
    with lock_file(path, tmp_path) as lock:
        assert len(files) == 2
        assert lock.exclusive
        assert path.read_text() == f"process {os.getpid()}\n"
        with pytest.raises(InvalidInputError, match=rf"\(process {os.getpid()}\) is writing to .*: end it first"):
            lock_file(path, tmp_path, "end it first")
    lock_file(path, tmp_path).close()


@pytest.mark.skipif(atomic.fcntl is None, reason="needs flock")
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", unsupported)
    (tmp_path / ".out.ohlora-new-1").mkdir()
    install(tmp_path / "out", "new")
    assert "out cannot be locked (No locks available): let no second process write to it" in caplog.text
    # Nobody can say whether its process lives.
    assert names(tmp_path) == [".out.ohlora-new-1", "out"]
