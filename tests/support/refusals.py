"""Files that are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ohlora.errors import InvalidInputError


def require_refused(read: Callable[[Path], object], path: Path, text: str, message: str) -> None:
    """With this text in it the file is refused, by its name and with a message that matches."""
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
