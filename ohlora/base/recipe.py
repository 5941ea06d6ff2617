"""Recipes: frozen dataclasses whose fields say, once, what they mean and which values they take.

    @dataclass(frozen=True)
    class Config:
        epochs: int = setting(20, "Passes over the pictures.", low=1)
        loss: Literal["mse", "kl"] = setting("mse", "What is minimized.")

        def __post_init__(self) -> None:
            check(self)

Commands make their options of these fields (`cli/train/recipe_options.py`), files of settings their lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, SupportsFloat, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ohlora.base.text import near, one_of, shown
from ohlora.errors import InvalidInputError

T = TypeVar("T")

KEY = "meaning"  # of a field's metadata
SINGULAR = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
PLURAL = {int: "whole numbers", float: "numbers", str: "names"}
BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def is_finite(number: SupportsFloat) -> bool:
    """Whether a float64 can hold it: whole numbers of Python may be larger than any."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


@dataclass(frozen=True)
class Meaning:
    """What a field means, and the values that it takes besides those of its type.

    help: for people; a field without one is not offered as an option. low, high: smallest and largest number, above,
    below: numbers that are just outside, step: what it must be a multiple of; of a list, for each. choices: words that
    it takes, where its type is no Literal. flag: names of the option ("--img-size", "--count/-n", "--light/--heavy")
    where they are not the field's. read: the value of a text on the command line, where the type does not say it;
    raises InvalidInputError.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    step: int | None = None
    choices: tuple[str, ...] = ()
    flag: str = ""
    read: Callable[[str], Any] | None = None

    def takes(self, number: float) -> bool:
        return (
            is_finite(number)
            and (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.step is None or number % self.step == 0)
        )

    @property
    def rule(self) -> str:
        """ "at least 1 and less than 5", "at least 32 and a multiple of 32" ..."""
        limits = {"at least": self.low, "more than": self.above, "at most": self.high, "less than": self.below}
        parts = [f"{words} {limit:,g}" for words, limit in limits.items() if limit is not None]
        if self.low is not None and self.high is not None:
            parts = [f"in [{self.low:,g}, {self.high:,g}]"]
        return " and ".join(parts + ([f"a multiple of {self.step}"] if self.step else [])) or "finite"


def meaning(help: str = "", **limits: Any) -> Mapping[str, Meaning]:
    """Metadata of a field without a default: `field(metadata=meaning("What it is.", low=0))`. See `Meaning`."""
    return {KEY: Meaning(help, **limits)}


def setting(default: T, help: str = "", **limits: Any) -> T:
    """A field with its default and its `Meaning`."""
    return field(default=default, metadata=meaning(help, **limits))


@dataclass(frozen=True)
class Setting:
    """A field that has a meaning. kind: its type, without None; optional: whether None is taken."""

    name: str
    kind: Any
    optional: bool
    meaning: Meaning

    @property
    def choices(self) -> tuple[str, ...]:
        """Words that it takes; () for any, and for lists and other types."""
        return () if get_origin(self.kind) is tuple else _choices(self.kind, self.meaning)

    def check(self, value: Any, name: str) -> None:
        """Raises InvalidInputError, which calls the field `name`, for a value that it does not take."""
        if not (value is None and self.optional):
            _check(self.kind, self.meaning, value, name, " or none" if self.optional else "")

    def read(self, text: str, name: str) -> Any:
        """The value that a text stands for. Raises InvalidInputError as `check`."""
        if self.meaning.read is not None:
            return self.meaning.read(text)
        try:
            value = None if self.optional and text.lower() == "none" else _read(self.kind, text.strip())
        except (KeyError, ValueError):
            value = text  # of the wrong type: refused with the words for the right one
        self.check(value, name)
        return value


@cache
def settings_of(kind: type) -> dict[str, Setting]:
    """Fields of a recipe's class that have a meaning, by name."""
    hints, found = get_type_hints(kind), {}
    for entry in fields(kind):
        hint = hints[entry.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if KEY in entry.metadata:
            inner = next(k for k in kinds if k is not NoneType)
            found[entry.name] = Setting(entry.name, inner, NoneType in kinds, entry.metadata[KEY])
    return found


def check(recipe: Any, owner: str = "") -> None:
    """Raises InvalidInputError naming the first field whose value is not one that it takes, after `owner`."""
    kind: type = type(recipe)
    for name, entry in settings_of(kind).items():
        entry.check(getattr(recipe, name), f"{owner}{name}")


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """An entry of a table. Raises InvalidInputError naming all of them, and the nearest one."""
    if name not in table:
        raise InvalidInputError(f"unknown {what} '{name}'{near(name, table)}: choose {one_of(table)}")
    return table[name]


def changed(recipe: T, changes: Mapping[str, Any], owner: str = "") -> T:
    """A recipe with other values. Raises InvalidInputError for a field that it does not have, or a value."""
    known = [entry.name for entry in fields(cast(Any, recipe))]
    for name in changes:
        require_known(name, known, owner)
    return cast(T, replace(cast(Any, recipe), **changes))


def require_known(name: str, known: Sequence[str], owner: str = "") -> None:
    """Raises InvalidInputError for a setting that is not among the known ones."""
    if name not in known:
        raise InvalidInputError(f"{owner}unknown setting '{name}'{near(name, known)} (known: {', '.join(known)})")


def read_changes(kind: type, texts: Sequence[str], owner: str = "") -> dict[str, Any]:
    """ "batch_size=4", "scored=eyes,mouth" ... -> values by field; "gradient.epochs=3" is of a recipe inside this one.

    Lists have commas between, an empty one nothing. Raises InvalidInputError, beginning with `owner`.
    """
    known = settings_of(kind)
    changes: dict[str, Any] = {}
    inside: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name, dot, inner = name.strip().replace("-", "_").partition(".")
        if not equals or not name:
            raise InvalidInputError(f"{owner}'{text}' is not understood: write NAME=VALUE, e.g. batch_size=4")
        nested = dot and name in known and is_dataclass(known[name].kind)
        require_known(name if nested else f"{name}{dot}{inner}", list(known), owner)
        if nested:
            inside.setdefault(name, []).append(f"{inner}={value}")
        else:
            changes[name] = known[name].read(value, f"{owner}{name}")
    return changes | {n: known[n].kind(**read_changes(known[n].kind, t, f"{owner}{n}.")) for n, t in inside.items()}


def path_text(text: str) -> str:
    """A path on the command line as a recipe holds it: text, the same for ./FILE as for FILE."""
    return str(Path(text))


def _choices(kind: Any, meaning: Meaning) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else meaning.choices


def _check(kind: Any, meaning: Meaning, value: Any, name: str, none: str = "") -> None:
    item, *rest = get_args(kind) or (kind,)
    if get_origin(kind) is tuple and isinstance(value, tuple | list) and (rest == [...] or len(value) == 1 + len(rest)):
        for entry in value:
            _check(item, meaning, entry, name)
        return
    expected: Any = {int: Integral, float: Real}.get(kind, kind)
    if get_origin(kind) is tuple:
        count = "" if rest == [...] else f"{1 + len(rest)} "
        right, rule = False, f"{count}{PLURAL.get(item, 'values')} with commas between"
    elif choices := _choices(kind, meaning):
        right, rule = value in choices, one_of(choices)
    elif not isinstance(value, expected) or isinstance(value, bool) != (kind is bool):
        right, rule = False, SINGULAR.get(kind, f"a {kind.__name__}")
    else:
        right, rule = kind not in (int, float) or meaning.takes(value), meaning.rule
    if not right:
        raise InvalidInputError(f"{name} must be {rule}{none}, got {shown(repr(value), 200)}")


def _read(kind: Any, text: str) -> Any:
    if kind is bool:
        return BOOLS[text.lower()]
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], part.strip()) for part in text.split(",") if part.strip())
    return kind(text) if kind in (int, float) else text
