"""A distillation run for people: figures, curve, the documented three-colour overlays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.students.sources import REAL
from ohlora.training.weights.student import load_student

SHOWN = 24
# The documented comparison, true MSE (four times the published column; docs/spec/segmentation.md, section 6).
DOCUMENTED = {
    "iou": 0.9681,
    "dice": 0.9838,
    "recall": 0.9836,
    "precision": 0.9840,
    "mse": 0.002953,
    "mse_published": 0.000738,
}


def overlay(image: NDArray[np.uint8], label: NDArray[np.uint8], hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0.55 picture + 0.45 (blue = teacher, green = student): sky blue agrees, green is too much, blue is missed."""
    color = np.zeros(image.shape, np.float32)
    color[..., 2], color[..., 1] = label, hair * 255
    return np.clip(0.55 * image + 0.45 * color, 0, 255).astype(np.uint8)


def write_report(out: Path, result: dict[str, Any], pictures: Iterable[LabelledPicture]) -> None:
    """Write report.md and overlays.jpg (worst held-out faces first) beside report.json.

    pictures: what the run was measured on, found by name. With portraits mixed in, one overlay sheet a source.
    """
    parts = result.get("sources", {REAL: result})
    trained = {name: part["pictures"]["train"] for name, part in parts.items()}
    counted = " and ".join(f"{n} {'pictures' if name == REAL else name}" for name, n in trained.items())
    lines = [
        "# Hair student",
        "",
        f"Encoder {result['config']['encoder']}, loss {result['config']['loss']}, {counted}, "
        f"{result['epochs']} epochs, {result['train_seconds']:.0f} s.",
    ]
    faces = {picture.name: picture for picture in pictures}
    for name, part in parts.items():
        if "test" not in part:
            continue
        if name == REAL:
            lines += ["", "| | this student, held-out people | documented model, 4,930 faces |", "|---|---|---|"]
        else:
            lines += ["", f"| | this student, unseen {name} |", "|---|---|"]
        for figure, value in part["test"].items():
            digits = 6 if figure.startswith("mse") else 4
            other = f" {DOCUMENTED[figure]:.{digits}f} |" if figure in DOCUMENTED else "  |"
            lines.append(f"| {figure} | {value:.{digits}f} |{other if name == REAL else ''}")
        lines += ["", "Worst faces:", ""]
        worst = sorted(part["test_faces"].items(), key=lambda entry: entry[1])[:SHOWN]
        lines += [f"- {face}: IoU {iou:.3f}" for face, iou in worst[:8]]
        sheet = out / ("overlays.jpg" if name == REAL else f"overlays_{name}.jpg")
        write_overlays(sheet, out / "student.safetensors", [faces[face] for face, _ in worst])
    write_bytes(out / "report.md", ("\n".join(lines) + "\n").encode())


@torch.no_grad()
def write_overlays(path: Path, student: Path, faces: Sequence[LabelledPicture]) -> None:
    model = load_student(student)
    tiles = []
    for face in faces:
        image, label, _ = face.read()
        image = resize_area(image, (SIZE, SIZE))
        label = resize_area(label, (SIZE, SIZE))
        hair = model(torch.from_numpy(to_tensor_layout(image))[None])[0, 0].numpy()
        tiles.append(overlay(image, label, hair))
    captions = [face.name for face in faces]
    write_bytes(path, encode_image(contact_sheet(tiles, cell=SIZE, captions=captions), "jpeg", 95))


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
    lines = [f"student -> {out / 'student.safetensors'}"]
    for name, part in result.get("sources", {REAL: result}).items():
        figures = ", ".join(f"{key} {value:.4f}" for key, value in part.get("test", {}).items() if "faces" not in key)
        if figures:
            lines.append(f"held out, {name}: {figures}")
    return "\n".join(lines)
