"""Stage `parse`: pictures -> faces with class maps, overlays and soft hair labels
(docs/spec/segmentation.md, sections 1 to 4).

Four files a picture, number NNNNNN from the name of the source or its place among the sources:

    face_NNNNNN.png                    224x224 RGB, what the teacher saw
    parsing_NNNNNN.png                 class numbers 0..10
    parsing_visualization_NNNNNN.png   half picture, half class colours
    parsing_hair_label_NNNNNN.png      hair probability times 255

and parse.jsonl with one row a picture. The folder is a data folder of `ohlora train distill`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import encode_image, read_image
from ohlora.render.journal import Journal
from ohlora.training.data.parsing_classes import EyePoints, eyes_inside, visualize
from ohlora.training.data.portrait_faces import png
from ohlora.training.teachers.mtcnn import Detections, crop_box, detect, whole_frame
from ohlora.training.teachers.parse_sources import Numbered, number_sources, sha256_of, unchanged
from ohlora.training.teachers.protocol import DEVIATION, MEAN, Image, Teacher, normalized

INDEX = "parse.jsonl"
CROP, FULL_FRAME = "crop", "full-frame"
VARIANTS = (CROP, FULL_FRAME)
FACE, PARSING, OVERLAY, HAIR_LABEL = (
    "face_{:06d}.png",
    "parsing_{:06d}.png",
    "parsing_visualization_{:06d}.png",
    "parsing_hair_label_{:06d}.png",
)
PARSED, NO_FACE, UNREADABLE = "parsed", "no face", "unreadable"

FindFaces = Callable[[Image], Detections]
Row = dict[str, Any]


@dataclass(frozen=True)
class ParseSettings:
    """What decides the files. Raises InvalidInputError for an unknown variant.

    variant: "crop" (A: the largest face with its margin) or "full-frame" (B: the whole picture).
    exact_face: face_* is the resized picture itself; otherwise the documented round trip, up to 1 darker.
    """

    variant: str = CROP
    exact_face: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InvalidInputError(f"unknown variant '{self.variant}': choose one of {', '.join(VARIANTS)}")


@dataclass
class ParseResult:
    """Counts, and a row for each picture that could not be parsed."""

    pictures: int
    parsed: int = 0
    already_there: int = 0
    failures: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Cutout:
    """What the teacher is shown of a source, and what is known about it."""

    number: int
    image: Image
    eyes: EyePoints | None
    row: Row


def documented_face(image: Image) -> Image:
    """uint8 -> uint8 as upstream stores it: normalised and back in float32, then truncated. 0 or 1 lower.

    On the reference faces a fifth of the values lose 1; published property scores were computed on such pictures.
    """
    back = normalized(image) * np.array(DEVIATION, np.float32) + np.array(MEAN, np.float32)
    return (np.clip(back, 0, 1) * np.float32(255)).astype(np.uint8)


def hair_label(hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probability -> times 255, rounded half to even and saturated."""
    return np.clip(np.rint(hair * np.float32(255)), 0, 255).astype(np.uint8)


def parse_pictures(
    sources: Sequence[Path],
    out: Path,
    teacher: Teacher,
    settings: ParseSettings,
    *,
    batch: int = 8,
    restart: bool = False,
    find_faces: FindFaces = detect,
    started: Callable[[int, int], None] = lambda pending, done: None,
    advance: Callable[[int], None] = lambda count: None,
) -> ParseResult:
    """Label every source that is not labelled yet. The same call goes on after a stop.

    started: called with how many are to do and are there. advance: called with how many more are done. A picture that
    cannot be read or shows no face is reported and tried again next time; it has no files.

    Raises InvalidInputError for two sources of one number and a folder of other settings, OutputError when the folder
    cannot be written.
    """
    request = {
        "command": "train parse",
        "variant": settings.variant,
        "exact_face": settings.exact_face,
        "teacher": teacher.name,
        "weights": teacher.weights,
    }
    with Journal.open(out, request, restart=restart) as journal:
        known = dict(journal.finished)
        numbered = number_sources(sources, known)
        pending = [entry for entry in numbered if not is_done(entry, known, journal)]
        result = ParseResult(len(numbered), already_there=len(numbered) - len(pending))
        started(len(pending), result.already_there)
        try:
            for start in range(0, len(pending), batch):
                part = pending[start : start + batch]
                cutouts = []
                for entry in part:
                    prepared = prepare(entry, settings, find_faces)
                    if isinstance(prepared, Cutout):
                        cutouts.append(prepared)
                    else:
                        result.failures.append(prepared)
                        journal.record_failure(entry.number, prepared["error"])
                if cutouts:
                    write_labels(out, cutouts, teacher, settings, journal)
                result.parsed += len(cutouts)
                advance(len(part))
        finally:
            write_index(out, journal, result.failures)
    return result


