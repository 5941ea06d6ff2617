"""Pictures with a class map of the face: real ones from folders, drawn ones with their exact classes.

A sample is (RGB, class ids 0..10 or 0..12, 19-class map or None); the last tells the background from neck and clothes,
which the others do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import cv2

from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data.hair_faces import (
    PARSING_LAYOUT,
    HairFace,
    LabelledPicture,
    NamedPicture,
    Sample,
    find_labels,
    read_map,
)
from ohlora.training.data.parsing_classes import NAMES11, map_19_to_11
from ohlora.training.data.portrait_faces import PortraitFace

DRAWN_LAYOUT = "parsing11/{stem}.png"
# Where the class map of a picture may lie; {stem} is the picture's name without suffix, {number} what follows "face_"
# (the documented layout, docs/spec/segmentation.md, section 1). The 19-class map comes last: it has to be converted.
CLASS_LAYOUTS = (DRAWN_LAYOUT, "parsing_{number}.png", PARSING_LAYOUT)


@dataclass(frozen=True)
class ParsedFace(HairFace):
    """A picture file with its class map as label; that may be the 19-class map, where there is one.

    classes: 11, or 13 with glasses and hats, which only 19-class maps know.
    """

    classes: int = len(NAMES11)

    def read(self) -> Sample:
        """Picture, class ids, 19-class ids or None; the maps brought to the picture's size.

        Raises InvalidInputError for a map with other ids.
        """
        image = read_image(self.picture)
        size = (image.shape[1], image.shape[0])
        parsing = None if self.parsing is None else read_map(self.parsing, size, cv2.INTER_NEAREST)
        if self.label == self.parsing and parsing is not None:
            try:
                return image, map_19_to_11(parsing, classes=self.classes), parsing
            except ValueError as error:
                raise InvalidInputError(f"{self.label}: {error}") from error
        classes = read_map(self.label, size, cv2.INTER_NEAREST)
        if classes.max(initial=0) >= self.classes:
            raise InvalidInputError(
                f"{self.label} holds class {classes.max()}: its ids must be 0 to {self.classes - 1}"
            )
        return image, classes, parsing


def find_parsed_faces(folders: Sequence[Path], classes: int = len(NAMES11)) -> list[ParsedFace]:
    """All pictures of the folders that have a class map, paired by name, in the order of `find_faces`.

    classes: as of `ParsedFace`; with 13 the 19-class map counts where there is one.
    Raises InvalidInputError if there are none.
    """
    found = find_labels(folders, CLASS_LAYOUTS, "parsed picture", "class map")
    named = partial(ParsedFace, classes=classes)
    if classes == len(NAMES11):
        return [named(*files) for files in found]
    return [named(picture, parsing or label, parsing) for picture, label, parsing in found]


def with_classes(picture: LabelledPicture) -> LabelledPicture:
    """A drawn picture with its classes in place of its hair map."""
    if isinstance(picture, HairFace):
        return ParsedFace(picture.picture, picture.picture.parent / DRAWN_LAYOUT.format(stem=picture.name), None)
    return NamedPicture(picture.name, cast(PortraitFace, picture).read_classes)
