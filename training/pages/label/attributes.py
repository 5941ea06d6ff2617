"""What the labelling page asks of a picture (docs/spec/cnn.md, section 1), and with which keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """One question with two answers. one, zero: what the labels 1 and 0 mean; keys: of the two answers."""

    name: str
    one: str
    zero: str
    keys: tuple[str, str]


ATTRIBUTES: dict[str, tuple[str, str]] = {
    "gender": ("woman", "man"),
    "quality": ("good", "bad"),
    "age": ("old", "young"),
    "glass": ("glasses", "no glasses"),
}
# One column of a keyboard for each attribute, as the buttons stand on the page: 1 above, 0 below.
KEYS = (("q", "a"), ("w", "s"), ("e", "d"), ("r", "f"))


def asked(names: Sequence[str]) -> tuple[Attribute, ...]:
    """The attributes of these names, in this order, with their keys."""
    return tuple(Attribute(name, *ATTRIBUTES[name], keys) for name, keys in zip(names, KEYS, strict=False))
