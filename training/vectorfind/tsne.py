"""Diagnostic plots: the extremes of a score in two dimensions (docs/spec/vectorfind.md, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.values import PROPERTIES
from ohlora.io.images import encode_image
from ohlora.training.vectorfind.measuring import Population
from ohlora.training.vectorfind.samples import SampleStore
from ohlora.training.vectorfind.selection import extremes, group_names
from ohlora.training.vectorfind.settings import SearchSettings

FOLDER = "tsne_result"
WIDTH, HEIGHT = 720, 600
MARGIN, TOP = 30, 50
COLORS = {"largest": (31, 119, 180), "smallest": (255, 127, 14)}
MOST = 2000  # points of each kind in a plot; t-SNE takes minutes for more
MIN_POINTS = 4


def plot_extremes(
    out: Path, store: SampleStore, people: Population, settings: SearchSettings, note: Callable[[str], None]
) -> None:
    """tsne_result/tsne_result_{property}_{group}.png for every property and group with points enough."""
    folder = make_folder(out / FOLDER)
    for name in PROPERTIES:
        for index, group in enumerate(group_names(len(settings.groups))):
            members = np.flatnonzero(people.groups == index)
            if len(members) < MIN_POINTS:
                continue
            sides = [members[side][:MOST] for side in extremes(people.of(name)[members], settings.share)]
            if sum(len(side) for side in sides) < MIN_POINTS:
                continue
            note(f"t-SNE of {name}, group {group}")
            points = embed(store.gather(settings.space, np.concatenate(sides)))
            image = scatter(points, len(sides[0]), f"t-SNE result of property {name} / {group}")
            write_bytes(folder / f"tsne_result_{name}_{group}.png", encode_image(image, "png"))


def embed(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """[N,D] -> [N,2], with the documented settings."""
    from sklearn.manifold import TSNE

    perplexity = min(50, len(vectors) - 1)
    made = TSNE(2, perplexity=perplexity, learning_rate=100, max_iter=1000, random_state=2025).fit_transform(vectors)
    return np.asarray(made, np.float64)


def scatter(points: NDArray[np.float64], largest: int, title: str) -> NDArray[np.uint8]:
    """uint8 RGB [600,720,3]; the first `largest` points are those of the largest scores."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    low, high = points.min(0), points.max(0)
    scale = np.array([WIDTH - 2 * MARGIN, HEIGHT - TOP - MARGIN]) / np.maximum(high - low, 1e-9)
    places = ((points - low) * scale + [MARGIN, TOP]).round().astype(int)
    for i, (x, y) in enumerate(places):
        cv2.circle(image, (int(x), int(y)), 3, COLORS["largest" if i < largest else "smallest"], -1, cv2.LINE_AA)
    cv2.putText(image, title, (MARGIN, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    for i, (name, color) in enumerate(COLORS.items()):
        cv2.circle(image, (MARGIN + 6 + 110 * i, 38), 4, color, -1, cv2.LINE_AA)
        cv2.putText(image, name, (MARGIN + 16 + 110 * i, 42), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return image
