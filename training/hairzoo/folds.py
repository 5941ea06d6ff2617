"""Five parts of a data set, the same every time (docs/spec/segmentation.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from ohlora.errors import InvalidInputError
from ohlora.training.data.people import TOO_CLOSE, distances, group_people, thumbnails
from ohlora.training.hairzoo.config import FOLDS

OUT = -1  # fold of a picture that is used on neither side


def consecutive(count: int) -> NDArray[np.int64]:
    """Blocks of a sorted list without shuffling, the first ones longer by one where it does not divide -> fold [N]."""
    sizes = [len(part) for part in np.array_split(np.empty(count), FOLDS)]
    return np.repeat(np.arange(FOLDS), sizes)


def grouped(groups: Sequence[str]) -> NDArray[np.int64]:
    """Whole groups in one fold, folds of about one size (scikit-learn's GroupKFold) -> fold [N]."""
    count = len(set(groups))
    if count < FOLDS:
        raise InvalidInputError(f"{count} groups of pictures cannot be divided into {FOLDS} folds: use more people")
    fold = np.empty(len(groups), np.int64)
    for number, (_, held) in enumerate(GroupKFold(FOLDS).split(np.empty(len(groups)), groups=list(groups))):
        fold[held] = number
    return fold


def by_people(images: Sequence[NDArray[np.uint8]], held: int) -> tuple[NDArray[np.int64], list[str]]:
    """Pictures of nameless virtual people: who looks alike is in one fold (`data/people.py`) -> fold, person [N].

    Pictures of other folds that still look too much like one of fold `held` are OUT.
    """
    distance = distances(thumbnails(images))
    people = [str(person) for person in group_people(distance)]
    fold = grouped(people)
    inside = fold == held
    fold[~inside & (distance[:, inside].min(1) < TOO_CLOSE)] = OUT
    return fold, people
