"""Measured on generated pictures: what shifts change, and how long a direction must be for a strength of 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import PROPERTIES, Face
from ohlora.latents.directions import Directions
from ohlora.training.vectorfind.find import Found, Population
from ohlora.training.vectorfind.portrayer import Portrayer
from ohlora.training.vectorfind.samples import codes
from ohlora.training.vectorfind.scorers import Scorer
from ohlora.training.vectorfind.selection import group_names, groups_of
from ohlora.training.vectorfind.settings import SearchSettings

Values = NDArray[np.float64]

ROUNDS = 6
CLOSE = 0.05  # relative; the mean of a few faces is not known better
LEAST_GAIN = 0.3  # of a proportional one, for a longer direction to be worth it
LAST_STEP = 1.5
BEFORE_TEST = 2**30  # measured faces: so many seeds before those of the test
LARGEST_STEP = 4.0  # of one round: a direction that hardly moves its score is not blown up at once


def measured_faces(
    settings: SearchSettings, count: int, label_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """z and labels of faces that are neither samples nor tested."""
    first = max(settings.test_seed - BEFORE_TEST, 0)
    return codes(range(first, first + count), label_size)


def measure_shifts(
    portrayer: Portrayer,
    scorer: Scorer,
    people: Population,
    settings: SearchSettings,
    shifts: Values,
    names: Sequence[str],
) -> Values:
    """Shifts [K,D] there and back -> mean change of the scores `names` by half of it, in standard deviations
    [K,len(names)]."""
    z, label = measured_faces(settings, settings.refine_faces, portrayer.generator.config.label_size)
    start = portrayer.start(z, label, settings.space).astype(np.float64)
    deviation = people.deviation[[people.columns.index(name) for name in names]]
    rows = []
    for shift in shifts:
        sides = []
        for sign in (1.0, -1.0):
            w = portrayer.finish((start + sign * shift).astype(np.float32), settings.space)
            sides.append(scorer.score(portrayer.images(w), names))
        rows.append(np.nanmean(sides[0] - sides[1], 0) / 2 / deviation)
    return np.array(rows)


def named_groups(
    scores: Values, people: Population, settings: SearchSettings, columns: Sequence[str]
) -> list[str | None]:
    """Group of each row of scores; None where a score of its letters is missing."""
    names = group_names(len(people.cutoffs))
    lettered = scores[:, [list(columns).index(name) for name in settings.groups]].astype(np.float32)
    return [names[i] if i >= 0 else None for i in groups_of(lettered, people.cutoffs)]


def calibrated(
    found: Found, portrayer: Portrayer, scorer: Scorer, people: Population, settings: SearchSettings
) -> Found:
    """`found` scaled so that a strength of 1 changes each property's own score by settings.strength standard
    deviations."""
    z, label = measured_faces(settings, settings.calibrate_faces, portrayer.generator.config.label_size)
    start = portrayer.start(z, label, settings.space)
    neutral = scorer.score(portrayer.images(portrayer.finish(start, settings.space)), settings.columns)
    groups = named_groups(neutral, people, settings, settings.columns)
    factors, before = dict.fromkeys(PROPERTIES, 1.0), dict.fromkeys(PROPERTIES, (1.0, 0.0))  # (factor, effect)
    moving = set(PROPERTIES)
    deviation = people.deviation[[people.columns.index(name) for name in PROPERTIES]]
    for _ in range(ROUNDS):
        directions = found.scaled(factors).directions("search", portrayer.sha256, settings.space)
        usable = [i for i, group in enumerate(groups) if group in directions.groups]
        if not usable or not moving:
            break
        measured = _own_effects(directions, portrayer, scorer, start[usable], [groups[i] for i in usable])
        effects = dict(zip(PROPERTIES, (-measured / deviation).tolist(), strict=True))
        for wanted, name in zip(settings.strength, PROPERTIES, strict=True):
            if name not in moving:
                continue
            effect, (old, gained) = effects[name], before[name]
            growth = factors[name] / old
            if gained > 0 and growth > 1.0 and effect < gained * (1.0 + LEAST_GAIN * (growth - 1.0)):
                factors[name] = (
                    old  # longer no longer means more: what is asked for cannot be had, pictures only suffer
                )
                moving.remove(name)
                continue
            before[name] = (factors[name], effect)
            if abs(effect - wanted) <= CLOSE * wanted:
                moving.remove(name)
            else:
                factors[name] *= min(wanted / max(effect, 1e-9), LARGEST_STEP)
    # The last step was not measured: it stands only where it was small.
    for name in moving:
        if factors[name] > LAST_STEP * before[name][0]:
            factors[name] = before[name][0]
    return found.scaled(factors)


def _own_effects(
    directions: Directions,
    portrayer: Portrayer,
    scorer: Scorer,
    start: NDArray[np.float32],
    groups: Sequence[str | None],
) -> Values:
    """Mean change of each property's own score for a strength of 1: half of that from -1 to 1; [3]."""
    faces = [Face(np.zeros(512, np.float32), name=f"face{i}", group=group) for i, group in enumerate(groups)]
    moves = np.stack([directions.moves(row, face) for row, face in zip(start, faces, strict=True)])  # [n,3,D]
    effects = []
    for i, name in enumerate(PROPERTIES):
        sides = []
        for strength in (1.0, -1.0):
            edited = (start + strength * moves[:, i]).astype(np.float32)
            sides.append(scorer.score(portrayer.images(portrayer.finish(edited, directions.space)), (name,))[:, 0])
        effects.append(np.nanmean(sides[0] - sides[1]) / 2)
    return np.array(effects)