def is_done(entry: Numbered, known: Mapping[int, Row], journal: Journal) -> bool:
    """Its four files are there, and made from the source as it is now."""
    row = known.get(entry.number)
    if row is None or not unchanged(entry, row):
        return False
    return all(journal.verify({"file_name": name, "bytes": size}) for name, size in row["files"].items())


def prepare(entry: Numbered, settings: ParseSettings, find_faces: FindFaces) -> Cutout | Row:
    """Read a source and cut out what the teacher is to see; an index row saying what is wrong when that fails."""
    row: Row = {"number": entry.number, "source": str(entry.source)}
    try:
        image = read_image(entry.source)
        row["sha256"] = sha256_of(entry.source)
    except ImageError as error:
        return {**row, "status": UNREADABLE, "error": str(error)}
    row |= {"status": PARSED, "variant": settings.variant}
    if settings.variant == FULL_FRAME:
        height, width = image.shape[:2]
        return Cutout(entry.number, image, None, row | {"faces": None, "crop": [0, 0, width, height]})
    found = find_faces(image)
    try:
        if not len(found):
            raise ImageError(f"no face found in {entry.source}: leave it out, or take whole pictures (full-frame)")
        left, top, right, bottom = crop_box(found.boxes[0], image.shape[1], image.shape[0])
    except ImageError as error:
        return {**row, "status": NO_FACE, "error": str(error)}
    eyes = eyes_inside(found.landmarks[0], (left, top), (1, 1))
    cut = np.ascontiguousarray(image[top:bottom, left:right])
    return Cutout(entry.number, cut, eyes, row | {"faces": len(found), "crop": [left, top, right, bottom]})


def write_labels(
    out: Path, cutouts: Sequence[Cutout], teacher: Teacher, settings: ParseSettings, journal: Journal
) -> None:
    """Run the teacher on one batch and write its files; a picture is recorded once all of its own are in place."""
    # Without a detection of ours a teacher that needs the eyes looks itself.
    eyes = [cutout.eyes for cutout in cutouts] if settings.variant == CROP else None
    labels = teacher.labels([cutout.image for cutout in cutouts], eyes)
    for cutout, parsing, hair in zip(cutouts, labels.parsing, labels.hair, strict=True):
        face = whole_frame(cutout.image)
        face = face if settings.exact_face else documented_face(face)
        encoded = {
            FACE: encode_image(face, "png"),
            PARSING: png(parsing),
            OVERLAY: encode_image(visualize(face, parsing), "png"),
            HAIR_LABEL: png(hair_label(hair)),
        }
        files = {name.format(cutout.number): data for name, data in encoded.items()}
        for name, data in files.items():
            write_bytes(out / name, data)
        row = {
            **cutout.row,
            "teacher": teacher.name,
            "weights": teacher.weights,
            "files": {name: len(data) for name, data in files.items()},
        }
        journal.record(cutout.number, row)


def write_index(out: Path, journal: Journal, failures: Sequence[Row]) -> None:
    """parse.jsonl: every parsed picture of the folder, and this run's failures, by number."""
    rows = {**{row["number"]: row for row in failures}, **journal.finished}
    lines = [json.dumps(rows[number]) + "\n" for number in sorted(rows)]
    write_bytes(out / INDEX, "".join(lines).encode())
