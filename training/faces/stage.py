"""Stage `faces-set`: a data folder of `train distill` and `train parsing`, its labels by a teacher at its best.

    face_NNNNNN.jpg              RGB, a square of one of the recipe's sizes
    parsing19/face_NNNNNN.png    the teacher's 19 class ids
    hair_soft/face_NNNNNN.png    hair probability times 255
    metadata.jsonl               a row a face: where it is from, how it is shown, what its map says
    faces.json                   how many of each kind, hair fraction, lightness; faces.jpg shows the first ones

The teacher sees the whole face at 512 px and its mirror image; what is stored is cut from that. The same command
resumes; a set may be divided into shards, folders that are made at the same time and given to one training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ohlora.base.atomic import make_folder, write_bytes, write_json
from ohlora.base.types import Rgb
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.photos.face_alignment import cut_out
from ohlora.render.journal import Journal
from ohlora.training.data.portrait_faces import png
from ohlora.training.faces.kinds import RARE, figures_of, kinds_of
from ohlora.training.faces.recipe import FacesRecipe
from ohlora.training.faces.sources import FaceSource, Row, Shown, cut_classes
from ohlora.training.nets.bisenet import HAIR
from ohlora.training.teachers.bisenet import BiSeNetTeacher

REPORT, SHEET = "faces.json", "faces.jpg"
SHEET_FACES = 48
TENTHS = np.arange(0, 1.1, 0.1)


@dataclass
class FacesResult:
    """faces: of this shard. labeled: by this run. report: content of faces.json."""

    faces: int
    labeled: int = 0
    failures: list[Row] = field(default_factory=list)
    report: Row = field(default_factory=dict)


def make_faces(
    source: FaceSource,
    teacher: BiSeNetTeacher,
    out: Path,
    *,
    shard: tuple[int, int] = (1, 1),
    precision: str = "fp32",
    batch: int = 4,
    restart: bool = False,
    advance: Callable[[int, int], None] = lambda done, faces: None,
) -> FacesResult:
    """Label the faces of a shard that are not labeled yet. The same call resumes.

    shard: (K, N): of every N faces of each round the K-th; a shard looks for rare kinds among its own. precision: of
    the teacher. advance: called with how many faces are done, of how many. A face that cannot be shown is reported and
    tried again next time.
    Raises InvalidInputError for a folder of another set, OutputError when the folder cannot be written.
    """
    request = {
        "command": "train faces-set",
        "recipe": asdict(source.recipe),
        "source": source.identity,
        "shard": list(shard),
        "teacher": teacher.weights,
        "precision": precision,
    }
    for part in (out, out / "parsing19", out / "hair_soft"):
        make_folder(part)
    with Journal.open(out, request, restart=restart) as journal:
        rounds = [numbers[shard[0] - 1 :: shard[1]] for numbers in source.rounds({})]
        result, total = FacesResult(sum(map(len, rounds))), sum(map(len, rounds))
        done = 0
        for numbers in rounds:
            pending = [number for number in numbers if not _is_done(number, out, journal)]
            done += len(numbers) - len(pending)
            advance(done, total)
            queue = iter(pending)
            while some := list(islice(queue, batch)):
                shown = source.show(some, journal.finished)
                faces = [face for face in shown if isinstance(face, Shown)]
                for row in shown:
                    if not isinstance(row, Shown):
                        result.failures.append(row)
                        journal.record_failure(row["number"], row["error"])
                if faces:
                    _label(faces, teacher, precision, source.recipe, out, journal)
                result.labeled += len(faces)
                done += len(some)
                advance(done, total)
        journal.finish()
        rows = list(journal.finished.values())
        result.report = {**report(rows, source.recipe), "failed": len(result.failures), "request": request}
        write_json(out / REPORT, result.report)
        if rows:
            write_bytes(out / SHEET, encode_image(_sheet(out, rows[:SHEET_FACES]), "jpeg", 90))
    return result


def _is_done(number: int, out: Path, journal: Journal) -> bool:
    row = journal.finished.get(number)
    if row is None or not journal.verify(row):
        return False
    return all((out / name).is_file() for name in _files(number)[1:])


def _files(number: int) -> tuple[str, str, str]:
    name = f"face_{number:06d}"
    return f"{name}.jpg", f"parsing19/{name}.png", f"hair_soft/{name}.png"


def _label(
    faces: Sequence[Shown], teacher: BiSeNetTeacher, precision: str, recipe: FacesRecipe, out: Path, journal: Journal
) -> None:
    """Write the files of some faces, the image last; a face is recorded once its own are in place."""
    for face, probabilities in zip(
        faces, teacher.best_probabilities([face.image for face in faces], precision), strict=True
    ):
        frame = face.frame
        height, width = face.image.shape[:2]
        classes = probabilities.argmax(0).astype(np.uint8)
        scale = classes.shape[1] / width, classes.shape[0] / height
        image = cut_out(face.image, frame, face.side, face.side)
        inner = frame if scale == (1, 1) else frame.scaled(scale[0])
        parsing = cut_classes(classes, inner, face.side)
        soft = np.rint(probabilities[HAIR] * np.float32(255)).astype(np.uint8)
        hair = cut_out(np.repeat(soft[..., None], 3, axis=2), inner, face.side, face.side)[..., 0]
        names = _files(face.number)
        data = encode_image(image, "jpeg", recipe.quality), png(parsing), png(np.ascontiguousarray(hair))
        for name, content in reversed(list(zip(names, data, strict=True))):
            write_bytes(out / name, content)
        figures = figures_of(image, parsing)
        shown = {name: None if value is None else round(value, 4) for name, value in figures.items()}
        about = {"file_name": names[0], "bytes": len(data[0]), **face.facts, "side": face.side}
        journal.record(face.number, {**about, **shown, "kinds": kinds_of(figures)})


def report(rows: Sequence[Row], recipe: FacesRecipe) -> Row:
    """How many faces there are of each kind, in each view, and in each tenth of hair fraction and lightness."""

    def tenths(name: str, scale: float) -> list[int]:
        values = [row[name] / scale for row in rows if row[name] is not None]
        return [int(count) for count in np.histogram(values, TENTHS)[0]]

    views = sorted({row["view"] for row in rows})
    return {
        "faces": len(rows),
        "kinds": {kind: sum(kind in row["kinds"] for row in rows) for kind in RARE},
        "no rare kind": sum(not row["kinds"] for row in rows),
        "drawn_near_a_rare_one": sum(bool(row.get("near")) for row in rows),
        "views": {view: sum(row["view"] == view for row in rows) for view in views},
        "hair_fraction_tenths": tenths("hair", 1),
        "hair_lightness_tenths": tenths("hair_lightness", 100),
        "skin_lightness_tenths": tenths("skin_lightness", 100),
    }


def _sheet(out: Path, rows: Sequence[Row]) -> Rgb:
    images = (read_image(out / row["file_name"]) for row in rows)
    return contact_sheet(images, cell=160, captions=[", ".join(row["kinds"]) or "-" for row in rows])
