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
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.base.reading import why_not
from ohlora.base.types import Rgb, Variant, check_choice
from ohlora.bundle.files import file_sha256
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import encode_image, read_image
from ohlora.photos.face_cascade import Detections
from ohlora.render.journal import Journal
from ohlora.scores.sources import INDEX, crop_box, squeezed
from ohlora.training.data.parsing_classes import EyePoints, eyes_inside, visualize
from ohlora.training.data.portrait_faces import png
from ohlora.training.teachers.mtcnn import detect
from ohlora.training.teachers.protocol import DEVIATION, MEAN, Labeller, normalized

CROP, FULL_FRAME = get_args(Variant)
FACE, PARSING, OVERLAY, HAIR_LABEL = (
    f"{kind}_{{:06d}}.png" for kind in ("face", "parsing", "parsing_visualization", "parsing_hair_label")
)
PARSED, NO_FACE, UNREADABLE = "parsed", "no face", "unreadable"

FindFaces = Callable[[Rgb], Detections]
Row = dict[str, Any]  # of the index: "number", "source", "sha256" ...


@dataclass(frozen=True)
class ParseSettings:
    """What decides the files. Raises InvalidInputError for an unknown variant.

    variant: "crop" (A: the largest face with its margin) or "full-frame" (B: the whole picture).
    exact_face: face_* is the resized picture itself; otherwise the documented round trip, up to 1 darker.
    """

    variant: str = CROP
    exact_face: bool = False

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, get_args(Variant))


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

    image: Rgb
    eyes: EyePoints | None
    row: Row


def parse_pictures(
    sources: Sequence[Path],
    out: Path,
    teacher: Labeller,
    settings: ParseSettings,
    *,
    batch: int = 8,
    restart: bool = False,
    find_faces: FindFaces = detect,
    started: Callable[[int, int], None] = lambda pending, done: None,
    advance: Callable[[int], None] = lambda count: None,
) -> ParseResult:
    """Label every source that is not labelled yet. The same call resumes.

    started: called with how many are to do and are there. advance: called with how many more are done. An image that
    cannot be read or shows no face is reported and tried again next time; it has no files.

    Raises InvalidInputError for two sources of one number and a folder of other settings, OutputError when the folder
    cannot be written.
    """
    request = {"command": "train parse", **asdict(settings), "teacher": teacher.name, "weights": teacher.weights}
    with Journal.open(out, request, restart=restart) as journal:
        known = dict(journal.finished)
        numbered = number_sources(sources, known)
        pending = [entry for entry in numbered.items() if not is_done(*entry, known, journal)]
        result = ParseResult(len(numbered), already_there=len(numbered) - len(pending))
        started(len(pending), result.already_there)
        try:
            for start in range(0, len(pending), batch):
                part = pending[start : start + batch]
                cutouts = []
                for entry in part:
                    prepared = prepare(*entry, settings.variant, find_faces)
                    if isinstance(prepared, Cutout):
                        cutouts.append(prepared)
                    else:
                        result.failures.append(prepared)
                        journal.record_failure(prepared["number"], prepared["error"])
                if cutouts:
                    write_labels(out, cutouts, teacher, settings, journal)
                result.parsed += len(cutouts)
                advance(len(part))
        finally:
            # Every parsed image of the folder, and this run's failures, by number.
            rows = {**{row["number"]: row for row in result.failures}, **journal.finished}
            lines = [json.dumps(rows[number]) + "\n" for number in sorted(rows)]
            write_bytes(out / INDEX, "".join(lines).encode())
    return result


def number_sources(sources: Sequence[Path], known: Mapping[int, Row] | None = None) -> dict[int, Path]:
    """Number -> source in the documented layout, in the order of numbers.

    A name without suffix that is a number (000012.jpg) keeps it. The others get the smallest free numbers, in the order
    of `sources`. known: index rows of earlier runs by number; a source that is among them keeps its number, and no
    other gets it. Raises InvalidInputError naming two sources of the same number, in this run or from an earlier one.
    """
    known = known or {}
    taken: dict[int, Path] = {}
    unnumbered: list[Path] = []
    for source in sources:
        if not (source.stem.isascii() and source.stem.isdigit()):
            unnumbered.append(source)
        elif (other := taken.setdefault(int(source.stem), source)) is not source:
            raise InvalidInputError(
                f"{other} and {source} would both be number {int(source.stem)}: rename one or give each its own --out"
            )
    earlier = {row["source"]: number for number, row in known.items()}
    free = (number for number in count() if number not in known and number not in taken)
    for source in unnumbered:
        number = earlier.get(str(source))
        if number is None or number in taken:
            number = next(free)
        taken[number] = source
    return dict(sorted(taken.items()))


