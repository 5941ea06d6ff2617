"""How exactly networks compute while they train: fp32, bf16 or fp16 for people, other words for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ohlora.errors import InvalidInputError

PRECISIONS = ("fp32", "bf16")  # fp16 needs a loss scaler, which only the hair zoo has
_LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_NAMES = {word: name for name, word in _LIGHTNING.items()}


def current_word(word: Any) -> Any:
    """Our name where `word` is Lightning's, which older recipes, settings and runs hold; else `word` itself."""
    return _NAMES.get(word, word) if isinstance(word, str) else word


def precision_name(word: str, known: Sequence[str] = PRECISIONS) -> str:
    """The name of a precision, one of `known`; see `current_word`. Raises InvalidInputError for any other word."""
    name: str = current_word(word)
    if name not in known:
        raise InvalidInputError(f"unknown precision '{word}': choose {' or '.join(known)}")
    return name


def lightning_precision(word: str) -> Any:
    """Lightning's word. Identities of runs keep it, so that older folders resume. Raises InvalidInputError."""
    return _LIGHTNING[precision_name(word, tuple(_LIGHTNING))]
