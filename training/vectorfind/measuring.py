"""What a search measures with: a generator, a scorer, and the samples' statistics as units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.latents.spaces import Space
from ohlora.training.vectorfind.portrayer import Floats, Portrayer
from ohlora.training.vectorfind.samples import SampleStore
from ohlora.training.vectorfind.scorers import Scorer
from ohlora.training.vectorfind.selection import group_names, groups_of, medians
from ohlora.training.vectorfind.settings import SearchSettings

Values = NDArray[np.float64]

BEFORE_TEST = 2**30  # measured faces: so many seeds before those of the test


@dataclass(frozen=True)
class Population:
    """The samples as a whole. columns, mean and deviation [C] of their scores, cutoffs and group index [N] of each."""

    columns: tuple[str, ...]
    mean: Values
    deviation: Values
    cutoffs: tuple[float, ...]
    groups: NDArray[np.int64]
    scores: NDArray[np.float32]

    def of(self, name: str) -> NDArray[np.float32]:
        return self.scores[:, self.columns.index(name)]

    def deviations(self, names: Sequence[str]) -> Values:
        """Of the scores `names`."""
        return self.deviation[[self.columns.index(name) for name in names]]

    def group_sizes(self) -> dict[str, int]:
        names = group_names(len(self.cutoffs))
        return {name: int((self.groups == i).sum()) for i, name in enumerate(names)}


def population(store: SampleStore, settings: SearchSettings) -> Population:
    """Statistics of the samples. Raises InvalidInputError for a score that is missing everywhere or never varies."""
    scores = store.scores()
    known = scores.astype(np.float64)
    with np.errstate(all="ignore"):
        mean, deviation = np.nanmean(known, 0), np.nanstd(known, 0)
    for name in settings.columns:
        if not deviation[store.columns.index(name)] > 0:
            raise InvalidInputError(
                f"the score {name} is the same, or missing, in all {store.count} samples: use another scorer"
            )
    lettered = scores[:, [store.columns.index(name) for name in settings.groups]]
    cutoffs = settings.cutoffs or medians(lettered)
    return Population(store.columns, mean, deviation, cutoffs, groups_of(lettered, cutoffs), scores)


@dataclass(frozen=True)
class Measuring:
    """Draws vectors of a space and scores the pictures."""

    portrayer: Portrayer
    scorer: Scorer
    settings: SearchSettings
    people: Population

    def faces(self, count: int) -> tuple[Floats, Floats]:
        """z and labels of faces that are neither samples nor tested."""
        first = max(self.settings.test_seed - BEFORE_TEST, 0)
        return latents_of_seeds(range(first, first + count), self.portrayer.generator.config.label_size)

    def score(self, vectors: Values | Floats, columns: Sequence[str], space: Space | None = None) -> Values:
        """Vectors [N,D] of the space, the search's unless said -> scores of their pictures [N,len(columns)]."""
        w = self.portrayer.finish(vectors.astype(np.float32), space or self.settings.space)
        return self.scorer.score(self.portrayer.images(w), columns)

    def difference(self, start: Values | Floats, shift: Values, columns: Sequence[str]) -> Values:
        """By how much the scores differ between the shift [D] or [N,D] there and back, [N,len(columns)]."""
        there, back = (self.score(start + sign * shift, columns) for sign in (1.0, -1.0))
        return there - back

    def shift_effects(self, shifts: Values, names: Sequence[str]) -> Values:
        """What each of the shifts [K,D] changes: the scores `names`, in standard deviations [K,len(names)]."""
        z, label = self.faces(self.settings.refine_faces)
        start = self.portrayer.start(z, label, self.settings.space).astype(np.float64)
        deviation = self.people.deviations(names)
        return np.array([np.nanmean(self.difference(start, shift, names), 0) / 2 / deviation for shift in shifts])

    def groups(self, scores: Values) -> list[str | None]:
        """Group of each row of scores (of the search's columns); None where a score of its letters is missing."""
        names, columns = group_names(len(self.people.cutoffs)), self.settings.columns
        lettered = scores[:, [columns.index(name) for name in self.settings.groups]].astype(np.float32)
        return [names[i] if i >= 0 else None for i in groups_of(lettered, self.people.cutoffs)]
