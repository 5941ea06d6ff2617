"""Pictures to look at while a training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ohlora.base.atomic import atomic_path, make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED

WIDTH, HEIGHT, MARGIN = 900, 260, 56
COLORS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555")
PANELS = (("pixel", "perceptual"), ("generator", "discriminator"), ("penalty", "readout"), ("images_per_second",))


def sample_grid(generated: Rgb, targets: Rgb | None = None, columns: int = 8) -> Rgb:
    """uint8 [N,R,R,3] -> one picture [rows*R, columns*R, 3]; with targets, each row of them above its own."""
    rows = []
    for start in range(0, len(generated), columns):
        for pictures in (targets, generated):
            if pictures is not None:
                part = pictures[start : start + columns]
                padding = np.full((columns - len(part), *part.shape[1:]), 255, np.uint8)
                rows.append(np.concatenate([*part, *padding], axis=1))
    return np.concatenate(rows, axis=0)


def write_preview(folder: Path, name: str, picture: Rgb) -> None:
    """FOLDER/NAME.png and FOLDER/latest.png, of what a generator draws. Raises OutputError."""
    data = encode_image(picture, "png", mark=RENDERED)
    for path in (make_folder(folder) / f"{name}.png", folder / "latest.png"):
        write_bytes(path, data)


def draw_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the columns of a curve file over thousand pictures: one panel per group of PANELS, each scaled to its own
    1st .. 99th percentile. Draws nothing without at least two rows.
    """
    panels = [[name for name in group if sum(name in row for row in rows) > 1] for group in PANELS]
    panels = [names for names in panels if names]
    if not panels:
        return
    image = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    draw = ImageDraw.Draw(image)
    last = max(row["images"] for row in rows) or 1
    for number, names in enumerate(panels):
        top, bottom = number * HEIGHT + 24, (number + 1) * HEIGHT - 30
        values = np.array([row[name] for row in rows for name in names if name in row])
        low, high = np.percentile(values, [1, 99])
        span = (high - low) or 1.0
        draw.rectangle((MARGIN, top, WIDTH - 16, bottom), outline="#999999")
        for share in (0.0, 0.5, 1.0):
            draw.text((4, bottom - share * (bottom - top) - 6), f"{low + share * span:.4g}", fill="#333333")
        for i, name in enumerate(names):
            points = [
                (
                    MARGIN + row["images"] / last * (WIDTH - 16 - MARGIN),
                    bottom - float(np.clip((row[name] - low) / span, 0, 1)) * (bottom - top),
                )
                for row in rows
                if name in row
            ]
            draw.line(points, fill=COLORS[i], width=2)
            draw.text((MARGIN + 150 * i, top - 16), name, fill=COLORS[i])
        draw.text((WIDTH - 120, bottom + 8), f"{last / 1000:.1f} kimg", fill="#333333")
    with atomic_path(path) as temporary:
        image.save(temporary)
