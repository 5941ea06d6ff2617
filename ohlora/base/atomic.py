"""Write a file or a folder so that it is either there complete or not there at all, by one process at a time.

`install_folder` builds beside its target and then takes its place. Where the system can exchange two folders (Linux, on
most file systems) that is one step; elsewhere the old folder steps aside first. All names it uses are siblings:

    .NAME.ohlora-new-RANDOM   being built, or the old content on its way out; after a kill it may go
    .NAME.ohlora-old-INODE    the old content while the new one takes its place; INODE is the new one's, so that a later
                              run knows whether it got there
    .NAME.ohlora-lock         held by the process that installs
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import glob
import gzip
import io
import json
import logging
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ohlora.base.closing import Closing
from ohlora.errors import InvalidInputError, OutputError, PlaceError

try:
    import fcntl
except ImportError:  # Windows has no flock: there, two processes on one target are not noticed
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".ohlora-tmp-"
WAIT_SECONDS = 2.0  # for a living process that is just replacing a folder
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
_log = logging.getLogger(__name__)

# What is wrong with one name; with another one the same disk takes the file.
_PLACES = {
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EISDIR: "a folder stands there: move it away",
    errno.ENOTDIR: "a file stands in the place of a folder: move it away",
    errno.ELOOP: "a link stands in its place: move it away",
    errno.EILSEQ: "this file system cannot store the name",
    errno.EINVAL: "this file system cannot store the name",
}


def explain_os_error(path: Path, error: OSError) -> OutputError:
    """What failed and what to do, from the error number. A PlaceError where only this name is at fault."""
    if (reason := _PLACES.get(error.errno or 0)) is not None:
        return PlaceError(f"cannot write {path}: {reason}")
    remedy = {
        errno.ENOSPC: "the disk is full: free some space and run the same command again, it resumes",
        errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, it resumes",
        errno.EACCES: "no permission: choose another place",
        errno.EPERM: "no permission: choose another place",
        errno.EROFS: "the file system is read-only: choose another place",
    }.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {remedy}")


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; renamed to `path` when the block succeeds, removed when it fails.

    The temporary keeps the suffix, since encoders choose the format by it. OSErrors become OutputError.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explain_os_error(path, error) from error
        raise


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path | str, content: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write `content` to `path` as JSON that ends with a line break, atomically."""
    write_bytes(path, (json.dumps(content, indent=indent, ensure_ascii=ensure_ascii) + "\n").encode())


