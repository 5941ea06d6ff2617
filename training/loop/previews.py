"""Pictures to look at while a training runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.io.images import encode_image


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
    """FOLDER/NAME.png and FOLDER/latest.png. Raises OutputError."""
    data = encode_image(picture, "png")
    for path in (make_folder(folder) / f"{name}.png", folder / "latest.png"):
        write_bytes(path, data)
