"""What every data set of the zoo gives: pictures with masks, the fold of each, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data.hair_faces import HairFace

Image = NDArray[np.uint8]  # RGB [H,W,3]
Mask = NDArray[np.uint8]  # [h,w], hair times 255; not always of the picture's size


class ZooPicture(Protocol):
    """A picture with its hair mask. Reading it twice gives the same."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[Image, Mask]: ...


@dataclass(frozen=True)
class MaskedPicture:
    """A picture whose mask is a file: hair is the file's first channel over 255."""

    picture: Path
    mask: Path

    @property
    def name(self) -> str:
        return self.picture.stem

    def read(self) -> tuple[Image, Mask]:
        """Raises ImageError for the picture, InvalidInputError for the mask, naming the file."""
        return read_image(self.picture), read_mask(self.mask)


@dataclass(frozen=True)
class SoftPicture:
    """A face of our own folders; its hair map is soft."""

    face: HairFace

    @property
    def name(self) -> str:
        return self.face.name

    def read(self) -> tuple[Image, Mask]:
        image, label, _ = self.face.read()
        return image, label


def read_mask(path: Path) -> Mask:
    """First channel of a mask picture, uint8 [h,w]. Raises InvalidInputError naming the file."""
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InvalidInputError(f"cannot read the mask {path}: it is missing or damaged; make it again or leave it out")
    if array.ndim == 3:
        array = array[..., 2] if array.shape[2] >= 3 else array[..., 0]  # OpenCV reads BGR: the first is the last
    if array.dtype != np.uint8:
        raise InvalidInputError(f"the mask {path} has values of {array.dtype}: 8 bits are needed, 0 or 255")
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class ZooData:
    """pictures, `fold` of each [N] (0 .. FOLDS - 1), names of what was left out and why.

    people: whom each picture shows [N], where that is known.
    """

    pictures: Sequence[ZooPicture]
    fold: NDArray[np.int64]
    left_out: dict[str, str] = field(default_factory=dict)
    people: Sequence[str] | None = None

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
