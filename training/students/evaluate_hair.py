"""How well a student finds hair: on labelled folders, on unseen portraits, on pictures of a demo generator.

Everything goes through the same steps as in use: the picture is fitted into 224x224 and the map is compared with the
label brought to the map's size.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes, write_json
from ohlora.base.types import Rgb
from ohlora.bundle import Bundle, file_sha256
from ohlora.errors import InvalidInputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.photos.segmentation import find_hair, resize_area, student_maps
from ohlora.training.data.generated_faces import PortraitGenerator, generate, require_following
from ohlora.training.data.hair_faces import LabelledPicture, find_faces
from ohlora.training.data.portrait_faces import RESOLUTION, TEST_SEEDS, PortraitFace, check_seeds, hair_bytes
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.metrics import HairMetrics
from ohlora.training.students.recipes import DistillConfig
from ohlora.training.students.report import SHOWN, overlay
from ohlora.training.students.sources import make_split
from ohlora.training.weights.student import load_student

BATCH = 8
TRUTH, TEACHER = "truth", "teacher"

# RGB pictures of one batch -> hair maps float32 [h,w] in [0,1], the longer side 224
FindHair = Callable[[Sequence[Rgb]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Example:
    """A picture and what is known of its hair: maps times 255 by where they come from ("truth", "teacher")."""

    name: str
    image: Rgb
    labels: Mapping[str, Rgb]


@dataclass(frozen=True)
class PictureSet:
    """Pictures to measure on, made as they are asked for. about: what they are, for the report."""

    name: str
    size: int
    examples: Callable[[], Iterator[Example]]
    about: dict[str, Any] = field(default_factory=dict)


# --- students --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def run_student(model: EffiSegNet, image: Rgb) -> dict[str, NDArray[np.float32]]:
    """What a compiled hair engine does: image uint8 [N,224,224,3] -> {"hair": float32 [N,224,224]}."""
    tensor = torch.from_numpy(image).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    return {"hair": model(tensor)[:, 0].numpy()}


def open_student(source: str | Path) -> tuple[FindHair, dict[str, Any]]:
    """A student's .safetensors or a bundle with a hair finder -> (how it finds hair, what it is).

    Raises CheckpointError, BundleError or EngineError naming the file.
    """
    path = Path(source)
    if path.suffix == ".safetensors":
        model = load_student(path).to(memory_format=torch.channels_last)
        about = {"student": path.name, "sha256": file_sha256(path), "runs": "torch", "encoder": model.encoder_name}
        return partial(student_maps, partial(run_student, model), output="hair"), about
    bundle = Bundle.open(source)
    engine = bundle.hair_engine()
    about = {"student": f"bundle {bundle.name}", "sha256": bundle.engine_hashes["hair"]}
    return partial(find_hair, engine), {**about, "runs": f"{engine.backend} {engine.precision}"}


# --- test sets -------------------------------------------------------------------------------------------------------


def folder_set(data: Sequence[Path], holdout: float = 0.0, seed: int = DistillConfig.seed) -> PictureSet:
    """Labelled pictures of folders; with `holdout`, only the people that `ohlora train distill` holds out with the same
    folders, share and seed. Raises InvalidInputError for unusable folders.
    """
    faces = find_faces(data)
    if holdout > 0:
        faces = [faces[i] for i in make_split(faces, DistillConfig(holdout=holdout, seed=seed)).test]
    about = {"folders": [folder.name for folder in data], "holdout": holdout, "split_seed": seed if holdout else None}
    return PictureSet("held-out people" if holdout else "pictures", len(faces), lambda: read_all(faces), about)


def portrait_set(count: int, first_seed: int = TEST_SEEDS.start, resolution: int = RESOLUTION) -> PictureSet:
    """Portraits of seeds that no recipe trains on, with their truth."""
    faces = [PortraitFace(seed, resolution) for seed in check_seeds(first_seed, count)]
    about = {"first_seed": first_seed, "resolution": resolution}
    return PictureSet("portraits", count, lambda: read_all(faces), about)


def read_all(faces: Sequence[LabelledPicture]) -> Iterator[Example]:
    for face in faces:
        image, label, _ = face.read()
        yield Example(face.name, image, {TRUTH: label})


def generated_set(generator: PortraitGenerator, count: int, first_seed: int = TEST_SEEDS.start) -> PictureSet:
    """A demo generator's pictures, with the truth of the portraits of the same latents.

    Raises InvalidInputError for a generator that does not draw them.
    """
    seeds = check_seeds(first_seed, count)
    follows = require_following(generator, first_seed)

    def examples() -> Iterator[Example]:
        for seed, image, hair, _ in generate(generator, seeds, seeds):
            yield Example(f"seed{seed:06d}", image, {TRUTH: hair_bytes(hair)})

    about = {
        "generator_sha256": generator.identity,
        "first_seed": first_seed,
        "resolution": generator.resolution,
        # Of the difference to the own portrait as a share of that to others': how true the truth is here.
        "difference_to_own_portrait": round(follows, 4),
    }
    return PictureSet("generated", count, examples, about)


def with_teacher(tests: PictureSet, hair: Callable[[Rgb], NDArray[np.float32]]) -> PictureSet:
    """The same pictures, also labelled by a teacher: uint8 RGB [H,W,3] -> hair probability float32 [h,w] in [0,1]."""

    def examples() -> Iterator[Example]:
        for example in tests.examples():
            label = hair_bytes(hair(example.image))
            yield Example(example.name, example.image, {**example.labels, TEACHER: label})

    return replace(tests, examples=examples)


def shares(label: Rgb) -> NDArray[np.float32]:
    """Hair times 255 -> [0,1]."""
    return np.divide(label, 255, dtype=np.float32)


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """Figures against one kind of label, and the worst faces: minus IoU, number, name, overlay."""

    metrics: HairMetrics = field(default_factory=HairMetrics)
    names: list[str] = field(default_factory=list)
    worst: list[tuple[float, int, str, Rgb]] = field(default_factory=list)

    def add(self, name: str, image: Rgb, hair: NDArray[np.float32], label: Rgb) -> None:
        size = (hair.shape[0], hair.shape[1])
        small = resize_area(label, size)
        self.metrics.add(hair, shares(small))
        iou = float(HairMetrics([self.metrics.counts[-1]]).per_face_iou()[0])
        # A heap whose top is the best of the worst: that is what falls out.
        heapq.heappush(self.worst, (-iou, len(self.names), name, overlay(resize_area(image, size), small, hair)))
        self.names.append(name)
        if len(self.worst) > SHOWN:
            heapq.heappop(self.worst)

    def report(self) -> dict[str, Any]:
        """Figures of `HairMetrics.summary`, the worst faces, and the IoU of every face."""
        faces = dict(zip(self.names, self.metrics.per_face_iou().round(4).tolist(), strict=True))
        worst = {name: faces[name] for *_, name, _ in self.in_order()[:8]}
        return {**self.metrics.summary(), "worst": worst, "per_face": faces}

    def in_order(self) -> list[tuple[float, int, str, Rgb]]:
        return sorted(self.worst, key=lambda entry: (-entry[0], entry[1]))

    def sheet(self) -> bytes:
        """The worst faces as JPEG."""
        entries = self.in_order()
        captions = [f"{-negative:.3f} {name}" for negative, _, name, _ in entries]
        tiles = [tile for *_, tile in entries]
        return encode_image(contact_sheet(tiles, cell=SIZE, captions=captions), "jpeg", 92)


def evaluate(
    find: FindHair, tests: PictureSet, advance: Callable[[int], None] = lambda count: None
) -> dict[str, Measured]:
    """Run a student over a test set -> figures by kind of label. Memory does not grow with the set.

    Where both are known, "teacher against truth" says how far the two labels agree. advance: called with the number
    of pictures done. Raises ImageError for a picture that cannot be read.
    """
    results: dict[str, Measured] = {}
    examples = tests.examples()
    while batch := list(islice(examples, BATCH)):
        for example, hair in zip(batch, find([example.image for example in batch]), strict=True):
            pairs = {kind: (hair, label) for kind, label in example.labels.items()}
            if {TRUTH, TEACHER} <= set(pairs):
                guess = shares(resize_area(example.labels[TEACHER], (hair.shape[0], hair.shape[1])))
                pairs["teacher against truth"] = guess, example.labels[TRUTH]
            for kind, (found, label) in pairs.items():
                results.setdefault(kind, Measured()).add(example.name, example.image, found, label)
        advance(len(batch))
    if not results:
        raise InvalidInputError(f"nothing to measure on: the test set '{tests.name}' is empty")
    return results


def evaluate_all(
    find: FindHair,
    about: dict[str, Any],
    sets: Sequence[PictureSet],
    out: Path | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Evaluate on several test sets; returns {"student": ..., "sets": {row: figures}}.

    With `out`, also writes evaluation.json, evaluation.md and worst_ROW.jpg (the SHOWN worst faces as the documented
    overlays: sky blue agrees, green is too much, blue is missed).
    """
    result: dict[str, Any] = {**about, "sets": {}}
    sheets: dict[str, Measured] = {}
    for tests in sets:
        for kind, measured in evaluate(find, tests, advance).items():
            name = tests.name if kind == TRUTH else f"{tests.name}, {kind}"
            result["sets"][name] = {"about": {**tests.about, "label": kind}, **measured.report()}
            sheets[name] = measured
    if out is not None:
        make_folder(out)
        for name, measured in sheets.items():
            write_bytes(out / f"worst_{name.replace(', ', '_').replace(' ', '_')}.jpg", measured.sheet())
        write_json(out / "evaluation.json", result)
        write_bytes(out / "evaluation.md", markdown(result).encode())
    return result


