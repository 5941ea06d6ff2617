"""Pictures with a soft hair map: what the student learns from, and those of them that lie in folders of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images, read_image

# Where the hair map of a picture may lie, relative to the picture's folder; {stem} is its name without suffix,
# {number} what follows "face_" (the documented layout, docs/spec/segmentation.md, section 1).
LABEL_LAYOUTS = ("hair_soft/{stem}.png", "parsing_hair_label_{number}.png")
PARSING_LAYOUT = "parsing19/{stem}.png"

# RGB [H,W,3], hair probability times 255 [H,W], 19-class ids [H,W] or None; all uint8 and of one size.
Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]


class LabelledPicture(Protocol):
    """A picture with its hair map, wherever both come from. Reading it twice gives the same."""

    @property
    def name(self) -> str: ...

    def read(self) -> Sample: ...


@dataclass(frozen=True)
class HairFace:
    """One training picture: its file, its soft hair map, and its 19-class parsing map when there is one."""

    picture: Path
    label: Path
    parsing: Path | None

    @property
    def name(self) -> str:
        return self.picture.stem

    def read(self) -> Sample:
        """Picture, hair map and classes, the maps brought to the picture's size."""
        image = read_image(self.picture)
        size = (image.shape[1], image.shape[0])
        label = read_map(self.label, size, cv2.INTER_LINEAR)
        parsing = None if self.parsing is None else read_map(self.parsing, size, cv2.INTER_NEAREST)
        return image, label, parsing


def read_map(path: Path, size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    """First channel of a label picture, brought to (width, height)."""
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InvalidInputError(f"cannot read the label picture {path}: make it again with the teacher")
    array = array if array.ndim == 2 else array[..., -1 if array.shape[2] == 3 else 0]
    return array if array.shape[::-1] == size else cv2.resize(array, size, interpolation=interpolation)


def find_faces(folders: Sequence[Path]) -> list[HairFace]:
    """All labelled pictures of the folders, paired by name (never by listing order).

    Raises InvalidInputError if none.
    """
    faces = []
    for folder in folders:
        for picture in list_images([folder]):
            number = picture.stem.removeprefix("face_")
            for layout in LABEL_LAYOUTS:
                label = folder / layout.format(stem=picture.stem, number=number)
                if label != picture and label.is_file():
                    parsing = folder / PARSING_LAYOUT.format(stem=picture.stem)
                    faces.append(HairFace(picture, label, parsing if parsing.is_file() else None))
                    break
    if not faces:
        looked = " or ".join(LABEL_LAYOUTS)
        raise InvalidInputError(
            f"no labelled picture in {', '.join(map(str, folders))}: each needs a hair map at {looked}"
        )
    return faces


def to_tensor_layout(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H,W,3] -> float32 [3,H,W] in [-1, 1], the student's input."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(127.5) - np.float32(1)
