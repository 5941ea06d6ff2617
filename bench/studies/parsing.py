"""Face parsing: ms per picture of the student's engine beside both teachers, and how good the student is, in one run.

    python -m ohlora.bench.studies.parsing --student runs/parsing/student.safetensors --data faces --data more-faces \
        --bisenet 79999_iter.pth --facexformer model.pt --out bench/results/parsing.json

Timed is everything from a decoded picture to its class map, networks loaded once: the student through its compiled
engine, the teachers in PyTorch. Teachers without a weights file get random weights, which take the same time. Rounds
alternate between all of them, so that a disturbance of the machine meets each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import quartiles, seconds_of
from ohlora.bundle import Bundle
from ohlora.engines import Engine, open_engine, usable_cores
from ohlora.export.graphs.student import export_student
from ohlora.photos.segmentation import parse_faces
from ohlora.training.data.hair_faces import LabelledPicture
from ohlora.training.data.portrait_faces import TEST_SEEDS, PortraitFace
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.students.parsing.distill import class_shares
from ohlora.training.students.parsing.faces import find_parsed_faces
from ohlora.training.students.parsing.metrics import ParsingMetrics
from ohlora.training.students.recipes import ParsingConfig
from ohlora.training.students.sources import make_split
from ohlora.training.teachers.bisenet import BiSeNetTeacher
from ohlora.training.teachers.facexformer import FaceXFormerTeacher
from ohlora.training.teachers.registry import Teacher, load_teacher
from ohlora.training.weights.student import load_student

Parse = Callable[[Sequence[Rgb]], Any]
WARM_UP = 2


def open_parser(source: str, threads: int, folder: Path) -> Engine:
    """The engine of a bundle's face parser, or of a student's weights file, exported into `folder` first."""
    if Path(source).suffix != ".safetensors":
        return Bundle.open(source).parsing_engine(threads=threads)
    export_student(load_student(Path(source), outputs=None), folder / "parsing.onnx")
    return open_engine(folder / "parsing.onnx", threads=threads)


def open_teacher(kind: str, weights: Path | None) -> Teacher:
    """A teacher with published or random weights."""
    if weights is not None:
        return load_teacher(weights, kind)
    torch.manual_seed(0)
    return BiSeNetTeacher(BiSeNet()) if kind == BiSeNetTeacher.name else FaceXFormerTeacher(FaceXFormer().eval())


def parse_with(teacher: Teacher, images: Sequence[Rgb]) -> NDArray[np.int64]:
    """Class ids of the teacher's own classes, at its own size."""
    return np.asarray(teacher.parse(images).argmax(1))


def time_together(parsers: dict[str, Parse], images: Sequence[Rgb], batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per picture of each parser: median and quartiles over alternating rounds of one batch."""
    chosen = [images[i % len(images)] for i in range(batch)]
    times = seconds_of({name: partial(parse, chosen) for name, parse in parsers.items()}, rounds, warm=WARM_UP)
    rows = {}
    for name, taken in times.items():
        low, middle, high = (round(1e3 * value / batch, 2) for value in quartiles(taken))
        rows[name] = {"ms_per_picture": middle, "quartiles_ms": [low, high]}
    return rows


def held_out(data: list[Path], holdout: float, seed: int) -> list[LabelledPicture]:
    """The pictures of people that `train parsing` holds out with the same folders, share and seed."""
    faces = find_parsed_faces(data)
    return [faces[i] for i in make_split(faces, ParsingConfig(holdout=holdout, seed=seed)).test]


def accuracy(engine: Engine, faces: Sequence[LabelledPicture]) -> dict[str, float]:
    """Figures of the engine's classes against the labels, per class and mean."""
    metrics = ParsingMetrics()
    for face in faces:
        image, classes, _ = face.read()
        truth = class_shares(classes, SIZE).argmax(0).astype(np.uint8)
        metrics.add(parse_faces(engine, [image])[0], truth)
    return {name: round(value, 4) for name, value in metrics.summary().items()}


@study(
    student=".safetensors of `train parsing`, or a bundle with a parser",
    data="labelled folders to measure on",
    bisenet="published weights; random ones without",
    facexformer="published weights; random ones without",
)
def main(
    student: str,
    data: list[Path] | None = None,
    holdout: float = ParsingConfig.holdout,
    split_seed: int = ParsingConfig.seed,
    bisenet: Path | None = None,
    facexformer: Path | None = None,
    batches: list[int] = [1, 8],  # noqa: B006 - read only
    rounds: int = 9,
    threads: int = usable_cores(),
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    weights = {FaceXFormerTeacher.name: facexformer, BiSeNetTeacher.name: bisenet}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ohlora-bench-")))
        engine = stack.enter_context(closing(open_parser(student, threads, folder)))
        ours = f"student ({engine.backend} {engine.precision})"
        parsers: dict[str, Parse] = {ours: partial(parse_faces, engine)}
        parsers |= {kind: partial(parse_with, open_teacher(kind, file)) for kind, file in weights.items()}
        images = [PortraitFace(seed).read()[0] for seed in TEST_SEEDS[:8]]
        result: dict[str, Any] = {
            "threads": threads,
            "random_weights": [kind for kind, file in weights.items() if not file],
            "ms": {f"batch {count}": time_together(parsers, images, count, rounds) for count in batches},
        }
        for rows in result["ms"].values():
            for kind in weights:
                rows[kind]["times_student"] = round(rows[kind]["ms_per_picture"] / rows[ours]["ms_per_picture"], 1)
        if data:
            result["held_out"] = accuracy(engine, held_out(data, holdout, split_seed))
    return result


if __name__ == "__main__":
    main()
