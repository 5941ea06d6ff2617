"""An expression that lives: idle drift, blinks, and expressions that come and go (docs/spec/runtime.md, section 4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ohlora.base.types import check_choice
from ohlora.base.values import PROPERTIES, Expression, random_stream
from ohlora.errors import InvalidInputError

MAX_FRAMES = 1_000_000
_STREAM = 0x6C697665


@dataclass(frozen=True, slots=True)
class Drift:
    """Per frame a step of U(-step, step), clipped to base - reach .. base + reach."""

    base: float
    step: float
    reach: float


@dataclass(frozen=True, slots=True)
class LiveParameters:
    """How a face lives. Strengths have the published sign (negative: wider open, turned further); times are seconds.

    quiet: no blink so long after the last `say`; gap: nor so long after the last blink began; then one begins with
    blink_chance a frame, its pattern (absolute eye strengths) chosen by its share and multiplied by U(*magnitude).
    rise: frames in which an expression is reached, and left; hold: frames at the target.
    """

    drift: dict[str, Drift]
    blinks: tuple[tuple[float, tuple[float, ...]], ...]
    quiet: float
    gap: float
    rise: int
    hold: int = 10
    blink_chance: float = 0.025
    magnitude: tuple[float, float] = (1.1, 1.5)

    @property
    def envelope(self) -> tuple[float, ...]:
        """Share of the target at each frame of an expression: raised cosine up, hold, raised cosine down."""
        up = [(1 + math.cos((1 + i / self.rise) * math.pi)) / 2 for i in range(self.rise)]
        down = [(1 + math.cos((2 + i / self.rise) * math.pi)) / 2 for i in range(self.rise)]
        return (*up, *(1.0,) * self.hold, *down)

    @property
    def base(self) -> Expression:
        """The expression that everything starts from."""
        return Expression(**{name: self.drift[name].base for name in PROPERTIES})


# The documented products.
LIVE_PARAMETERS: dict[str, LiveParameters] = {
    "v3": LiveParameters(  # v2 and v3
        {"eyes": Drift(0.2, 0.035, 0.25), "mouth": Drift(1.0, 0.025, 0.15), "pose": Drift(0.0, 0.045, 0.40)},
        (
            (0.4, (0.4, 0.6, 0.8, 0.8, 0.6, 0.4)),
            (0.3, (0.4, 0.6, 0.8, 0.6, 0.4)),
            (0.3, (0.4, 0.7, 0.7, 0.4)),
        ),
        quiet=5.0,
        gap=1.0,
        rise=30,
    ),
    "v4": LiveParameters(
        {"eyes": Drift(0.2, 0.02, 0.15), "mouth": Drift(1.0, 0.015, 0.10), "pose": Drift(0.0, 0.025, 0.20)},
        (
            (0.4, (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.25)),
            (0.3, (0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.7, 0.6, 0.5, 0.4, 0.25)),
            (0.3, (0.25, 0.4, 0.6, 0.7, 0.7, 0.6, 0.4, 0.25)),
        ),
        quiet=15.0,
        gap=2.0,
        rise=50,
    ),
}


class LiveExpression:
    """A face's expression, frame by frame. Call `step` for every frame and `say` when an answer is given.

    parameters: a set of `LIVE_PARAMETERS` or its name. rng: the only source of chance; equal generators and equal calls
    give equal frames. fps: (0, 1000], frames a second that `step` is called at, which turns the documented pauses into
    frames. Raises InvalidInputError.

    Overlaps, where the documented loop takes queued values from the end so that a blink breaks into an expression:
    first in, first out, and nothing is cut short. Expressions follow one another in the order they were said. One said
    during a blink begins when the eyes are open again, for all three properties, so that they stay together. A blink
    begins only when no expression is under way or waiting. A property does not drift while values are queued for it: it
    comes back to where it left, without a jump.
    """

    def __init__(self, parameters: LiveParameters | str, rng: np.random.Generator, *, fps: float = 30.0) -> None:
        if isinstance(parameters, str):
            parameters = LIVE_PARAMETERS[check_choice("live parameters", parameters, LIVE_PARAMETERS)]
        if not 0.0 < fps <= 1000.0:  # false for NaN
            raise InvalidInputError(f"fps of a live expression must be in (0, 1000], got {fps:g}")
        self.parameters, self._rng = parameters, rng
        self._envelope = parameters.envelope
        self._current = {name: parameters.drift[name].base for name in PROPERTIES}
        self._queues: dict[str, deque[float]] = {name: deque() for name in PROPERTIES}
        self._waiting: deque[Expression] = deque()
        self._quiet, self._gap = (round(seconds * fps) for seconds in (parameters.quiet, parameters.gap))
        # Frames since the last answer and the last blink. Before the first of each there is nothing to wait for.
        self._since_answer, self._since_blink = self._quiet, self._gap

    @property
    def pending(self) -> int:
        """Frames until everything said has been shown; 0 when idle. Blinks do not count."""
        under_way = len(self._queues["mouth"])  # a blink fills the queue of the eyes alone
        return under_way + len(self._waiting) * len(self._envelope)

    def say(self, target: Expression) -> None:
        """Reach `target` along a raised cosine, hold it and leave it, in its turn: 70 (v3) or 110 (v4) frames."""
        self._waiting.append(target)
        self._since_answer = 0

    def step(self) -> Expression:
        """The next frame's expression. Never ends; the first one, unless a blink begins at once, is the base."""
        idle = not any(self._queues.values())
        if idle and self._waiting:
            self._begin(self._waiting.popleft())
        elif idle and self._since_answer >= self._quiet and self._since_blink >= self._gap:
            self._maybe_blink()
        shown = {}
        for name, step in zip(PROPERTIES, self._rng.uniform(-1.0, 1.0, len(PROPERTIES)), strict=True):
            queue, drift = self._queues[name], self.parameters.drift[name]
            if queue:
                shown[name] = queue.popleft()
                continue
            shown[name] = self._current[name]
            moved = self._current[name] + drift.step * float(step)
            self._current[name] = min(max(moved, drift.base - drift.reach), drift.base + drift.reach)
        self._since_answer += 1
        self._since_blink += 1
        return Expression(**shown)

    def __iter__(self) -> Iterator[Expression]:
        return self

    def __next__(self) -> Expression:
        return self.step()

    def _begin(self, target: Expression) -> None:
        for name in PROPERTIES:
            current, end = self._current[name], getattr(target, name)
            # current + (end - current) * share, in the form that meets both ends exactly.
            self._queues[name].extend(current * (1.0 - share) + end * share for share in self._envelope)

    def _maybe_blink(self) -> None:
        if self._rng.random() >= self.parameters.blink_chance:
            return
        magnitude = self._rng.uniform(*self.parameters.magnitude)
        shares = np.cumsum([share for share, _ in self.parameters.blinks])
        chosen = int(np.searchsorted(shares[:-1], self._rng.random(), side="right"))
        self._queues["eyes"].extend(magnitude * value for value in self.parameters.blinks[chosen][1])
        self._since_blink = 0


