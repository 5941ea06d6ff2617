"""Expressions in words and the first product's label rules, against the documented tables."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohlora.base.values import Expression
from ohlora.bundle import Bundle
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.latents.answer_labels import AnswerLabel, label_from_answer, label_vector
from ohlora.latents.expression_words import (
    MIDDLE,
    WORDS,
    expression_from_scores,
    expression_from_words,
    expression_stream,
    parse_expression_text,
    preset_expression,
)
from ohlora.render.job_file import read_job_file

# Strengths (pm), written down again from the document: open at the lower end, closed at the upper one.
EYES = {"small": (-0.1, 0.2), "normal": (-0.6, -0.3), "wide": (-1.1, -0.8), "very wide": (-1.2, -1.1)}
MOUTH = {"normal": (-0.8, -0.4), "wide": (-1.4, -1.0), "very wide": (-1.6, -1.4)}
POSE = {"none": (-0.3, 0.6), "normal": (-1.5, -0.8), "much": (-1.8, -1.5)}
RANGES = {"eyes": EYES, "mouth": MOUTH, "pose": POSE}
KOREAN = {"small": "작게", "wide": "크게", "very wide": "아주 크게", "none": "없음", "normal": "보통", "much": "많이"}


class Fixed(np.random.Generator):
    """A generator that only ever gives one number."""

    def __init__(self, value: float) -> None:
        super().__init__(np.random.Philox(0))
        self.value = value

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.full(size, self.value)


draws = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, math.nextafter(1, 0)])


@given(st.sampled_from(sorted(EYES)), st.sampled_from(sorted(MOUTH)), st.sampled_from(sorted(POSE)), draws)
def test_strengths_lie_in_the_documented_half_open_ranges(eyes: str, mouth: str, pose: str, r: float) -> None:
    # Every combination: the documented code lost the pose's word to the mouth's.
    words = {"eyes": eyes, "mouth": mouth, "pose": pose}
    for written in (words, {name: KOREAN[word] for name, word in words.items()}):
        for rng in (Fixed(r), None):
            expression = expression_from_words(**written, rng=rng)
            for name, word in words.items():
                low, high = RANGES[name][word]
                value, share = getattr(expression, name), r if rng else MIDDLE
                assert low < value <= high
                assert value == pytest.approx(high + share * (low - high), abs=1e-9)


def test_properties_are_drawn_apart_and_uniformly() -> None:
    drawn = [expression_from_words("wide", "wide", "none", rng=expression_stream(5, item)) for item in range(2000)]
    shares = np.array(
        [
            [(high - getattr(e, name)) / (high - low) for name, (low, high) in zip(RANGES, bounds, strict=True)]
            for e in drawn
            for bounds in [(EYES["wide"], MOUTH["wide"], POSE["none"])]
        ]
    )
    assert np.abs(shares.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(shares.T) - np.eye(3)).max() < 0.08
    for quarter in range(4):
        inside = (shares >= quarter / 4) & (shares < (quarter + 1) / 4)
        assert np.abs(inside.mean(0) - 0.25).max() < 0.04


def test_the_same_numbers_are_drawn_whatever_else_is() -> None:
    text = "eyes wide, mouth very wide, pose much"
    drawn = [preset_expression(text, 7, item) for item in range(5)]
    assert len(set(drawn)) == 5
    assert preset_expression(text, 7, 3) == drawn[3]
    assert preset_expression(text, 8, 3) != drawn[3]
    # Not the numbers of the face with that seed.
    face = np.random.Generator(np.random.Philox(key=7))
    assert expression_stream(7, 0).random() != face.random()
    assert expression_stream(7, 0).standard_normal() != pytest.approx(face_from_seed(7).z[0], abs=1e-6)
    for seed, item in ((-1, 0), (0, -1), (2**63, 0)):
        with pytest.raises(InvalidInputError, match="must be in"):
            expression_stream(seed, item)


@pytest.mark.parametrize(
    "text",
    [
        "eyes wide, mouth normal, pose none",
        "(eyes wide, mouth normal, pose none)",
        "Pose: NONE; Eyes = Wide;  mouth\nnormal",
        "eyes wide mouth normal pose none",
        "(눈 크게, 입 보통, 고개 돌림 없음)",
        "네! (눈 크게 뜸,입 보통,고개돌림 없음) 수입 없음",
        unicodedata.normalize("NFD", "(눈 크게, 입 보통, 고개 돌림 없음)"),
        "눈 wide, mouth 보통, 고개 돌림 없음이에요",
    ],
)
def test_texts_that_mean_the_same(text: str) -> None:
    assert parse_expression_text(text) == expression_from_words("wide", "normal", "none")


def test_very_wide_is_not_wide() -> None:
    expected = expression_from_words("very wide", "very wide", "much")
    for text in ("(눈 아주 크게, 입 아주크게, 고개 돌림 많이)", "eyes very  wide, mouth VERY WIDE, pose much"):
        assert parse_expression_text(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not say eyes and mouth and pose"),
        ("eyes wide, mouth normal", "does not say pose: write it like 'eyes wide, mouth normal, pose none'"),
        ("eyes wide, mouth , pose none", "does not say mouth"),
        ("eyes huge, mouth normal, pose none", "unknown word for eyes: 'huge'"),
        ("(눈 크게, 입 작게, 고개 돌림 없음)", "unknown word for mouth: '작게'"),
        ("eyes wide, mouth normal, pose wide", r"pose none/normal/much \(고개 돌림 없음/보통/많이\)"),
    ],
)
def test_what_is_not_understood_is_refused_or_falls_back(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_expression_text(text)
    lenient = parse_expression_text(text, lenient=True)
    if "say" in message:  # the documented fallback
        assert lenient == parse_expression_text("(눈 보통, 입 보통, 고개 돌림 없음)")
    else:  # the documented "any other"
        strongest = expression_from_words("very wide", "very wide", "much")
        assert [getattr(lenient, name) == getattr(strongest, name) for name in RANGES].count(True) == 1


@given(st.text())
def test_any_text_has_one_clear_outcome(text: str) -> None:
    assert isinstance(parse_expression_text(text, lenient=True), Expression)
    with pytest.raises(InvalidInputError, match=r"[Kk]nown words: "):
        parse_expression_text(f"eyes huge, {text}")


def test_scores_turn_their_sign() -> None:
    assert expression_from_scores(1.0, -0.5, 0.0) == Expression(-1.0, 0.5, 0.0)
    assert math.copysign(1, expression_from_scores(0, 0, 0).eyes) == 1
    with pytest.raises(InvalidInputError, match=r"Expression\.pose"):
        expression_from_scores(0, 0, 11)


def test_no_word_hides_behind_another() -> None:
    for rows in WORDS.values():
        words = [word for row in rows for word in row.words]
        assert not [(a, b) for a in words for b in words if a != b and a.startswith(b)]


def test_job_files_take_words_and_sets(tmp_path: Path) -> None:
    text, bundle = "eyes very wide, mouth normal, pose none", Bundle.open("demo")
    path = tmp_path / "job.json"

    def read(**job: object) -> list[Expression]:
        path.write_text(json.dumps({"faces": ["0"], **job}))
        return [look.expression for look in read_job_file(path, 0, bundle).looks]

    looks = [{"expression": text}, {"expression": {"eyes": 1}}, {"expression": text, "ombre": {"color": 0.5}}]
    middle = parse_expression_text(text)
    assert read(looks=looks) == [middle, Expression(eyes=1.0), middle]
    drawn = [preset_expression(text, 4, i) for i in (0, 2)]
    assert read(looks=looks, expression_seed=4) == [drawn[0], Expression(eyes=1.0), drawn[1]]
    assert len(read(looks="still50")) == 50
    for job, message in (
        ({"looks": [{"expression": "eyes"}]}, r"job.json: looks.0.expression: .*does not say eyes"),
        ({"looks": [{"expression": {"words": text, "eyes": 1.0}}]}, r"looks.0.expression: give words or eyes"),
        ({"looks": [{"expression": {"eyes": "wide"}}]}, r"looks.0.expression.eyes"),
        ({"looks": "still51"}, r"job.json: looks: .*unknown set of looks 'still51'.*still50"),
        ({"expression_seed": -1}, r"expression_seed"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read(**job)


# --- labels of the first product --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("안녕하세요.", (-1.2, -1.2, -1.2)),
        ("안녕하세요?", (-1.2, 0.3, -1.2)),
        ("안녕! 반가워!! 최고!", (-1.2, 1.2, -1.2)),  # three marks count
        ("오!", (1.6, 0.3 + 0.3 + 0.4, -1.2)),
        ("그래 와! 정말?", (1.6, 1.0, -1.2)),
        ("와우 좋다", (1.6, -1.2 + 1.2, -1.2)),
        ("오 그래", (1.6, 0.0, -1.2)),
        ("나 오 그래", (-1.2, -1.2, -1.2)),  # only at the beginning
        ("아!", (0.8, 0.3 + 0.3 + 0.2, -1.2)),
        ("아 그래", (0.8, -0.6, -1.2)),
        ("아! 오!", (1.6, 0.3 + 0.6 + 0.4, -1.2)),  # the greater surprise
        ("미안 싫어", (-1.2, -1.2, 3.6)),
        ("나는 못 가", (-1.2, -1.2, 3.0)),
        ("시간 없어.", (-1.2, -1.2, 3.0)),
        ("시간 없어 미안", (-1.2, -1.2, 3.0)),
        ("시간 없어. 오!", (1.6, 1.0, -1.2)),
        ("오! 나는 못 해 미안", (1.6, 1.0, 2.4)),
        ("못 가", (-1.2, -1.2, -1.2)),  # a space before it is asked for
        ("싫어", (-1.2, -1.2, 2.4)),
        ("별로야", (-1.2, -1.2, 2.4)),
        ("미안…", (-1.2, -1.2, 2.4)),
        ("음…", (-1.2, -1.2, 0.6)),
        ("", (-1.2, -1.2, -1.2)),
    ],
)
def test_documented_label_rules(text: str, expected: tuple[float, float, float]) -> None:
    for written in (text, unicodedata.normalize("NFD", text)):
        assert label_from_answer(written) == pytest.approx(expected)


@given(st.text(alphabet="오와우아! ?미안싫어못없.별로…"))
def test_labels_stay_in_their_sets(text: str) -> None:
    label = label_from_answer(text)
    assert label.eyes in {-1.2, 0.8, 1.6}
    assert -1.2 <= label.mouth <= 1.6 + 1e-9
    assert label.pose in {-1.2, 0.6, 2.4, 3.0, 3.6}


def test_label_vector_has_the_documented_places() -> None:
    vector = label_vector(AnswerLabel(1.8, 1.6, -1.2))
    assert vector.dtype == np.float32
    assert vector.tolist() == np.float32([1.8, 0, 0, 1.6, -1.2, 0, 0]).tolist()
