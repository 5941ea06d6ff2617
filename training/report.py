"""A distillation run for people: figures, curve, the documented three-colour overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.atomic import write_bytes
from ohlora.hair import resize_area
from ohlora.images import encode_image
from ohlora.render.contact_sheet import contact_sheet
from ohlora.training.data.hair_faces import find_faces, to_tensor_layout
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.student import load_student

SHOWN = 24
# The documented comparison, true MSE (four times the published column; spec: segmentation, section 6).
DOCUMENTED = {"iou": 0.9681, "dice": 0.9838, "recall": 0.9836, "precision": 0.9840, "mse": 0.002953}


def overlay(image: NDArray[np.uint8], label: NDArray[np.uint8], hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0.55 picture + 0.45 (blue = teacher, green = student): sky blue agrees, green is too much, blue is missed."""
    color = np.zeros(image.shape, np.float32)
    color[..., 2], color[..., 1] = label, hair * 255
    return np.clip(0.55 * image + 0.45 * color, 0, 255).astype(np.uint8)


def write_report(out: Path, result: dict[str, Any], data: Sequence[Path]) -> None:
    """Write report.md and overlays.jpg (worst held-out faces first) beside report.json."""
    lines = [
        "# Hair student",
        "",
        f"Encoder {result['config']['encoder']}, loss {result['config']['loss']}, ",
    ]
    lines[-1] += f"{result['pictures']['train']} pictures, {result['epochs']} epochs, {result['train_seconds']:.0f} s."
    if "test" in result:
        lines += ["", "| | this student, held-out people | documented model, 4,930 faces |", "|---|---|---|"]
        for name, value in result["test"].items():
            other = f"{DOCUMENTED[name]:.4f}" if name in DOCUMENTED else ""
            lines.append(f"| {name} | {value:.4f} | {other} |")
        lines += ["", "Worst faces:", ""]
        worst = sorted(result["test_faces"].items(), key=lambda entry: entry[1])[:SHOWN]
        lines += [f"- {name}: IoU {iou:.3f}" for name, iou in worst[:8]]
        write_overlays(out / "overlays.jpg", out / "student.safetensors", data, [name for name, _ in worst])
    write_bytes(out / "report.md", ("\n".join(lines) + "\n").encode())


@torch.no_grad()
def write_overlays(path: Path, student: Path, data: Sequence[Path], names: Sequence[str]) -> None:
    model = load_student(student)
    faces = {face.picture.stem: face for face in find_faces(list(data))}
    tiles = []
    for name in names:
        image, label, _ = faces[name].read()
        image = resize_area(image, (SIZE, SIZE))
        label = cv2.resize(label, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        hair = model(torch.from_numpy(to_tensor_layout(image))[None])[0, 0].numpy()
        tiles.append(overlay(image, label, hair))
    write_bytes(path, encode_image(contact_sheet(tiles, cell=SIZE, captions=list(names)), "jpeg", 95))
