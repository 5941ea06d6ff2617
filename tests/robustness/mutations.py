"""Seeded changes of bytes: blind ones, of numbers in text, and of JSON values, so that parsers are passed and what
comes after them is met."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
NUMBERS = (
    "0", "-1", "1", "127", "255", "65536", "2147483647", "4294967295", "9223372036854775807", "18446744073709551616",
    "1e308", "1e400", "-1e400", "NaN", "Infinity", "0.1", "-0.0", "9" * 500, "1_000", "٣", "0x10", "1e-400", "",
)  # fmt: skip
PIECES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b'"', b",", b";", b"{", b"[" * 200, b"../" * 3,
    b"\xed\xa0\x80", b"&a [*a, *a]", b"!!python/object:os.system", b"!!timestamp 2001-99-99", b"\x1b[31m",
    "\u202e".encode(), b"A" * 5000, b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00" * 64, b"PK\x03\x04", b"/dev/zero",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**20, 10**400, 1.5, 1e308, "", "x", "../../x", "a\0b", "\ud800", "٣", "A" * 3000,
    [], {}, [[]], [1], ["x"], {"": 1}, {"x": {}},
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """1 to 4 changes of `data`; `other` is an input that pieces may be taken from."""
    if data.lstrip()[:1] in (b"{", b"[") and rng.random() < 0.5:
        changed = _json(data, rng)
        if changed is not None:
            return changed
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(CHANGES)(data, rng, other)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    # Headers decide more than what follows them.
    return rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 16)) if data else 0):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _byte(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _place(data, rng)
    return data[:place] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[place + 1 :]


def _truncate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: _place(data, rng)]


def _cut(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.randint(1, 64) :]


def _repeat(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _place(data, rng)
    piece = data[place : place + rng.randint(1, 200)]
    return data[:place] + piece * rng.choice((2, 3, 50)) + data[place:]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place, start = _place(data, rng), _place(other, rng)
    return data[:place] + other[start : start + rng.randint(1, 400)] + data[place + rng.randint(0, 400) :]


def _insert(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.choice(PIECES) + data[place:]


def _inflate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Another number in text, or a large one in binary fields of 2, 4 or 8 bytes."""
    found = list(_NUMBER.finditer(data[:20_000]))
    if found and rng.random() < 0.7:
        match = rng.choice(found)
        return data[: match.start()] + rng.choice(NUMBERS).encode() + data[match.end() :]
    size, place = rng.choice((2, 4, 8)), _place(data, rng)
    number = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (4 * size)))
    return data[:place] + number.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


CHANGES: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    _flip, _byte, _truncate, _cut, _repeat, _splice, _insert, _inflate, _inflate,
)  # fmt: skip


def _json(data: bytes, rng: random.Random) -> bytes | None:
    """One value of a JSON text, or of a line of several, replaced, removed, renamed or moved one level down."""
    lines = data.splitlines(keepends=True)
    try:
        content, at = json.loads(data), None
    except ValueError:
        at = rng.randrange(len(lines))
        try:
            content = json.loads(lines[at])
        except ValueError:
            return None
    holder = {"": content}
    places = list(_places(holder))
    inside, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 1 and inside is not holder:
        del inside[key]
    elif kind == 2 and isinstance(inside, dict) and inside is not holder:
        inside[rng.choice(("", "x", key + "s", "file", "A" * 300))] = inside.pop(key)
    elif kind == 3:
        inside[key] = rng.choice(([inside[key]], {"x": inside[key]}, str(inside[key])))
    else:
        inside[key] = rng.choice(VALUES)
    text = json.dumps(holder[""]).encode()
    return text if at is None else b"".join([*lines[:at], text + b"\n", *lines[at + 1 :]])


def _places(value: Any) -> Any:
    """Each (container, key or index) inside a value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
