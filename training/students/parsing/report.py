"""A run of the stage `parsing` for people: figures of every class, the worst faces beside the teacher's maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Rgb
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.data.parsing_classes import NAMES13, visualize
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.loop import STUDENT
from ohlora.training.students.parsing.distill import class_shares
from ohlora.training.students.report import tested, write_sheets

SHOWN = 12


def write_report(out: Path, result: dict[str, Any], pictures: Iterable[LabelledPicture]) -> None:
    """Write report.md and overlays.jpg (overlays_SOURCE.jpg for drawn ones): the worst held-out faces first, two a row,
    each as picture, teacher's classes, student's classes. pictures: what the run was measured on, found by name.
    """
    worst = write_sheets(out, result, pictures, tiles, outputs=None, shown=SHOWN, quality=92, columns=6)
    config = result["config"]
    lines = [
        "# Parsing student",
        "",
        f"Encoder {config['encoder']}, loss {config['loss']} (balance {config['balance']}), {result['epochs']} epochs, "
        f"{result['train_seconds']:.0f} s.",
        "",
        *class_table(tested(result)),
    ]
    for name, faces in worst.items():
        lines += ["", f"Worst faces, {name}: " + ", ".join(f"{face} {iou:.3f}" for face, iou in faces[:8])]
    write_bytes(out / "report.md", ("\n".join(lines) + "\n").encode())


def class_table(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: one row a class, IoU and F1 of every source."""
    if not parts:
        return ["Trained on everything; nothing was held out."]
    heading = " | ".join(f"{name} IoU | F1" for name in parts)
    lines = [f"| class | {heading} |", "|" + "---|" * (1 + 2 * len(parts))]
    for label, suffix in (
        ("mean", ""),
        *((name, f"_{name}") for name in NAMES13 if any(f"iou_{name}" in part["test"] for part in parts.values())),
    ):
        cells = [part["test"].get(f"{kind}{suffix}") for part in parts.values() for kind in ("iou", "f1")]
        lines.append(f"| {label} | " + " | ".join("" if v is None else f"{v:.4f}" for v in cells) + " |")
    accuracy = (f"{part['test']['accuracy']:.4f} | " for part in parts.values())
    return [*lines, "| accuracy | " + " | ".join(accuracy) + "|"]


@torch.no_grad()
def tiles(student: EffiSegNet, face: LabelledPicture) -> list[tuple[Rgb, str]]:
    image, classes, _ = face.read()
    image = resize_area(image, (SIZE, SIZE))
    truth = class_shares(classes, SIZE, student.outputs).argmax(0).astype(np.uint8)
    found = student.logits(torch.from_numpy(to_tensor_layout(image))[None])[0].argmax(0).to(torch.uint8).numpy()
    return [(image, face.name), (visualize(image, truth), "label"), (visualize(image, found), "student")]


def figures_line(out: Path, result: dict[str, Any]) -> str:
    """What a finished run has to show: where the student is, mean and classes of every source."""
    lines = [f"parsing student -> {out / STUDENT}"]
    for name, part in tested(result).items():
        test = part["test"]
        classes = ", ".join(f"{c} {test[f'iou_{c}']:.3f}" for c in NAMES13 if f"iou_{c}" in test)
        lines.append(f"held out, {name}: mean IoU {test['iou']:.4f}, accuracy {test['accuracy']:.4f} ({classes})")
    return "\n".join(lines)