def write_csv(path: Path | str, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells, the heading among them, as comma-separated text, atomically.

    A name that ends in .gz is compressed, without a time stamp: the same rows give the same bytes.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    write_bytes(path, gzip.compress(data, mtime=0) if Path(path).suffix.lower() == ".gz" else data)


def make_folder(path: Path | str) -> Path:
    """Create `path` and its parents. Raises OutputError when that fails, PlaceError when something else is there."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise PlaceError(f"cannot use {path} as output folder: it is a file") from error
    except OSError as error:
        raise explain_os_error(path, error) from error
    return path


def open_file(path: Path, flags: int) -> int:
    """`os.open` for a file of our own records. One that is not a regular file is refused, and links are not followed:
    a folder that came from somebody else must not lead us to write elsewhere, or to wait for a pipe.

    Raises PlaceError, and OSError as `os.open`.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(path, flags | safe, 0o666)
    except OSError as error:
        if isinstance(explained := explain_os_error(path, error), PlaceError):
            raise explained from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PlaceError(f"cannot use {path}: it is a device or a pipe, not a file: move it away")
    return file


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files a killed run left in `folder` (not below it). Returns how many."""
    count = 0
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()
            count += 1
    return count


class FileLock(Closing):
    """A lock that lasts until `close`, or until its process ends, however it ends. Made by `lock_file`.

    exclusive: False where the system or the file system has no locks.
    """

    def __init__(self, file: int, exclusive: bool) -> None:
        self._file, self.exclusive, self.closed = file, exclusive, False

    def close(self) -> None:
        """Let other processes write. May be called again."""
        if not self.closed:
            os.close(self._file)
            self.closed = True


def lock_file(path: Path, target: Path, remedy: str = "wait for it or choose another --out") -> FileLock:
    """Lock the file `path`, which is made where it is missing, for writing to `target`.

    Raises InvalidInputError when another process holds the lock, naming it; OutputError when the file cannot be made.
    """
    while True:
        try:
            file = open_file(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise explain_os_error(target, error) from error
        exclusive = False
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                exclusive = True
            except BlockingIOError as error:
                owner = os.pread(file, 32, 0).decode("ascii", "replace").strip()
                os.close(file)
                raise InvalidInputError(
                    f"another ohlora process{f' ({owner})' if owner else ''} is writing to {target}: {remedy}"
                ) from error
            except OSError as error:  # some network file systems have no locks
                _log.warning("%s cannot be locked (%s): let no second process write to it", target, error.strerror)
        if not exclusive or _is_current(path, file):
            break
        os.close(file)  # its holder has removed it since: the next one may be another's
    with contextlib.suppress(OSError):  # who holds it is a courtesy of the message above
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()}\n".encode())
    return FileLock(file, exclusive)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path` (`lock_file`). False where the system has no locks."""
    if fcntl is None:
        return False
    try:
        file = open_file(path, os.O_RDONLY)
    except (OSError, OutputError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        return False
    finally:
        os.close(file)


def _is_current(path: Path, file: int) -> bool:
    """Whether `path` leads to the open `file`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def install_folder(
    folder: Path | str, *, what: str, known: Callable[[Path], bool], overwrite: bool = False
) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of `folder` when the block succeeds, and goes when it fails.

    Killed at any moment, `folder` has its old content or its new one: at once where folders can be exchanged, else from
    the next `install_folder` or `recover_folder` on. Where it is a link, the folder that it leads to is replaced.

    what: what is installed, for messages ("a bundle"). known: whether a folder is one of these; with `overwrite` such a
    one is replaced, anything else but an empty folder is left alone.
    Raises InvalidInputError when something stands in the way or another process is writing to `folder`, OutputError
    when it cannot be written; OSErrors of the block become OutputError.
    """
    folder = Path(folder).resolve()

    def require_replaceable() -> None:
        if not os.path.lexists(folder) or _is_empty_folder(folder):
            return
        if not folder.is_dir() or not known(folder):
            raise InvalidInputError(f"{folder} exists and is not {what}: choose another --out, it is left alone")
        if not overwrite:
            raise InvalidInputError(f"{folder} is {what} already: choose another --out, or --overwrite to replace it")

    require_replaceable()  # before anything is written near it
    make_folder(folder.parent)
    building = _building(folder)
    with _locked(folder) as lock:
        try:
            _recover(folder)
            require_replaceable()
            if lock.exclusive:
                for leftover in _siblings(folder, "new-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            building.mkdir()
            yield building
            require_replaceable()
            _replace(folder, building)
        except OSError as error:
            raise explain_os_error(folder, error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)


def recover_folder(folder: Path | str) -> Path:
    """`folder`, for readers: with its content back where a killed `install_folder` left it aside.

    Where that cannot be put back (a read-only place), the folder that the content lies in.
    """
    folder = Path(folder)
    until = time.monotonic() + WAIT_SECONDS
    while not folder.exists() or _is_empty_folder(folder):
        real = folder.resolve()
        aside = next(iter(_siblings(real, "old-*")), None)
        if aside is None:
            break
        try:
            with _locked(real):
                _recover(real)
        except InvalidInputError:  # a living process is about to put the new content there
            if time.monotonic() > until:
                return aside
            time.sleep(0.01)
        except (OutputError, OSError):
            return aside
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[FileLock]:
    path = folder.with_name(f".{folder.name}.ohlora-lock")
    with lock_file(path, folder) as lock:
        try:
            yield lock
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _replace(folder: Path, building: Path) -> None:
    """Put `building` in the place of `folder`; the old content is below the name of `building` then."""
    if not os.path.lexists(folder):
        building.rename(folder)
    elif not _exchange(folder, building):
        aside = folder.with_name(f".{folder.name}.ohlora-old-{building.stat().st_ino}")
        try:
            folder.rename(aside)
            building.rename(folder)
            aside.rename(building)
        except BaseException:
            _recover(folder)
            raise


def _recover(folder: Path) -> None:
    """Undo a replacement that was left half done, or finish it where its last step is missing. Needs the lock."""
    for aside in _siblings(folder, "old-*"):
        if not os.path.lexists(folder) or _is_empty_folder(folder):
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
        elif aside.name.endswith(f"-{folder.stat().st_ino}"):
            shutil.rmtree(aside.rename(_building(folder)), ignore_errors=True)
        else:
            raise OutputError(
                f"{aside} holds what was at {folder} before a process was killed, and something else is there now: "
                "move one of them away"
            )


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step. False where the system or the file system cannot; then nothing has changed."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    names = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def _siblings(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.parent.glob(f".{glob.escape(folder.name)}.ohlora-{pattern}"))


def _building(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.ohlora-new-{uuid.uuid4().hex[:12]}")


def _is_empty_folder(folder: Path) -> bool:
    try:
        return folder.is_dir() and not any(folder.iterdir())
    except OSError:  # it cannot be read, so nobody may say that it is empty
        return False
