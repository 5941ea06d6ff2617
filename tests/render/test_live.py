"""A face that lives, held to the documented loop; and one face rendered frame by frame."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohlora
from ohlora.base.values import PROPERTIES, Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.render.job import Look, RenderJob
from ohlora.render.live import (
    LIVE_PARAMETERS,
    LiveExpression,
    LiveParameters,
    blink_expressions,
    live_expressions,
    live_stream,
)

ROOT = Path(__file__).resolve().parents[2]
SETS = sorted(LIVE_PARAMETERS)
# The document's table, once more: base, step, reach of eyes, mouth, pose.
DRIFTS = {
    "v3": ((0.2, 0.035, 0.25), (1.0, 0.025, 0.15), (0.0, 0.045, 0.40)),
    "v4": ((0.2, 0.02, 0.15), (1.0, 0.015, 0.10), (0.0, 0.025, 0.20)),
}
TARGET = Expression(-1.15, -1.5, -1.65)


def still(parameters: LiveParameters) -> LiveParameters:
    """Without chance: no drift, no blink."""
    drift = {name: replace(each, step=0.0) for name, each in parameters.drift.items()}
    return replace(parameters, drift=drift, blink_chance=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def steps(live: LiveExpression, count: int) -> list[Expression]:
    return list(itertools.islice(live, count))


@pytest.mark.parametrize("name", SETS)
def test_drift_walks_within_its_bounds(name: str) -> None:
    shown = steps(LiveExpression(replace(LIVE_PARAMETERS[name], blink_chance=0.0), rng()), 5000)
    assert shown[0] == Expression(0.2, 1.0, 0.0)  # the value before the first step
    for prop, (base, step, reach) in zip(PROPERTIES, DRIFTS[name], strict=True):
        values = np.array([getattr(e, prop) for e in shown])
        moved = np.diff(values)
        assert np.abs(values - base).max() == pytest.approx(reach)  # reached, never passed
        assert 0.99 * step < np.abs(moved).max() <= step + 1e-12
        inside = np.abs(moved[np.abs(values[1:] - base) < reach - 1e-9])
        assert inside.mean() == pytest.approx(step / 2, rel=0.05)


@pytest.mark.parametrize(("name", "rise"), [("v3", 30), ("v4", 50)])
def test_an_expression_follows_the_documented_envelope(name: str, rise: int) -> None:
    live = LiveExpression(still(LIVE_PARAMETERS[name]), rng())
    steps(live, 3)
    live.say(TARGET)
    total = 2 * rise + 10
    assert live.pending == total
    shown = steps(live, total + 1)
    e = [(1 + math.cos((1 + i / rise) * math.pi)) / 2 for i in range(rise)]
    e += [1.0] * 10 + [(1 + math.cos((2 + i / rise) * math.pi)) / 2 for i in range(rise)]
    for prop, base in (("eyes", 0.2), ("mouth", 1.0), ("pose", 0.0)):
        expected = [base + (getattr(TARGET, prop) - base) * share for share in e]
        assert [getattr(x, prop) for x in shown[:total]] == pytest.approx(expected, abs=1e-12)
    assert shown[rise + 5] == TARGET
    assert shown[total] == Expression(0.2, 1.0, 0.0)
    assert live.pending == 0


@pytest.mark.parametrize("name", SETS)
def test_an_expression_starts_and_ends_without_a_jump(name: str) -> None:
    # What the largest step is: of the drift, of the envelope, and where the falling half starts at its second value.
    live = LiveExpression(replace(LIVE_PARAMETERS[name], blink_chance=0.0), rng(3))
    shown = steps(live, 200)
    live.say(TARGET)
    shown += steps(live, 300)
    fastest = math.pi / 2 / LIVE_PARAMETERS[name].rise
    for prop in PROPERTIES:
        values = np.array([getattr(e, prop) for e in shown])
        assert np.abs(np.diff(values)).max() < fastest * np.ptp(values) + 0.01


def blinks(shown: list[Expression], base: float, reach: float) -> list[list[float]]:
    """Runs of frames in which the eyes are outside their idle range."""
    runs = itertools.groupby(shown, key=lambda e: abs(e.eyes - base) > reach + 1e-9)
    return [[e.eyes for e in run] for outside, run in runs if outside]


@pytest.mark.parametrize("name", SETS)
def test_blinks_have_the_documented_patterns_shares_and_pauses(name: str) -> None:
    parameters = replace(still(LIVE_PARAMETERS[name]), gap=LIVE_PARAMETERS[name].gap)
    parameters = replace(parameters, blink_chance=0.025)
    shown = steps(LiveExpression(parameters, rng(1), fps=30), 120_000)
    starts, found = [], []
    frame = 0
    for outside, run in itertools.groupby(shown, key=lambda e: e.eyes != 0.2):
        values = [e.eyes for e in run]
        if outside:
            starts.append(frame)
            found.append(values)
        frame += len(values)
    patterns = [pattern for _, pattern in parameters.blinks]
    counts = np.zeros(3)
    magnitudes = []
    for values in found:
        chosen = [len(pattern) for pattern in patterns].index(len(values))
        ratio = np.array(values) / patterns[chosen]
        assert np.ptp(ratio) < 1e-9
        counts[chosen] += 1
        magnitudes.append(ratio[0])
    assert counts / counts.sum() == pytest.approx([0.4, 0.3, 0.3], abs=0.05)
    assert min(magnitudes) >= 1.1
    assert max(magnitudes) < 1.5
    assert np.mean(magnitudes) == pytest.approx(1.3, abs=0.02)
    between = np.diff(starts)
    gap = parameters.gap * 30
    assert between.min() >= gap
    # Once allowed, one frame in forty begins one.
    assert between.mean() == pytest.approx(gap + 1 / 0.025, rel=0.1)
    assert {(e.mouth, e.pose) for e in shown} == {(1.0, 0.0)}


@pytest.mark.parametrize(("name", "quiet"), [("v3", 5), ("v4", 15)])
def test_no_blink_soon_after_an_answer(name: str, quiet: int) -> None:
    parameters = replace(LIVE_PARAMETERS[name], blink_chance=1.0)
    live = LiveExpression(parameters, rng(), fps=30)
    live.say(Expression(0.2, 1.0, 0.0))  # an expression that stays in the idle range
    shown = steps(live, quiet * 30 + 1)
    assert blinks(shown[:-1], 0.2, parameters.drift["eyes"].reach) == []
    assert shown[-1].eyes > 0.2 + parameters.drift["eyes"].reach - 0.08  # 0.25 * 1.1 is the lowest first value


def test_overlaps_are_first_in_first_out_and_nothing_is_cut() -> None:
    parameters = replace(still(LIVE_PARAMETERS["v4"]), blink_chance=1.0)
    live = LiveExpression(parameters, rng(2))
    first = live.step()  # a blink begins at once
    assert first.eyes >= 0.25 * 1.1
    live.say(TARGET)
    live.say(Expression(pose=0.5))
    lengths = [len(pattern) for _, pattern in parameters.blinks]
    shown = [first, *steps(live, 2 * 110 + max(lengths))]
    blink = next(i for i, e in enumerate(shown) if e.mouth != 1.0) - 1  # the envelope begins at the base
    assert blink in lengths
    assert [e.eyes for e in shown[:blink]] == pytest.approx([e.eyes for e in shown[:blink]][::-1])  # whole
    assert shown[blink] == Expression(0.2, 1.0, 0.0)
    assert shown[blink + 55] == TARGET
    assert shown[blink + 110 + 55] == Expression(pose=0.5)
    assert live.pending == 0


@given(st.lists(st.booleans(), max_size=400), st.integers(0, 1000), st.sampled_from(SETS))
@settings(deadline=None, max_examples=50)
def test_any_order_of_calls_shows_everything_said_once(says: list[bool], seed: int, name: str) -> None:
    live, target = LiveExpression(name, rng(seed)), Expression(-1.0, -1.0, -1.0)
    shown = []
    for say in says[:60]:
        if say:
            live.say(target)
        shown.append(live.step())
    shown += steps(live, live.pending + 20)
    assert live.pending == 0
    held = sum(e == target for e in shown)
    # Ten frames held each, and the first of the way back, which is still at the target.
    assert held == 11 * sum(says[:60])
    again = LiveExpression(name, rng(seed))
    repeated = []
    for say in says[:60]:
        if say:
            again.say(target)
        repeated.append(again.step())
    assert repeated == shown[: len(repeated)]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(4))
def test_a_live_curve_reaches_and_leaves_its_target(name: str, seed: int) -> None:
    parameters = LIVE_PARAMETERS[name]
    length = len(parameters.envelope)
    for frames in (length, length + 5, length + 14, 300):
        shown = live_expressions(parameters, frames, seed, TARGET)
        assert len(shown) == frames
        assert sum(e == TARGET for e in shown) == 11
        assert abs(shown[-1].mouth - 1.0) < 0.2
        assert shown == live_expressions(parameters, frames, seed, TARGET)
    assert live_expressions(parameters, 50, seed) != live_expressions(parameters, 50, seed + 1)
    with pytest.raises(InvalidInputError, match=rf"left in {length} frames, {length - 1} are asked for"):
        live_expressions(parameters, length - 1, seed, TARGET)
    with pytest.raises(InvalidInputError, match=r"frames of a live curve must be in \[1, 1,000,000\], got 0"):
        live_expressions(parameters, 0, seed)


def test_a_blink_curve_is_one_whole_blink() -> None:
    shown = blink_expressions(LIVE_PARAMETERS["v4"], 30)
    eyes = [e.eyes for e in shown]
    assert eyes[:8] == [0.2] * 8
    assert eyes[8:21] == pytest.approx([1.3 * v for v in LIVE_PARAMETERS["v4"].blinks[0][1]])
    assert eyes[21:] == [0.2] * 9


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown live parameters 'v9': choose v3 or v4"):
        LiveExpression("v9", rng())
    for fps in (0.0, -1.0, math.nan, 1001.0):
        with pytest.raises(InvalidInputError, match="fps of a live expression"):
            LiveExpression("v4", rng(), fps=fps)
    with pytest.raises(InvalidInputError, match="the seed of a live curve must be in"):
        live_stream(-1)


# --- one face, frame by frame -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(threads=1) as renderer:
        yield renderer


def test_a_moving_portrait_maps_its_face_once(demo: ohlora.Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"mapping": 0, "synthesis": 0}

    class Counted:
        def __init__(self, name: str, engine: object) -> None:
            self.name, self.engine, self.spec = name, engine, engine.spec

        def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
            runs[self.name] += len(next(iter(inputs.values())))
            return self.engine(**inputs)

    for name, engine in (("mapping", demo._mapping), ("synthesis", demo._synthesis)):
        monkeypatch.setitem(demo.__dict__, f"_{name}", Counted(name, engine))
    face = ohlora.SeedRange(5, 5)[0]
    portrait = ohlora.MovingPortrait(demo, face)
    live = LiveExpression("v4", live_stream(3))
    looks = [Look(live.step(), Ombre(i / 10)) for i in range(6)]
    looks += [Look(Expression(eyes=1.0), Ombre(i / 40)) for i in range(40)]
    frames = list(portrait.frames(looks))
    assert runs == {"mapping": 1, "synthesis": 7}  # six of the drift, one of the forty at rest
    picked = (0, 5, 6, 45)
    expected = [r.image for r in demo.stream(RenderJob([face], tuple(looks[i] for i in picked)))]
    for i, image in zip(picked, expected, strict=True):
        assert np.array_equal(frames[i], image)
        assert np.array_equal(portrait.frame(looks[i].expression, looks[i].ombre), image)
    assert runs["mapping"] == 2  # the job above is another one


def test_a_frame_is_the_callers_own(demo: ohlora.Renderer) -> None:
    portrait = ohlora.MovingPortrait(demo, ohlora.SeedRange(5, 5)[0], dyed=False, moves=False)
    first = portrait.frame()
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(portrait.frame(), kept)
    with pytest.raises(InvalidInputError, match="opened with dyed=False"):
        portrait.frame(None, Ombre(0.5))
    with pytest.raises(InvalidInputError, match="opened with moves=False"):
        portrait.frame(TARGET)


def test_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "expressions.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/expressions.md", "exec"), names)
    assert (tmp_path / "live.mp4").stat().st_size > 1000
