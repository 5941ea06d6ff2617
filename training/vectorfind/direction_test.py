"""The documented test of directions: 50 pictures of a face, strengths against scores
(docs/spec/vectorfind.md, section 3.8).

The strengths are a full grid, so that besides the correlations every property's effect on every score can be read off
the same 50 pictures by least squares: what the direction is for, and what leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ohlora.base.types import Rgb
from ohlora.base.values import PROPERTIES, Face
from ohlora.latents.directions import Directions
from ohlora.training.directions.measure import pearson
from ohlora.training.vectorfind.measuring import Measuring, Values
from ohlora.training.vectorfind.portrayer import Floats
from ohlora.training.vectorfind.settings import SearchSettings

DECIMALS = 4  # scores and correlations are reported, and scores compared, like this


def triples(settings: SearchSettings) -> Values:
    """Strengths (eyes, mouth, pose) of the test pictures [50,3]: mouth outermost, then eyes, pose innermost."""
    rows = product(settings.mouth, settings.eyes, settings.pose)
    return np.array([(eyes, mouth, pose) for mouth, eyes, pose in rows], np.float64)


def correlation(first: Values, second: Values) -> float:
    """Of two rows; pictures without a score take no part; 0 where one side does not vary."""
    known = ~(np.isnan(first) | np.isnan(second))
    return pearson(first[known], second[known]) if known.sum() > 2 else 0.0


@dataclass(frozen=True)
class Tested:
    """One face: scores [50,C] of its pictures, these, and the unmodified one."""

    scores: Values
    images: Rgb
    original: Rgb


@dataclass(frozen=True)
class CaseFigures:
    """What a face's 50 scores say. correlation [3]: strength against score of the same property. effects [3,C]: change
    of each score, in standard deviations among samples, for a strength of 1 of eyes, mouth, pose.
    """

    correlation: Values
    effects: Values

    @property
    def leakage(self) -> Values:
        """[3]: mean absolute effect on the other two properties, as a share of the property's own."""
        return leakage(self.effects)

    def passes(self, limits: Sequence[float]) -> bool:
        return bool((np.abs(self.correlation) >= np.asarray(limits)).all())


def leakage(effects: Values) -> Values:
    """effects [3, 3 or more] of eyes, mouth, pose (rows) on the scores, these three first -> [3]: mean absolute effect
    on the other two, as a share of the own one.
    """
    size = np.abs(effects[:, : len(PROPERTIES)])
    own = np.diag(size)
    return np.asarray((size.sum(1) - own) / (len(PROPERTIES) - 1) / np.maximum(own, 1e-9))


def examine_face(measuring: Measuring, directions: Directions, start: Floats, face: Face, strengths: Values) -> Tested:
    """Draw and score one face: start [D] is its unmodified vector in directions.space."""
    space, portrayer = directions.space, measuring.portrayer
    edited = (start.astype(np.float64) + strengths @ directions.moves(start, face)).astype(np.float32)
    images = portrayer.images(np.concatenate([portrayer.finish(v, space) for v in (edited, start[None])]))
    scores = np.round(measuring.scorer.score(images, measuring.settings.columns), DECIMALS)
    return Tested(scores[:-1], images[:-1], images[-1])


def figures(strengths: Values, scores: Values, deviation: Values) -> CaseFigures:
    """strengths [P,3], scores [P,C] with the three properties first, deviation [C] of each score among samples."""
    correlations = np.array([correlation(strengths[:, i], scores[:, i]) for i in range(len(PROPERTIES))])
    design = np.concatenate([strengths, np.ones((len(strengths), 1))], 1)
    effects = np.zeros((len(PROPERTIES), scores.shape[1]))
    for column in range(scores.shape[1]):
        known = ~np.isnan(scores[:, column])
        if known.sum() > design.shape[1]:
            solution = np.linalg.lstsq(design[known], scores[known, column], rcond=None)[0]
            effects[:, column] = solution[: len(PROPERTIES)] / max(float(deviation[column]), 1e-9)
    return CaseFigures(correlations, effects)
