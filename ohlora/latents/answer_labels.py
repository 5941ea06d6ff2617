"""The first product's rules: a Korean answer -> what the label-driven generator is asked for
(docs/spec/runtime.md, section 6).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class AnswerLabel(NamedTuple):
    """Property units: positive = eyes and mouth more open, head turned further. The opposite sign of `Expression`."""

    eyes: float
    mouth: float
    pose: float


@dataclass(frozen=True, slots=True)
class Surprise:
    """How surprised an answer sounds, by what it contains or begins with."""

    contains: tuple[str, ...]
    starts: str
    eyes: float
    mouth_bonus: float


# The first that matches; then the calm one.
SURPRISES = (Surprise(("오!", "와!", "와우"), "오 ", 1.6, 1.2), Surprise(("아!",), "아 ", 0.8, 0.6))
CALM = Surprise((), "", -1.2, 0.0)

MOUTH_CLOSED, MOUTH_OPEN, MOUTH_PER_MARK, MARKS_COUNTED = -1.2, 0.3, 0.3, 3


def _any(text: str, *parts: str) -> bool:
    return any(part in text for part in parts)


# Score and when it is given; the first that matches.
POSES: tuple[tuple[float, Callable[[str], bool]], ...] = (
    (3.6, lambda text: "미안" in text and "싫어" in text),
    (3.0, lambda text: _any(text, " 못 ", "없어 ", "없어.") and "오!" not in text),
    (2.4, lambda text: _any(text, "미안", "싫어", "별로")),
    (0.6, lambda text: "…" in text),
    (-1.2, lambda text: True),
)


def label_from_answer(text: str) -> AnswerLabel:
    """Scores of an answer. eyes: -1.2, 0.8 or 1.6. mouth: [-1.2, 1.6]. pose: -1.2, 0.6, 2.4, 3.0 or 3.6.

    Answers of any other language than Korean get the scores of a calm one, apart from "!" and "?".
    """
    text = unicodedata.normalize("NFC", text)  # some systems hand over decomposed characters
    mood = next((m for m in SURPRISES if _any(text, *m.contains) or text.startswith(m.starts)), CALM)
    if _any(text, "!", "?"):
        mouth = MOUTH_OPEN + MOUTH_PER_MARK * min(text.count("!"), MARKS_COUNTED) + mood.mouth_bonus / 3
    else:
        mouth = MOUTH_CLOSED + mood.mouth_bonus
    return AnswerLabel(mood.eyes, mouth, next(score for score, applies in POSES if applies(text)))


def label_vector(label: AnswerLabel) -> NDArray[np.float32]:
    """The label of a generator that takes seven values, float32 [7]: [eyes, 0, 0, mouth, pose, 0, 0]."""
    return np.array([label.eyes, 0.0, 0.0, label.mouth, label.pose, 0.0, 0.0], dtype=np.float32)
