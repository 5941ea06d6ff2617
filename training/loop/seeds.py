"""One number for every random choice, so that it depends on what it is for and on nothing that happened before."""

from __future__ import annotations

import hashlib
import json

MAX_SEED = 2**32 - 1


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`, e.g. derive(0, "gender", "fold", 2, "attempt", 0, "epoch", 5)."""
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
