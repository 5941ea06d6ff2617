"""Class maps and pictures to score: real faces of a folder, or painted portraits; shifted, so that no two are equal."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.properties import SIZE
from ohlora.scores.sources import squeezed

Maps = NDArray[np.uint8]
PORTRAITS = 24


def painted() -> tuple[Maps, Maps]:
    """Of procedural portraits, which need no PyTorch: maps uint8 [K,224,224], pictures uint8 [K,224,224,3]."""
    from ohlora.training.data import portraits

    truth = portraits.render(portraits.parameters_from_seeds(range(PORTRAITS)), SIZE)
    return truth.parsing, truth.images


def of_folders(data: list[Path]) -> tuple[Maps, Maps]:
    """Of folders of pictures with class maps beside them."""
    from ohlora.training.students.parsing.faces import find_parsed_faces

    maps, pictures = [], []
    for face in find_parsed_faces(data):
        image, classes, _ = face.read()
        maps.append(cv2.resize(classes, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST))
        pictures.append(squeezed(np.ascontiguousarray(image)))
    return np.stack(maps), np.stack(pictures)


def batch(maps: Maps, pictures: Maps, first: int, count: int) -> tuple[Maps, Maps]:
    """Numbers first .. first + count - 1 of an endless row of different scenes."""
    parsing, images = np.empty((count, *maps.shape[1:]), np.uint8), np.empty((count, *pictures.shape[1:]), np.uint8)
    for i in range(count):
        turn, face = divmod(first + i, len(maps))
        shift = (turn * 5 % 23 - 11, turn * 3 % 37 - 18)
        step = -1 if turn % 2 else 1
        parsing[i] = np.roll(maps[face][:, ::step], shift, (0, 1))
        images[i] = np.roll(pictures[face][:, ::step], shift, (0, 1))
    return parsing, images
