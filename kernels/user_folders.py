"""Folders of the user who runs this process: what may be lost (compiled code and networks), and data.

Containers often run as a user without a home. Then there is no such folder, unless it is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "OHLORA_CACHE_DIR"


def cache_folder(name: str) -> Path | None:
    """Folder of one kind of cache, or None when it is off. Nothing is created.

    $OHLORA_CACHE_DIR replaces the user's cache folder; empty or 'off' switches caches off, and so does a user who has
    no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is None:
        root = user_folder(platformdirs.user_cache_dir)
        return None if root is None else root / name
    return None if chosen.strip().lower() in ("", "off") else Path(chosen) / name


def user_folder(find: Callable[[str], str]) -> Path | None:
    """The folder that a function of platformdirs gives, or None for a user without a home.

    Then some versions of platformdirs raise, and others give '~/.cache' as it stands, a relative path.
    """
    try:
        folder = Path(find("ohlora"))
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None
