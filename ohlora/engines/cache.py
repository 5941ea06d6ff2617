"""Compiled networks kept on this machine. A damaged or stale entry is rebuilt, never trusted.

What an entry saves is reading and optimising the graph: most of the load of a network of many layers, next to
nothing for one whose size is its weights (bench/test_engine_bench.py measures both).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.errors import OutputError
from ohlora.kernels.user_folders import CACHE_VARIABLE as CACHE_VARIABLE
from ohlora.kernels.user_folders import cache_folder

_LAYOUT = "1"  # part of every key: bump it when the file layout below changes
_DIGEST = 32


def cache_root() -> Path | None:
    """Folder of all entries, or None when the cache is off (`cache_folder`)."""
    return cache_folder("engines")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One compiled network: <root>/<key>/engine.bin = sha256 of the rest, one line of JSON, the blob.

    The checksum is ours because runtimes load a blob with flipped weights without noticing.
    """

    folder: Path

    @classmethod
    def of(cls, *key: object) -> CacheEntry | None:
        """The entry for everything that decides what is compiled; None when the cache is off."""
        root = cache_root()
        if root is None:
            return None
        text = json.dumps([_LAYOUT, *(str(part) for part in key)])
        return cls(root / hashlib.sha256(text.encode()).hexdigest())

    @property
    def file(self) -> Path:
        return self.folder / "engine.bin"

    def load(self) -> tuple[dict[str, Any], memoryview] | None:
        """The JSON header and the blob, or None when there is no entry; a damaged one is removed."""
        try:
            data = memoryview(self.file.read_bytes())
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
            with contextlib.suppress(ValueError):
                end = bytes(data[: _DIGEST + 65536]).index(b"\n", _DIGEST) + 1
                return json.loads(bytes(data[_DIGEST:end])), data[end:]
        self.discard()
        return None

    def store(self, header: dict[str, Any], blob: bytes) -> bool:
        """Keep an entry. False when that is not possible: a cache that cannot be written is just no cache."""
        line = json.dumps(header).encode() + b"\n"
        digest = hashlib.sha256(line)
        digest.update(blob)
        try:
            make_folder(self.folder)
            write_bytes(self.file, b"".join((digest.digest(), line, blob)))
        except OutputError:
            return False
        return True

    def discard(self) -> None:
        """Forget the entry, so that the next load compiles again."""
        shutil.rmtree(self.folder, ignore_errors=True)
