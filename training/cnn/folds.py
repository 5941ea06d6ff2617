"""Cross-validation folds and the 90/10 split, seeded (docs/spec/cnn.md, sections 4, 6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from ohlora.errors import InvalidInputError
from ohlora.training.cnn.recipes import KFOLD
from ohlora.training.loop.seeds import derive

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to validate on, both int64 and sorted."""

    train: Rows
    validation: Rows


def make_folds(attribute: str, labels: ArrayLike, folds: int, kind: str, seed: int) -> list[Split]:
    """labels [N], each 0 or 1 -> one split per fold; every row validates exactly once.

    kind: "k-fold" or "stratified", shuffled. Raises InvalidInputError when one of the two classes has fewer members
    than there are folds: some fold would then be trained or validated without it.
    """
    values = np.asarray(labels)
    for label in (0, 1):
        count = int((values == label).sum())
        if count < folds:
            raise InvalidInputError(
                f"{count} of {len(values)} pictures {'has' if count == 1 else 'have'} {attribute} = {label}, "
                f"{folds} folds need at least {folds}: label more such pictures, or use fewer folds (2 or more)"
            )
    splitter = (KFold if kind == KFOLD else StratifiedKFold)(
        folds, shuffle=True, random_state=derive(seed, "folds", attribute) % 2**32
    )
    rows = np.zeros((len(values), 1))
    return [Split(np.sort(train), np.sort(held)) for train, held in splitter.split(rows, values)]


def split_once(name: str, count: int, train_share: float, seed: int) -> Split:
    """A random split of `count` rows: int(count * train_share) train.

    Raises InvalidInputError when a side would be empty.
    """
    size = int(count * train_share)
    if not 0 < size < count:
        raise InvalidInputError(
            f"{count} pictures cannot be split {train_share:g} to {1 - train_share:g}: one side would be empty"
        )
    order = np.random.Generator(np.random.Philox(key=derive(seed, "split", name))).permutation(count)
    # The validation log shows the first ones: they stay in drawn order.
    return Split(np.sort(order[:size]).astype(np.int64), order[size:].astype(np.int64))
