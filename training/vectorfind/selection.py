"""Which samples are compared: groups by cut-off letters, and the extremes of a score within a group
(docs/spec/vectorfind.md, sections 3.2 and 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.latents.directions import EVERYONE

HIGH, LOW = "h", "l"


def group_names(letters: int) -> list[str]:
    """All groups of so many letters in the documented order (hhh, hhl, ... lll); one group for everybody without."""
    return ["".join(name) for name in product((HIGH, LOW), repeat=letters)] if letters else [EVERYONE]


def groups_of(scores: NDArray[np.floating], cutoffs: Sequence[float]) -> NDArray[np.int64]:
    """Index into `group_names` of each row of scores [N, letters]: `h` where the score is at least the cut-off.

    Rows with a score that does not exist (NaN) belong to no group: -1.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or values.shape[1] != len(cutoffs):
        raise InvalidInputError(
            f"groups need scores [N, {len(cutoffs)}], one column a cut-off, got {list(values.shape)}"
        )
    low = values < np.asarray(cutoffs, np.float64)
    weights = 2 ** np.arange(len(cutoffs) - 1, -1, -1)
    index: NDArray[np.int64] = (low * weights).sum(1).astype(np.int64)
    index[np.isnan(values).any(1)] = -1
    return index


def medians(scores: NDArray[np.floating]) -> tuple[float, ...]:
    """Cut-offs measured on samples [N, letters]: medians, as documented; missing scores are left out."""
    return tuple(float(value) for value in np.nanmedian(np.asarray(scores, np.float64), axis=0))


def extremes(scores: NDArray[np.floating], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(largest, smallest): indices of the top and bottom max(floor(share * n), 1) of n scores, each ascending.

    Ties go by position (stable, descending), as documented. Missing scores (NaN) take no part.
    """
    if not 0 < share <= 0.5:
        raise InvalidInputError(f"the share of extremes must be in (0, 0.5], got {share}")
    known = np.flatnonzero(~np.isnan(scores))
    if not len(known):
        raise InvalidInputError("there are no scores to select extremes from")
    # Negated in float64: exact, and -0.0 and 0.0 stay a tie.
    order = known[np.argsort(-np.asarray(scores, np.float64)[known], kind="stable")]
    count = max(int(share * len(known)), 1)
    return np.sort(order[:count]), np.sort(order[-count:])
