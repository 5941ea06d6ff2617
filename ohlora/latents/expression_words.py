"""Expressions in words: "eyes wide, mouth normal, pose none" or "(눈 크게, 입 보통, 고개 돌림 없음)".

See docs/spec/runtime.md, section 5.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from ohlora.base.text import shown
from ohlora.base.values import PROPERTIES, Expression, random_stream
from ohlora.errors import InvalidInputError

# The key alone (seed, 0) is the stream of the face with that seed, and an expression drawn from the same numbers would
# go with the face.
_STREAM = 0x776F726473


@dataclass(frozen=True, slots=True)
class Strength:
    """A word and what it stands for: score = low + span * r with r in [0, 1); the strength pm is minus that score.

    words: the English word, then the Korean one. A text means the word that it begins with.
    """

    words: tuple[str, str]
    low: float
    span: float

    def score(self, r: float) -> float:
        """In [low, low + span): the sum alone reaches the upper end where r is the last number before 1."""
        high = round(self.low + self.span, 9)
        return min(self.low + self.span * r, math.nextafter(high, -math.inf))


# The documented table. In the document the last row of each property is "any other word"; see `lenient`.
# Its code tested the mouth's word in the second row of pose, so "normal" was lost there unless the mouth was normal
# too, and "much" whenever it was. Each word is tested for its own property here (docs/spec/runtime.md, section 9).
WORDS: dict[str, tuple[Strength, ...]] = {
    "eyes": (
        Strength(("small", "작게"), -0.2, 0.3),
        Strength(("normal", "보통"), 0.3, 0.3),
        Strength(("wide", "크게"), 0.8, 0.3),
        Strength(("very wide", "아주 크게"), 1.1, 0.1),
    ),
    "mouth": (
        Strength(("normal", "보통"), 0.4, 0.4),
        Strength(("wide", "크게"), 1.0, 0.4),
        Strength(("very wide", "아주 크게"), 1.4, 0.2),
    ),
    "pose": (
        Strength(("none", "없음"), -0.6, 0.9),
        Strength(("normal", "보통"), 0.8, 0.7),
        Strength(("much", "많이"), 1.5, 0.3),
    ),
}
KOREAN_NAMES = {"eyes": "눈", "mouth": "입", "pose": "고개 돌림"}
# What a text that is not understood means in the documented products, after their five tries.
FALLBACK = {"eyes": "보통", "mouth": "보통", "pose": "없음"}
MIDDLE = 0.5  # r of expressions that are not drawn

# A property's name stands alone: the 입 of 수입 is no mouth.
_PARTS = {
    name: re.compile(rf"(?:^|[\s(,;])(?:{name}|{KOREAN_NAMES[name].replace(' ', ' ?')})\s*[\s:=]\s*([^,;)]*)")
    for name in PROPERTIES
}


def expression_from_words(
    eyes: str, mouth: str, pose: str, rng: np.random.Generator | None = None, *, lenient: bool = False
) -> Expression:
    """A word for each property -> strengths (docs/spec/runtime.md, section 5).

    eyes: small, normal, wide, very wide. mouth: normal, wide, very wide. pose: none, normal, much. Or in Korean:
    작게, 보통, 크게, 아주 크게, 없음, 많이. Capitals and spaces do not matter; what follows a known word is ignored.
    rng: r of every property is drawn from it, uniform in [0, 1), in the order eyes, mouth, pose; None takes the
    middles. Ranges of the strengths, open at the lower end: eyes (-1.2, 0.2], mouth (-1.6, -0.4], pose (-1.8, 0.6].
    lenient: other words mean very wide, very wide and much, as documented.
    Raises InvalidInputError naming the known words for any other.
    """
    draws = (MIDDLE,) * len(PROPERTIES) if rng is None else rng.random(len(PROPERTIES))
    scores = []
    for name, word, r in zip(PROPERTIES, (eyes, mouth, pose), draws, strict=True):
        scores.append(_strength(name, word, lenient).score(float(r)))
    return expression_from_scores(*scores)


def expression_from_scores(eyes: float, mouth: float, pose: float) -> Expression:
    """Scores as people say them (positive: eyes wider, mouth wider, head turned further) -> strengths.

    Directions point the other way round, so this is the change of sign alone. Each in [-10, 10], else
    InvalidInputError.
    """
    plain = Expression(eyes, mouth, pose)
    return Expression(0.0 - plain.eyes, 0.0 - plain.mouth, 0.0 - plain.pose)  # not -x: no -0.0 in metadata


def parse_expression_text(text: str, rng: np.random.Generator | None = None, *, lenient: bool = False) -> Expression:
    """`(눈 크게, 입 보통, 고개 돌림 없음)` or `eyes wide, mouth normal, pose none` -> strengths.

    The three parts may stand in any order and inside other text: each is the word after its name, up to the next comma,
    semicolon or closing bracket. rng: as for `expression_from_words`.
    lenient: a text without all three parts means 보통, 보통, 없음; an unknown word means its property's last one, as
    documented. Raises InvalidInputError naming the form and the known words otherwise.
    """
    return expression_from_words(**split_expression_text(text, lenient=lenient), rng=rng, lenient=lenient)


def split_expression_text(text: str, *, lenient: bool = False) -> dict[str, str]:
    """The words of a text by property, not looked up. lenient, InvalidInputError: as for `parse_expression_text`."""
    plain = _plain(text)
    found = {name: match[1] for name, part in _PARTS.items() if (match := part.search(plain))}
    missing = [name for name in PROPERTIES if not found.get(name, "").strip()]
    if not missing:
        return {name: found[name] for name in PROPERTIES}
    if lenient:
        return dict(FALLBACK)
    raise InvalidInputError(
        f"expression {shown(repr(text), 200)} does not say {' and '.join(missing)}: write it like "
        f"'eyes wide, mouth normal, pose none' or '(눈 크게, 입 보통, 고개 돌림 없음)'. "
        f"Known words: {'; '.join(map(known_words, PROPERTIES))}"
    )


def known_words(name: str) -> str:
    """`eyes small/normal/...`, for messages and help."""
    rows = WORDS[name]
    english, korean = ("/".join(row.words[language] for row in rows) for language in (0, 1))
    return f"{name} {english} ({KOREAN_NAMES[name]} {korean})"


def expression_stream(seed: int, item: int) -> np.random.Generator:
    """The random numbers of preset `item` of a job: they depend on (seed, item) alone, whatever else the job draws.

    seed, item: [0, 2**63 - 1]. Raises InvalidInputError.
    """
    return random_stream({"expression seed": seed, "expression item": item}, _STREAM)


def preset_expression(text: str, seed: int | None, item: int) -> Expression:
    """Preset `item` of a command line or job file: drawn from its own stream, or the middle where seed is None."""
    return parse_expression_text(text, None if seed is None else expression_stream(seed, item))


def _plain(text: str) -> str:
    # Composed characters: some systems hand over 눈 as three letters. Line breaks and runs of spaces are one space.
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _strength(name: str, word: str, lenient: bool) -> Strength:
    plain = _plain(word).replace(" ", "")  # 아주크게 is as usual as 아주 크게
    for row in WORDS[name]:
        if plain.startswith(tuple(known.replace(" ", "") for known in row.words)):
            return row
    if lenient:
        return WORDS[name][-1]
    raise InvalidInputError(f"unknown word for {name}: {shown(repr(word))}. Known words: {known_words(name)}")
