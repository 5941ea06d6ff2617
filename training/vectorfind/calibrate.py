"""How long a direction must be for a strength of 1, measured on generated pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ohlora.base.values import PROPERTIES, Face
from ohlora.latents.directions import Directions
from ohlora.training.vectorfind.find import Found
from ohlora.training.vectorfind.measuring import Measuring, Values
from ohlora.training.vectorfind.portrayer import Floats

ROUNDS = 6
CLOSE = 0.05  # relative; the mean of a few faces is not known better
LEAST_GAIN = 0.3  # of a proportional one, for a longer direction to be worth it
LAST_STEP = 1.5
LARGEST_STEP = 4.0  # of one round: a direction that hardly moves its score is not blown up at once


def calibrated(found: Found, measuring: Measuring) -> Found:
    """`found` scaled so that a strength of 1 changes each property's own score by settings.strength standard
    deviations.
    """
    settings, portrayer = measuring.settings, measuring.portrayer
    start = portrayer.start(*measuring.faces(settings.calibrate_faces), settings.space)
    groups = measuring.groups(measuring.score(start, settings.columns))
    factors, before = dict.fromkeys(PROPERTIES, 1.0), dict.fromkeys(PROPERTIES, (1.0, 0.0))  # (factor, effect)
    moving = set(PROPERTIES)
    deviation = measuring.people.deviations(PROPERTIES)
    for _ in range(ROUNDS):
        directions = found.scaled(factors).directions("search", portrayer.sha256, settings.space)
        usable = [i for i, group in enumerate(groups) if group in directions.groups]
        if not usable or not moving:
            break
        measured = _own_effects(measuring, directions, start[usable], [groups[i] for i in usable])
        effects = dict(zip(PROPERTIES, (-measured / deviation).tolist(), strict=True))
        for wanted, name in zip(settings.strength, PROPERTIES, strict=True):
            if name not in moving:
                continue
            effect, (old, gained) = effects[name], before[name]
            growth = factors[name] / old
            if gained > 0 and growth > 1.0 and effect < gained * (1.0 + LEAST_GAIN * (growth - 1.0)):
                # Longer no longer means more: what is asked for cannot be had, pictures only suffer.
                factors[name] = old
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


def _own_effects(measuring: Measuring, directions: Directions, start: Floats, groups: Sequence[str | None]) -> Values:
    """Mean change of each property's own score for a strength of 1: half of that from -1 to 1; [3]."""
    faces = [Face(np.zeros(512, np.float32), name=f"face{i}", group=group) for i, group in enumerate(groups)]
    moves = np.stack([directions.moves(row, face) for row, face in zip(start, faces, strict=True)])  # [n,3,D]
    changes = [measuring.difference(start, moves[:, i], (name,))[:, 0] for i, name in enumerate(PROPERTIES)]
    return np.array([np.nanmean(change) / 2 for change in changes])
