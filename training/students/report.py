"""A distillation run for people: figures, curve, the documented three-colour overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Rgb
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.loop import STUDENT
from ohlora.training.students.sources import REAL
from ohlora.training.weights.student import load_student

SHOWN = 24
FIGURES = ("mse_published", "mse", "iou", "dice", "recall", "precision")
# The documented comparison of losses (docs/spec/segmentation.md, section 6): one run each on 4,930 faces, unknown
# split; the true error is four times the published one.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "mse": (0.000794, 0.003177, 0.9680, 0.9838, 0.9833, 0.9842),
    "soft_bce": (0.000738, 0.002953, 0.9681, 0.9838, 0.9836, 0.9840),
    "kl": (0.076325, 0.305300, 0.5673, 0.7239, 1.0000, 0.5673),
}
DOCUMENTED = dict(zip(FIGURES, PUBLISHED["soft_bce"], strict=True))


def written(figure: str, value: float) -> str:
    """A figure of `HairMetrics` for a table."""
    return f"{value:.6f}" if figure.startswith("mse") else f"{value:.4f}"


def overlay(image: NDArray[np.uint8], label: NDArray[np.uint8], hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0.55 picture + 0.45 (blue = teacher, green = student): sky blue agrees, green is too much, blue is missed."""
    color = np.zeros(image.shape, np.float32)
    color[..., 2], color[..., 1] = label, hair * 255
    return np.clip(0.55 * image + 0.45 * color, 0, 255).astype(np.uint8)


@torch.no_grad()
def found_hair(student: EffiSegNet, face: LabelledPicture) -> tuple[Rgb, NDArray[np.uint8], NDArray[np.float32]]:
    """Picture, label (times 255) and the hair map of a student in evaluation mode, all at 224."""
    image, label, _ = face.read()
    image = resize_area(image, (SIZE, SIZE))
    hair = student(torch.from_numpy(to_tensor_layout(image))[None])[0, 0].numpy()
    return image, resize_area(label, (SIZE, SIZE)), hair


def write_report(out: Path, result: dict[str, Any], pictures: Iterable[LabelledPicture]) -> None:
    """Write report.md and overlays.jpg (worst held-out faces first) beside report.json.

    pictures: what the run was measured on, found by name. With portraits mixed in, one overlay sheet a source.
    """
    trained = {name: part["pictures"]["train"] for name, part in result.get("sources", {REAL: result}).items()}
    counted = " and ".join(f"{n} {'pictures' if name == REAL else name}" for name, n in trained.items())
    lines = [
        "# Hair student",
        "",
        f"Encoder {result['config']['encoder']}, loss {result['config']['loss']}, {counted}, "
        f"{result['epochs']} epochs, {result['train_seconds']:.0f} s.",
    ]
    worst = write_sheets(
        out, result, pictures, lambda student, face: [(overlay(*found_hair(student, face)), face.name)]
    )
    for name, part in tested(result).items():
        if name == REAL:
            lines += ["", "| | this student, held-out people | documented model, 4,930 faces |", "|---|---|---|"]
        else:
            lines += ["", f"| | this student, unseen {name} |", "|---|---|"]
        for figure, value in part["test"].items():
            other = f" {written(figure, DOCUMENTED[figure])} |" if figure in DOCUMENTED else "  |"
            lines.append(f"| {figure} | {written(figure, value)} |{other if name == REAL else ''}")
        lines += ["", "Worst faces:", "", *(f"- {face}: IoU {iou:.3f}" for face, iou in worst[name][:8])]
    write_bytes(out / "report.md", ("\n".join(lines) + "\n").encode())


def tested(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources of a run that were measured, with their part of its report."""
    return {name: part for name, part in result.get("sources", {REAL: result}).items() if "test" in part}


def write_sheets(
    out: Path,
    result: dict[str, Any],
    pictures: Iterable[LabelledPicture],
    tiles: Callable[[EffiSegNet, LabelledPicture], list[tuple[Rgb, str]]],
    *,
    outputs: int | None = 1,
    shown: int = SHOWN,
    quality: int = 95,
    **layout: Any,
) -> dict[str, list[tuple[str, float]]]:
    """OUT/overlays.jpg (overlays_SOURCE.jpg for drawn ones) of the worst faces -> their names and IoU by source.

    tiles: tiles and captions of a face by a student of `outputs`. layout: options of `contact_sheet`.
    """
    faces, worst = {picture.name: picture for picture in pictures}, {}
    for name, part in tested(result).items():
        student = load_student(out / STUDENT, outputs=outputs)
        worst[name] = sorted(part["test_faces"].items(), key=itemgetter(1))[:shown]
        images, captions = zip(*(tile for face, _ in worst[name] for tile in tiles(student, faces[face])), strict=True)
        sheet = contact_sheet(list(images), cell=SIZE, captions=list(captions), **layout)
        path = out / ("overlays.jpg" if name == REAL else f"overlays_{name}.jpg")
        write_bytes(path, encode_image(sheet, "jpeg", quality))
    return worst


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch for a terminal: losses, and the held-out figures of every source."""
    text = f"epoch {row['epoch'] + 1}/{epochs} at {row['size']} px: loss {row['train_loss']:.4f}"
    if "valid_loss" in row:
        text += f", held-out loss {row['valid_loss']:.4f}"
    parts = row.get("sources") or ({"": row} if "iou" in row else {})
    for name, part in parts.items():
        text += f", {name + ' ' if name else ''}IoU {part['iou']:.4f} (worst face {part['iou_face_min']:.3f})"
    return f"{text}, {row['seconds']:.0f} s"


def figures_line(out: Path, result: dict[str, Any]) -> str:
    """What a finished run has to show: where the student is and the figures of every source."""
    lines = [f"student -> {out / STUDENT}"]
    for name, part in tested(result).items():
        figures = ", ".join(f"{key} {value:.4f}" for key, value in part["test"].items() if "faces" not in key)
        lines.append(f"held out, {name}: {figures}")
    return "\n".join(lines)
