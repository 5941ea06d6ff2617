"""Recipes: what their fields take, how changes are read, and what is said about wrong ones."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Literal

import pytest

from ohlora.base.recipe import changed, check, meaning, pick, read_changes, setting, settings_of
from ohlora.base.text import near, one_of
from ohlora.errors import InvalidInputError


@dataclass(frozen=True)
class Inner:
    steps: int = setting(3, low=1)

    def __post_init__(self) -> None:
        check(self, "inner: ")


@dataclass(frozen=True)
class Outer:
    rate: float = field(metadata=meaning("Of everything.", above=0, below=1))
    size: int = setting(64, "Pixels.", low=32, step=32)
    share: float = setting(0.5, low=0, high=1)
    mode: Literal["slow", "fast"] = setting("slow", "How.")
    words: tuple[str, ...] = setting((), choices=("a", "b", "c"))
    betas: tuple[float, float] = setting((0.9, 0.99), below=1)
    limit: int | None = setting(None, low=1)
    on: bool = setting(True)
    inner: Inner = field(default_factory=Inner, metadata=meaning())
    free: Any = "anything"

    def __post_init__(self) -> None:
        check(self)


def test_fields_keep_their_defaults_and_meanings() -> None:
    outer = Outer(0.1)
    assert (outer.size, outer.words, outer.limit, outer.inner) == (64, (), None, Inner())
    with pytest.raises(TypeError, match="rate"):
        Outer()  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        outer.size = 3  # type: ignore[misc]
    assert settings_of(Outer)["rate"].meaning.help == "Of everything."
    assert settings_of(Outer)["mode"].choices == ("slow", "fast")
    assert "free" not in settings_of(Outer)
    with pytest.raises(TypeError, match="smallest"):
        setting(3, smallest=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0}, "rate must be more than 0 and less than 1, got 0"),
        ({"rate": float("nan")}, "rate must be more than 0 and less than 1, got nan"),
        ({"rate": True}, "rate must be a number, got True"),
        ({"size": 48}, "size must be at least 32 and a multiple of 32, got 48"),
        ({"size": 64.0}, "size must be a whole number, got 64.0"),
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"mode": "medium"}, "mode must be slow or fast, got 'medium'"),
        ({"words": ("a", "d")}, "words must be a, b or c, got 'd'"),
        ({"words": "a"}, "words must be names with commas between, got 'a'"),
        ({"betas": (0.5,)}, r"betas must be 2 numbers with commas between, got \(0.5,\)"),
        ({"betas": (0.5, 1)}, "betas must be less than 1, got 1"),
        ({"limit": 0}, "limit must be at least 1 or none, got 0"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"inner": 3}, "inner must be a Inner, got 3"),
        ({"color": 1}, "unknown setting 'color'"),
        ({"sise": 1}, "unknown setting 'sise', did you mean 'size'"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        changed(Outer(0.1), changes)


def test_right_values_are_taken() -> None:
    made = changed(Outer(0.1), {"rate": 0.5, "words": ["a", "b"], "limit": 3, "mode": "fast", "free": None})
    assert (made.rate, made.words, made.limit, made.mode, made.free) == (0.5, ["a", "b"], 3, "fast", None)


def test_changes_in_words() -> None:
    texts = ["rate=1e-2", "mode = fast", "words=a, b", "betas=0,0.5", "limit=none", "on=no", "inner.steps=7"]
    changes = read_changes(Outer, texts)
    assert changes == {
        "rate": 0.01, "mode": "fast", "words": ("a", "b"), "betas": (0.0, 0.5), "limit": None, "on": False,
        "inner": Inner(7),
    }  # fmt: skip
    assert read_changes(Outer, ["words="]) == {"words": ()}
    for text, words in (
        ("rate", "recipe: 'rate' is not understood: write NAME=VALUE"),
        ("rate=fast", "recipe: rate must be a number, got 'fast'"),
        ("on=maybe", "recipe: on must be true or false, got 'maybe'"),
        ("inner.steps=0", "recipe: inner.steps must be at least 1, got 0"),
        ("inner.step=1", "recipe: inner.unknown setting 'step', did you mean 'steps'"),
        ("free=1", "recipe: unknown setting 'free'"),
        ("size.of=1", "recipe: unknown setting 'size.of', did you mean 'size'"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            read_changes(Outer, [text], "recipe: ")


def test_tables_and_words() -> None:
    assert pick({"one": 1}, "one", "number") == 1
    with pytest.raises(InvalidInputError, match=r"'tree', did you mean 'three'\?: choose one, two or three"):
        pick({"one": 1, "two": 2, "three": 3}, "tree", "number")
    assert [one_of(names) for names in (("a",), ("a", "b"), ("a", "b", "c"))] == ["a", "a or b", "a, b or c"]
    assert near("x", ["different"]) == ""
