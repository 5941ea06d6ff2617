"""What every data set of the zoo gives: pictures with masks, the fold of each, and what was left out.

Folds are five parts of a set, the same every time (docs/spec/segmentation.md, section 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from ohlora.errors import InvalidInputError
from ohlora.training.data.hair_faces import LabelledPicture, find_faces, read_files
from ohlora.training.data.people import TOO_CLOSE, distances, group_people, thumbnails
from ohlora.training.hairzoo.config import FOLDS

Mask = NDArray[np.uint8]  # [h,w], hair times 255; not always of the picture's size
OUT = -1  # fold of a picture that is used on neither side


@dataclass(frozen=True)
class ZooData:
    """pictures, `fold` of each [N] (0 .. FOLDS - 1, or OUT), names of what was left out and why.

    people: whom each picture shows [N], where that is known. tables: files that say what the pictures show.
    """

    pictures: Sequence[LabelledPicture]
    fold: NDArray[np.int64]
    left_out: dict[str, str] = field(default_factory=dict)
    people: Sequence[str] | None = None
    tables: Sequence[Path] = ()

    def split(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices (train, held out). Raises InvalidInputError when a side is empty."""
        train, held = np.flatnonzero((self.fold != fold) & (self.fold >= 0)), np.flatnonzero(self.fold == fold)
        if not len(train) or not len(held):
            raise InvalidInputError(
                f"{len(self.pictures)} pictures give {len(train)} to train on and {len(held)} to hold out in fold "
                f"{fold}: use more pictures or people"
            )
        return train, held

    def count_people(self, indices: NDArray[np.int64]) -> int | None:
        """How many people these pictures show; None where that is not known."""
        return None if self.people is None else len({self.people[i] for i in indices})

    def files(self) -> dict[str, list[Path]]:
        """All files that are read, by what they are."""
        return {**read_files(self.pictures), "tables": list(self.tables)}

    def fingerprint(self) -> str:
        """Names the pictures and their folds, so that a resumed run can tell them from others."""
        lines = "\n".join(f"{picture.name} {fold}" for picture, fold in zip(self.pictures, self.fold, strict=True))
        return f"{len(self.pictures)} pictures, {hashlib.sha256(lines.encode()).hexdigest()[:16]}"


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


def faces_data(folders: Sequence[Path], held: int) -> ZooData:
    """Our own folders: pictures with soft hair maps. People have no names: who looks alike is in one fold
    (`data/people.py`), and pictures of other folds that still look too much like one of fold `held` are OUT.
    """
    pictures = find_faces(folders)
    distance = distances(thumbnails([picture.read()[0] for picture in pictures]))
    people = [str(person) for person in group_people(distance)]
    fold = grouped(people)
    inside = fold == held
    fold[~inside & (distance[:, inside].min(1) < TOO_CLOSE)] = OUT
    left_out = {pictures[i].name: "looks like a held-out person" for i in np.flatnonzero(fold == OUT)}
    return ZooData(pictures, fold, left_out, people)
