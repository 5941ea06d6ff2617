"""Pictures with a soft hair map: what the student learns from, and those of them that lie in folders of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
class NamedPicture:
    """A picture by its name, what reads it, and its file where it has one."""

    name: str
    read: Callable[[], Sample]
    picture: Path | None = None


@dataclass(frozen=True)
class HairFace:
    """One training picture: its file, its soft hair map, and its 19-class parsing map when there is one.

    fitted: maps of another size are brought to the picture's.
    """

    picture: Path
    label: Path
    parsing: Path | None = None
    fitted: bool = True

    @property
    def name(self) -> str:
        return self.picture.stem

    def read(self) -> Sample:
        """Raises ImageError for the picture, InvalidInputError for a map, naming the file."""
        image = read_image(self.picture)
        size = (image.shape[1], image.shape[0]) if self.fitted else None
        label = read_map(self.label, size, cv2.INTER_LINEAR)
        return image, label, None if self.parsing is None else read_map(self.parsing, size, cv2.INTER_NEAREST)


def read_files(pictures: Iterable[LabelledPicture]) -> dict[str, list[Path]]:
    """The files that are read of these pictures: "pictures", "label maps" and "parsing maps"; none of painted ones."""
    files: dict[str, list[Path]] = {"pictures": [], "label maps": [], "parsing maps": []}
    for picture in pictures:
        paths = (getattr(picture, name, None) for name in ("picture", "label", "parsing"))
        for paths_of_kind, path in zip(files.values(), paths, strict=True):
            if isinstance(path, Path):
                paths_of_kind.append(path)
    return files


def read_map(path: Path, size: tuple[int, int] | None, interpolation: int) -> NDArray[np.uint8]:
    """First channel of a label picture, uint8 [h,w], brought to size (width, height) where one is given.

    Raises InvalidInputError naming the file when it is missing, damaged, or not of 8 bits.
    """
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InvalidInputError(f"cannot read the label picture {path}: it is missing or damaged; make it again")
    if array.dtype != np.uint8:
        raise InvalidInputError(f"the label picture {path} has values of {array.dtype}: 8 bits are needed")
    if array.ndim == 3:
        array = array[..., 2 if array.shape[2] >= 3 else 0]  # OpenCV reads BGR: the first is the last
    if size is not None and array.shape[::-1] != size:
        array = cv2.resize(array, size, interpolation=interpolation)
    return np.ascontiguousarray(array, np.uint8)


def find_faces(folders: Sequence[Path]) -> list[HairFace]:
    """All labelled pictures of the folders, paired by name (never by listing order).

    Raises InvalidInputError if none.
    """
    return [HairFace(*files) for files in find_labels(folders, LABEL_LAYOUTS, "labelled picture", "hair map")]


def find_labels(
    folders: Sequence[Path], layouts: Sequence[str], what: str, kind: str
) -> list[tuple[Path, Path, Path | None]]:
    """Picture, its label and its 19-class map of all pictures that have a label at one of `layouts`; the first counts.

    Raises InvalidInputError, calling them `what` and the label `kind`, if there are none.
    """
    faces = []
    for folder in folders:
        for picture in list_images([folder]):
            names = {"stem": picture.stem, "number": picture.stem.removeprefix("face_")}
            *labels, parsing = (folder / layout.format(**names) for layout in (*layouts, PARSING_LAYOUT))
            label = next((path for path in labels if path != picture and path.is_file()), None)
            if label is not None:
                faces.append((picture, label, parsing if parsing.is_file() else None))
    if not faces:
        looked = " or ".join(layouts)
        raise InvalidInputError(f"no {what} in {', '.join(map(str, folders))}: each needs a {kind} at {looked}")
    return faces


def to_tensor_layout(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H,W,3] -> float32 [3,H,W] in [-1, 1], the student's input."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(127.5) - np.float32(1)
