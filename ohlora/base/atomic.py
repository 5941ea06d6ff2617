"""Write a file so that it is either there complete or not there at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import io
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ohlora.errors import OutputError

TEMPORARY_PREFIX = ".ohlora-tmp-"


def explain_os_error(path: Path, error: OSError) -> OutputError:
    """What failed and what to do, from the error number."""
    remedy = {
        errno.ENOSPC: "the disk is full: free some space and run the same command again, it resumes",
        errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, it resumes",
        errno.EACCES: "no permission: choose another --out",
        errno.EPERM: "no permission: choose another --out",
        errno.EROFS: "the file system is read-only: choose another --out",
        errno.ENAMETOOLONG: "the name is too long for this file system",
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
    """Create `path` and its parents. Raises OutputError when that fails or something else stands there."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"cannot use {path} as output folder: it is a file") from error
    except OSError as error:
        raise explain_os_error(path, error) from error
    return path


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files a killed run left in `folder` (not below it). Returns how many."""
    count = 0
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()
            count += 1
    return count
