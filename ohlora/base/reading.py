"""Files that come from outside: opened without waiting, read up to a size, decoded and parsed with one line of error.

A file of a stranger may be a pipe, a device, a link that leads elsewhere, far too large, or text in another encoding.
Every function here raises the error it was given, with a message that names the file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ohlora.base.text import shown
from ohlora.errors import InvalidInputError, OhloraError, one_line

MIB = 1 << 20
TEXT_LIMIT = 64 * MIB  # of settings, manifests and records; tables may be larger
MAX_DEPTH = 100  # of containers inside each other
MAX_DIGITS = 400  # of a whole number; a float64 has 309 at most
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_LONG_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|[0-9]{%d,}' % (MAX_DIGITS + 1), re.DOTALL)


def why_not(error: BaseException) -> str:
    """What the system says of a failure, in one short line."""
    return shown(getattr(error, "strerror", None) or one_line(error, 200), 200)


def open_file(
    path: Path,
    what: str = "file",
    error: type[OhloraError] = InvalidInputError,
    *,
    limit: int | None = None,
    inside: Path | None = None,
    remedy: str = "",
) -> BinaryIO:
    """`path` opened for reading, which is never waited for: a regular file of at most `limit` bytes.

    what: names its kind in messages. inside: the folder that it may not leave by a link. remedy: ends the message.
    Raises `error` for everything else.
    """
    end = f"; {remedy}" if remedy else ""
    start = f"cannot read the {what} {shown(path, 300)}"
    try:
        real = path.resolve(strict=True) if inside is not None else path
        if inside is not None and not real.is_relative_to(inside.resolve()):
            raise error(f"{start}: it is a link out of its folder, to {shown(real, 300)}{end}")
        # A pipe without a writer would be waited for at once, so its kind is only looked at once it is open.
        file = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise error(f"there is no {what} {shown(path, 300)}{end}") from problem
    except IsADirectoryError as problem:
        raise error(f"{start}: it is a folder{end}") from problem
    except (OSError, ValueError, RuntimeError) as problem:  # a NUL in its name, links in a loop
        raise error(f"{start}: {why_not(problem)}{end}") from problem
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device, not a file"
            raise error(f"{start}: it is {kind}{end}")
        if limit is not None and status.st_size > limit:
            raise error(f"{start}: it has {status.st_size:,} bytes, more than the limit of {limit:,}{end}")
        return os.fdopen(file, "rb")
    except BaseException:
        with suppress(OSError):
            os.close(file)
        raise


def read_file(
    path: Path,
    what: str = "file",
    error: type[OhloraError] = InvalidInputError,
    *,
    limit: int | None = None,
    inside: Path | None = None,
    remedy: str = "",
) -> bytes:
    """The bytes of a file; see `open_file`."""
    with open_file(path, what, error, limit=limit, inside=inside, remedy=remedy) as file:
        try:
            data = file.read(-1 if limit is None else limit + 1)
        except OSError as problem:
            raise error(f"cannot read the {what} {shown(path, 300)}: {why_not(problem)}") from problem
    if limit is not None and len(data) > limit:  # it grew meanwhile
        raise error(f"cannot read the {what} {shown(path, 300)}: it has more than {limit:,} bytes")
    return data


def decode(data: bytes, where: str, error: type[OhloraError] = InvalidInputError) -> str:
    """UTF-8, with or without a byte order mark. Raises `error` naming `where` and what it seems to be."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"cannot read {where}: it is UTF-16 text, save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            f"cannot read {where}, line {line}: byte {data[problem.start]:#04x} is not UTF-8: save it as UTF-8"
        ) from problem


def read_text(
    path: Path,
    what: str = "file",
    error: type[OhloraError] = InvalidInputError,
    *,
    limit: int = TEXT_LIMIT,
    inside: Path | None = None,
    remedy: str = "",
) -> str:
    """The text of a file; see `open_file` and `decode`."""
    return decode(
        read_file(path, what, error, limit=limit, inside=inside, remedy=remedy), f"{what} {shown(path, 300)}", error
    )


def check_json(data: bytes) -> bytes:
    """JSON without a byte order mark, neither nested deeper than parsers follow nor with endless numbers.

    Raises ValueError.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    depth = 0
    for match in _BRACKETS.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} containers inside each other")
    if any(not match[0].startswith(b'"') for match in _LONG_NUMBER.finditer(data)):
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    return data


def parse_json(data: bytes, where: str, error: type[OhloraError] = InvalidInputError, remedy: str = "") -> Any:
    """What JSON text says; NaN and Infinity are not JSON. Raises `error` with `where`, line, column and `remedy`."""
    end = f"; {remedy}" if remedy else ""
    try:
        return json.loads(decode(check_json(data), where, error), parse_constant=_refuse_constant)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise error(f"{where} is not valid JSON: {place}: {problem.msg}{end}") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not valid JSON: {one_line(problem, 200)}{end}") from problem


def read_json(
    path: Path,
    what: str = "file",
    error: type[OhloraError] = InvalidInputError,
    *,
    limit: int = TEXT_LIMIT,
    inside: Path | None = None,
    remedy: str = "",
) -> Any:
    """What a JSON file says; see `open_file` and `parse_json`."""
    data = read_file(path, what, error, limit=limit, inside=inside, remedy=remedy)
    return parse_json(data, f"the {what} {shown(path, 300)}", error, remedy)


def read_object(
    path: Path,
    what: str = "file",
    error: type[OhloraError] = InvalidInputError,
    *,
    inside: Path | None = None,
    remedy: str = "",
) -> dict[str, Any]:
    """`read_json` of a file that holds one object. Raises `error` for another value, naming its kind, not the value."""
    content = read_json(path, what, error, inside=inside, remedy=remedy)
    if not isinstance(content, dict):
        end = f"; {remedy}" if remedy else ""
        raise error(f"the {what} {shown(path, 300)} holds a {type(content).__name__}, not a JSON object{end}")
    return content


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