FIGURES = ("faces", "iou", "iou_face_mean", "iou_face_min", "dice", "recall", "precision", "mse")
BALD_FIGURES = ("faces_without_hair", "marked_without_hair", "iou_hairy_face_min")


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """Heading with the test sets, then one row a figure."""
    sets = result["sets"]
    names = [*FIGURES, *(name for name in BALD_FIGURES if any(name in figures for figures in sets.values()))]

    def cell(name: str, figures: dict[str, Any]) -> str:
        if name not in figures:
            return ""
        return f"{figures[name]:.0f}" if name.startswith("faces") else f"{figures[name]:.4f}"

    return [["", *sets], *([name, *(cell(name, figures) for figures in sets.values())] for name in names)]


def markdown(result: dict[str, Any]) -> str:
    heading, *rows = (f"| {' | '.join(row)} |" for row in table_rows(result))
    lines = ["# Hair finding", "", f"{result['student']} ({result['runs']})", ""]
    lines += [heading, "|" + "---|" * (len(result["sets"]) + 1), *rows, "", "Worst faces:", ""]
    for name, figures in result["sets"].items():
        lines.append(f"- {name}: " + ", ".join(f"{face} {iou:.3f}" for face, iou in figures["worst"].items()))
    return "\n".join(lines) + "\n"