def is_done(number: int, source: Path, known: Mapping[int, Row], journal: Journal) -> bool:
    """Whether the four files of `number` are there, and made from the source as it is now.

    Raises InvalidInputError when they were made from another image elsewhere: they would be lost.
    """
    row = known.get(number)
    if row is None:
        return False
    try:
        same = sha256_of(source) == row["sha256"]
    except ImageError:
        same = False  # is reported when its turn comes
    if not same and row["source"] != str(source):
        raise InvalidInputError(
            f"number {number} belongs to {row['source']} in this folder, {source} would replace it: choose "
            "another --out, or pass --restart to begin again"
        )
    return same and all(journal.verify({"file_name": name, "bytes": size}) for name, size in row["files"].items())


def sha256_of(source: Path) -> str:
    """Raises ImageError for a file that cannot be read."""
    try:
        return file_sha256(source)
    except OSError as error:
        raise ImageError(f"cannot read {source}: {why_not(error)}") from error


def prepare(number: int, source: Path, variant: str, find_faces: FindFaces) -> Cutout | Row:
    """Read a source and cut out what the teacher is to see; an index row saying what is wrong when that fails."""
    row: Row = {"number": number, "source": str(source)}
    faces, eyes = None, None
    try:
        image = read_image(source)
        row |= {"sha256": sha256_of(source), "status": NO_FACE, "variant": variant}
        box = (0, 0, image.shape[1], image.shape[0])
        if variant == CROP:
            detections = find_faces(image)
            faces = len(detections)
            if not faces:
                raise ImageError(f"no face found in {source}: leave it out, or take whole pictures (full-frame)")
            box = crop_box(detections.boxes[0], box[2], box[3], str(source))
            eyes = eyes_inside(detections.landmarks[0], box[:2], (1, 1))
    except ImageError as error:
        return {**row, "status": row.get("status", UNREADABLE), "error": str(error)}
    cut = np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]])
    return Cutout(cut, eyes, row | {"status": PARSED, "faces": faces, "crop": list(box)})


def write_labels(
    out: Path, cutouts: Sequence[Cutout], teacher: Labeller, settings: ParseSettings, journal: Journal
) -> None:
    """Run the teacher on one batch and write its files; an image is recorded once all of its own are in place."""
    # Without a detection of ours a teacher that needs the eyes looks itself.
    eyes = [cutout.eyes for cutout in cutouts] if settings.variant == CROP else None
    labels = teacher.labels([cutout.image for cutout in cutouts], eyes)
    for cutout, parsing, hair in zip(cutouts, labels.parsing, labels.hair, strict=True):
        face = squeezed(cutout.image)
        face = face if settings.exact_face else documented_face(face)
        number = cutout.row["number"]
        files = {
            FACE: encode_image(face, "png"),
            PARSING: png(parsing),
            OVERLAY: encode_image(visualize(face, parsing), "png"),
            HAIR_LABEL: png(hair_label(hair)),
        }
        for name, data in files.items():
            write_bytes(out / name.format(number), data)
        made_by = {"teacher": teacher.name, "weights": teacher.weights}
        sizes = {name.format(number): len(data) for name, data in files.items()}
        journal.record(number, {**cutout.row, **made_by, "files": sizes})


def documented_face(image: Rgb) -> Rgb:
    """uint8 -> uint8 as upstream stores it: normalized and back in float32, then truncated. 0 or 1 lower.

    On the reference faces a fifth of the values lose 1; published property scores were computed on such pictures.
    """
    back = normalized(image) * np.array(DEVIATION, np.float32) + np.array(MEAN, np.float32)
    return (np.clip(back, 0, 1) * np.float32(255)).astype(np.uint8)


def hair_label(hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probability -> times 255, rounded half to even and saturated."""
    levels: NDArray[np.uint8] = np.clip(np.rint(hair * np.float32(255)), 0, 255).astype(np.uint8)
    return levels
