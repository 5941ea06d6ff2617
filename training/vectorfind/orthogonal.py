"""Ours: directions that move one property and leave the others, in the most probable way.

Over the samples, every score s_j is regressed linearly on the vector m (ridge). Of all shifts v that change score i by
1 and the other scores by 0, the one of least Mahalanobis length v' S^-1 v (S: covariance of m) is

    V = S B (B' S B)^-1                                    B [D,K]: the regressions' slopes

in closed form. It stays where the generator has its data, which the normal of a separating plane need not. Scores of
pictures are not quite linear in m; so the change of every score is then measured on generated pictures and divided
out, a round or two:

    V <- diag(E) E^-1 V                                    E [K,K]: what each shift was seen to change

Only first and second moments of the samples are kept: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError

Matrix = NDArray[np.float64]

# shifts [n,K,D] of n faces -> change of the K scores for each shift, [n,K,K]
MeasureEffects = Callable[[Matrix], Matrix]
MIN_EFFECT = 0.05  # of a unit shift's own score: below it a measured correction would be noise


@dataclass(frozen=True)
class Moments:
    """Of samples m [N,D] and standardised scores [N,K]: count, mean [D], covariance [D,D], cross [D,K]; variance [K] of
    the scores.
    """

    count: int
    mean: Matrix
    covariance: Matrix
    cross: Matrix
    variance: Matrix


def moments(blocks: Iterable[tuple[NDArray[np.float32], Matrix]]) -> Moments:
    """From blocks (vectors [n,D], standardised scores [n,K]); rows with a missing score are left out.

    Raises InvalidInputError for fewer samples than unknowns.
    """
    total: Matrix | None = None
    size, count = 0, 0
    for vectors, scores in blocks:
        known = ~np.isnan(scores).any(1)
        row = np.concatenate([np.ones((int(known.sum()), 1)), vectors[known], scores[known]], 1, dtype=np.float64)
        total = row.T @ row if total is None else total + row.T @ row
        size, count = vectors.shape[1], count + len(row)
    if total is None or count < size + 2:
        raise InvalidInputError(
            f"{count} scored samples are too few for directions of {size} numbers: take {4 * size} or more"
        )
    mean = total[0] / count
    centred = total[1:, 1:] / count - np.outer(mean[1:], mean[1:])
    return Moments(
        count, mean[1 : 1 + size], centred[:size, :size], centred[:size, size:], np.diag(centred)[size:].copy()
    )


def slopes(found: Moments, ridge: float) -> Matrix:
    """B [D,K]: ridge regression of each score on the vector. ridge: share of the vector's mean variance."""
    system = found.covariance.copy()
    system[np.diag_indices(len(system))] += ridge * float(np.trace(system)) / len(system) + 1e-12
    return np.asarray(scipy.linalg.solve(system, found.cross, assume_a="pos"))


def readable(found: Moments, ridge: float) -> Matrix:
    """[K]: share of each score's variance that is linear in the vector. Far below 1, no direction is good for it."""
    b = slopes(found, ridge)
    explained = 2 * (b * found.cross).sum(0) - (b * (found.covariance @ b)).sum(0)
    return np.asarray(explained / np.maximum(found.variance, 1e-12))


def least_shifts(found: Moments, ridge: float) -> Matrix:
    """V [K,D]: row j changes score j by one standard deviation and the other scores by 0, as far as they are linear."""
    b = slopes(found, ridge)
    natural = found.covariance @ b  # [D,K]
    gram = b.T @ natural
    if np.linalg.cond(gram) > 1e10:
        raise InvalidInputError("two of the scores follow each other in these samples: protect fewer scores")
    return np.asarray(np.linalg.solve(gram, natural.T))


def refined(shifts: Matrix, measure: MeasureEffects, rounds: int) -> tuple[Matrix, list[Matrix]]:
    """Shifts [K,D] with what was measured divided out -> (shifts, measured effects [K,K] before each round and at the
    end).

    measure: mean effects of the shifts, [K,K]; row i what shift i changes.
    """
    history = [measure(shifts)]
    for _ in range(rounds):
        effects = history[-1]
        own = np.diag(effects)
        if (np.abs(own) < MIN_EFFECT).any():
            break  # a score that does not move cannot be balanced
        shifts = own[:, None] * np.linalg.solve(effects, shifts)
        history.append(measure(shifts))
    return shifts, history
