"""Small labelled pictures for the score CNN tests: a bright or a dark bar where the glasses classifier looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.io.images import encode_image
from ohlora.scores.table import ScoreTable, write_score_table
from ohlora.training.data.labels import Labels, write_labels

SIZE = 64


def picture(number: int, positive: bool) -> NDArray[np.uint8]:
    """uint8 [SIZE,SIZE,3]: noise, with a white (1) or black (0) bar in the eye region."""
    rng = np.random.default_rng(number)
    image = rng.integers(60, 200, (SIZE, SIZE, 3), dtype=np.uint8)
    image[SIZE * 80 // 256 : SIZE * 128 // 256, SIZE // 4 : SIZE * 3 // 4] = 255 if positive else 0
    return image


def truth(count: int) -> NDArray[np.float64]:
    """Labels: every third picture is positive."""
    return (np.arange(count) % 3 == 0).astype(np.float64)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number, positive in enumerate(truth(count)):
        (folder / f"{number:06d}.png").write_bytes(encode_image(picture(number, bool(positive)), "png"))
    return folder


def write_v3_labels(path: Path, count: int) -> Path:
    """The first `count` pictures, labelled; the other attributes alternate."""
    values = {"glass": truth(count), **{name: np.arange(count) % 2.0 for name in ("gender", "quality", "age")}}
    write_labels(path, Labels(np.arange(count), values), "v3")
    return path


def write_scores(path: Path, count: int, columns: tuple[str, ...]) -> Path:
    """Scores that follow the bar in the first column, and noise in the others."""
    values = np.random.default_rng(1).standard_normal((count, len(columns)))
    values[:, 0] = truth(count) * 2 - 1
    table = ScoreTable(np.arange(count), columns, values, tuple(f"x/{n:06d}.png" for n in range(count)))
    write_score_table(path, table)
    return path
