"""Arrays in files of strangers: .npy, .npz and safetensors, looked at before anything is allocated.

A header may claim any shape, an archive may unpack to any size. Both are compared with what the file has first.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ohlora.base.reading import MIB, open_file, read_file
from ohlora.base.text import first_of, shown
from ohlora.errors import InvalidInputError, OhloraError, one_line

Arrays = dict[str, NDArray[Any]]

PLAIN_KINDS = "biufUS"  # numbers and text: no objects, records, dates or complex numbers
PACKED_FLOOR, PACKED_RATIO = 64 * MIB, 200  # what a compressed file may unpack to: so much, or so many times its size
MAX_ENTRIES = 1000
# What NumPy and zipfile raise of damaged bytes reaches from SyntaxError to MemoryError.
_DAMAGED = (Exception,)


def packed_limit(size: int) -> int:
    """How many bytes a compressed file of `size` bytes may unpack to."""
    return max(PACKED_FLOOR, PACKED_RATIO * size)


def read_npy(path: Path, error: type[OhloraError] = InvalidInputError) -> NDArray[Any]:
    """The array of a .npy file. Raises `error` naming it: damaged, of objects, or of another size than it claims."""
    with open_file(path, "array", error) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _read_array(file, size, shown(path, 300), error)


def read_npz(path: Path, names: Collection[str], error: type[OhloraError] = InvalidInputError) -> Arrays:
    """Those of the arrays `names` that a .npz file has; others are not unpacked.

    Raises `error` naming the file for one that is damaged, encrypted, packed in another way than NumPy's, or unpacks to
    far more than its size, and, with what there is, for one that has none of `names`.
    """
    where = shown(path, 300)
    with open_file(path, "archive of arrays", error) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                if len(entries) > MAX_ENTRIES:
                    raise error(f"{where} has {len(entries):,} entries, more than the limit of {MAX_ENTRIES:,}")
                chosen = {name: entries[name] for name in names if name in entries}
                if not chosen:
                    there = first_of([shown(name, 40) for name in entries], 8)
                    raise error(f"{where} has no array {first_of(list(names))} (it has {there or 'nothing'})")
                _require_plain(chosen, size, where, error)
                arrays = {}
                for name, info in chosen.items():
                    with archive.open(info) as member:
                        arrays[name] = _read_array(cast(BinaryIO, member), info.file_size, f"{where}: '{name}'", error)
                return arrays
        except OhloraError:
            raise
        except _DAMAGED as problem:
            raise error(
                f"cannot read {where}: it is no .npz archive, or damaged ({one_line(problem, 120)})"
            ) from problem


def _require_plain(entries: dict[str, zipfile.ZipInfo], size: int, where: str, error: type[OhloraError]) -> None:
    for name, info in entries.items():
        if info.flag_bits & 0x1:
            raise error(f"{where}: '{name}' is encrypted: save it without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise error(f"{where}: '{name}' is compressed in a way that NumPy does not write: save it with np.savez")
    total = sum(info.file_size for info in entries.values())
    if total > packed_limit(size):
        raise error(f"{where} has {size:,} bytes and would unpack to {total:,}: that is no file of arrays")


def _read_array(file: BinaryIO, size: int, where: str, error: type[OhloraError]) -> NDArray[Any]:
    """An array in NumPy's own format, from a stream of `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        header = file.tell()
    except _DAMAGED as problem:
        raise error(f"cannot read {where}: it is no NumPy array, or damaged ({one_line(problem, 120)})") from problem
    if dtype.kind not in PLAIN_KINDS or dtype.hasobject:
        raise error(f"{where} holds {shown(dtype, 60)}: numbers or text are needed")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise error(f"{where} claims the shape {shown(shape, 60)}: it is damaged")
    count = math.prod(shape)
    if count * max(1, dtype.itemsize) > size - header:
        raise error(
            f"{where} claims the shape {shown(shape, 60)} of {dtype}, but has {size - header:,} bytes of values: it is "
            "damaged or cut short"
        )
    try:
        data = bytearray(file.read(count * dtype.itemsize))
        flat = np.frombuffer(data, dtype, count) if dtype.itemsize and count else np.zeros(count, dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
    except _DAMAGED as problem:
        raise error(f"cannot read {where}: it is damaged or cut short ({one_line(problem, 120)})") from problem


def unpack_gzip(data: bytes) -> bytes:
    """The content of a gzip file of any number of members. Raises ValueError for a damaged one and a bomb."""
    limit, pieces, total = packed_limit(len(data)), [], 0
    while data:
        inflate = zlib.decompressobj(wbits=31)
        try:
            pieces.append(inflate.decompress(data, limit - total + 1))
        except zlib.error as problem:
            raise ValueError(f"it is damaged ({problem})") from problem
        total += len(pieces[-1])
        if total > limit:
            raise ValueError(f"it would unpack to more than {limit:,} bytes")
        if not inflate.eof:
            raise ValueError("it is cut short")
        data = inflate.unused_data.lstrip(b"\0")
    return b"".join(pieces)


def read_safetensors(
    path: Path, what: str = "file of arrays", error: type[OhloraError] = InvalidInputError, remedy: str = ""
) -> tuple[dict[str, str], Arrays]:
    """(metadata, arrays by name) of a safetensors file. Raises `error` naming it, and ending in `remedy`."""
    import json

    from safetensors.numpy import load

    data = read_file(path, what, error, remedy=remedy)
    try:
        arrays = load(data)  # checks the header against the length
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except _DAMAGED as problem:  # types that NumPy does not have are a KeyError or TypeError
        end = f"; {remedy}" if remedy else ""
        raise error(
            f"cannot read the {what} {shown(path, 300)}: it is no safetensors file, or damaged "
            f"({one_line(problem, 120)}){end}"
        ) from problem
    return dict(header.get("__metadata__", {})), arrays
