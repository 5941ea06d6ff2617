"""A run of the stage `parsing` for people: figures of every class, the worst faces beside the teacher's maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.atomic import write_bytes
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.data.parsing_classes import NAMES11, visualize
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.students.loop import STUDENT
from ohlora.training.students.parsing.examples import CLASSES, class_shares
from ohlora.training.students.sources import REAL
from ohlora.training.weights.student import load_student

SHOWN = 12


def write_report(out: Path, result: dict[str, Any], pictures: Iterable[LabelledPicture]) -> None:
    """Write report.md and overlays.jpg (overlays_SOURCE.jpg for drawn ones): the worst held-out faces first, each as
    picture, teacher's classes, student's classes. pictures: what the run was measured on, found by name.
    """
    parts = {name: part for name, part in result.get("sources", {REAL: result}).items() if "test" in part}
    faces = {picture.name: picture for picture in pictures}
    config = result["config"]
    lines = [
        "# Parsing student",
        "",
        f"Encoder {config['encoder']}, loss {config['loss']} (balance {config['balance']}), {result['epochs']} epochs, "
        f"{result['train_seconds']:.0f} s.",
        "",
        *class_table(parts),
    ]
    for name, part in parts.items():
        worst = sorted(part["test_faces"].items(), key=lambda entry: entry[1])[:SHOWN]
        lines += ["", f"Worst faces, {name}: " + ", ".join(f"{face} {iou:.3f}" for face, iou in worst[:8])]
        sheet = out / ("overlays.jpg" if name == REAL else f"overlays_{name}.jpg")
        write_overlays(sheet, out / STUDENT, [faces[face] for face, _ in worst])
    write_bytes(out / "report.md", ("\n".join(lines) + "\n").encode())


def class_table(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: one row a class, IoU and F1 of every source."""
    if not parts:
        return ["Trained on everything; nothing was held out."]
    heading = " | ".join(f"{name} IoU | F1" for name in parts)
    lines = [f"| class | {heading} |", "|" + "---|" * (1 + 2 * len(parts))]
    for label, suffix in (("mean", ""), *((name, f"_{name}") for name in NAMES11)):
        cells = [part["test"].get(f"{kind}{suffix}") for part in parts.values() for kind in ("iou", "f1")]
        lines.append(f"| {label} | " + " | ".join("" if v is None else f"{v:.4f}" for v in cells) + " |")
    accuracy = (f"{part['test']['accuracy']:.4f} | " for part in parts.values())
    return [*lines, "| accuracy | " + " | ".join(accuracy) + "|"]


@torch.no_grad()
def write_overlays(path: Path, student: Path, faces: Sequence[LabelledPicture]) -> None:
    """Three tiles a face, two faces a row."""
    model = load_student(student, outputs=CLASSES)
    tiles, captions = [], []
    for face in faces:
        image, classes, _ = face.read()
        image = resize_area(image, (SIZE, SIZE))
        truth = class_shares(classes, SIZE).argmax(0).astype(np.uint8)
        found = model.logits(torch.from_numpy(to_tensor_layout(image))[None])[0].argmax(0).to(torch.uint8).numpy()
        tiles += [image, visualize(image, truth), visualize(image, found)]
        captions += [face.name, "label", "student"]
    write_bytes(path, encode_image(contact_sheet(tiles, columns=6, cell=SIZE, captions=captions), "jpeg", 92))


def figures_line(out: Path, result: dict[str, Any]) -> str:
    """What a finished run has to show: where the student is, mean and classes of every source."""
    lines = [f"parsing student -> {out / STUDENT}"]
    for name, part in result.get("sources", {REAL: result}).items():
        if "test" in part:
            test = part["test"]
            classes = ", ".join(f"{c} {test[f'iou_{c}']:.3f}" for c in NAMES11 if f"iou_{c}" in test)
            lines.append(f"held out, {name}: mean IoU {test['iou']:.4f}, accuracy {test['accuracy']:.4f} ({classes})")
    return "\n".join(lines)
