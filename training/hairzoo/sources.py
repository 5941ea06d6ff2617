"""Open the data folder a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ohlora.errors import InvalidInputError
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.hairzoo.celeb import celeb_data
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.korean import korean_data
from ohlora.training.hairzoo.pictures import OUT, ZooData, by_people


def open_data(config: ZooConfig, folders: Sequence[Path]) -> ZooData:
    """The pictures of `folders` in the recipe's layout. Raises InvalidInputError naming what is wrong."""
    if not folders:
        raise InvalidInputError("no data: give --data FOLDER")
    if config.data_type == "faces":
        return faces_data(folders, config.fold)
    if len(folders) > 1:
        raise InvalidInputError(f"--data-type {config.data_type} reads one folder, got {len(folders)}")
    if not folders[0].is_dir():
        raise InvalidInputError(f"there is no folder {folders[0]}")
    return celeb_data(folders[0]) if config.data_type == "celeb" else korean_data(folders[0], config.light)


def faces_data(folders: Sequence[Path], held: int) -> ZooData:
    """Our own folders: pictures with soft hair maps; people who look alike are in one fold."""
    pictures = find_faces(folders)
    fold, people = by_people([picture.read()[0] for picture in pictures], held)
    left_out = {pictures[i].name: "looks like a held-out person" for i in np.flatnonzero(fold == OUT)}
    return ZooData(pictures, fold, left_out, people)


def fingerprint(data: ZooData) -> str:
    """Names a set of pictures and their folds, so that a resumed run can tell it from another."""
    lines = "\n".join(f"{picture.name} {fold}" for picture, fold in zip(data.pictures, data.fold, strict=True))
    return f"{len(data.pictures)} pictures, {hashlib.sha256(lines.encode()).hexdigest()[:16]}"