def live_stream(seed: int) -> np.random.Generator:
    """The random numbers of a live curve. seed: [0, 2**63 - 1], else InvalidInputError.

    Apart from the stream of the face with the same seed.
    """
    return random_stream({"the seed of a live curve": seed}, _STREAM)


def live_expressions(
    parameters: LiveParameters, frames: int, seed: int, target: Expression | None = None, *, fps: float = 30.0
) -> list[Expression]:
    """A live curve: `frames` frames of idling, with `target` reached and left in the middle of them.

    Raises InvalidInputError when frames is not in [1, 1,000,000] or too few for the target to be reached and left
    again.
    """
    if not 1 <= frames <= MAX_FRAMES:
        raise InvalidInputError(f"frames of a live curve must be in [1, {MAX_FRAMES:,}], got {frames}")
    length = len(parameters.envelope)
    if target is not None and frames < length:
        raise InvalidInputError(
            f"an expression is reached and left in {length} frames, {frames} are asked for: give more, or leave it out"
        )
    # A blink under way delays the expression by its rest; it shall still end within the curve.
    longest = max(len(values) for _, values in parameters.blinks)
    said_at = max(0, min((frames - length) // 2, frames - length - longest))
    live = LiveExpression(parameters, live_stream(seed), fps=fps)
    shown = []
    for frame in range(frames):
        if target is not None and frame == said_at:
            live.say(target)
        shown.append(live.step())
    return shown


def blink_expressions(parameters: LiveParameters, frames: int) -> list[Expression]:
    """One blink, the first pattern at its middle magnitude, in the middle of `frames` frames at the base."""
    base, values = parameters.base, parameters.blinks[0][1]
    first = (frames - len(values)) // 2
    eyes = [base.eyes] * frames
    eyes[first : first + len(values)] = [sum(parameters.magnitude) / 2 * value for value in values]
    return [Expression(value, base.mouth, base.pose) for value in eyes]
