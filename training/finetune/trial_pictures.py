"""What is drawn of a generator while it is fine-tuned, and how that is judged (docs/spec/stylegan.md, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.io.images import encode_image
from ohlora.training.finetune.property_test import pearson, tested_scores
from ohlora.training.finetune.recipes import EXPRESSIONS, PROPERTIES, Recipe
from ohlora.training.gan.data import to_images
from ohlora.training.loop.previews import sample_grid
from ohlora.training.loop.seeds import normal
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator

AT_ONCE = 16  # pictures drawn or scored in one pass
BEFORE = 20  # pictures drawn before training
CENTER_KEY, LATENT_KEY, LABEL_KEY = 5, 6, 7

SCORED_NOT, SCORED_IN_LOG, SCORED_IN_FILE = "", "log", "file"


@dataclass(frozen=True)
class Plan:
    """Test pictures of a logged batch: every label for every latent, the latents always the same ones.

    latents: how many. properties, rows: the labels; a property that the recipe's label lacks is passed over, one that
    the plan lacks is 0. Without rows every latent has one random label of its own. scored: whether eyes, mouth and
    pose of the pictures are compared with the labels, in columns of the log or in a table of their own. classified:
    whether the classifier CNNs judge them. sweep: values of psi for pictures at the end.
    """

    latents: int
    properties: tuple[str, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()
    scored: str = SCORED_NOT
    classified: bool = False
    sweep: tuple[float, ...] = ()

    def labels(self, properties: Sequence[str], seed: int) -> NDArray[np.float32]:
        """float32 [L, len(properties)]; [latents, ...] where they are random."""
        if not self.rows:
            return normal((seed, LABEL_KEY), self.latents, len(properties))
        labels = np.zeros((len(self.rows), len(properties)), np.float32)
        for column, name in enumerate(properties):
            if name in self.properties:
                labels[:, column] = [row[self.properties.index(name)] for row in self.rows]
        return labels


_V1 = (
    (1.5, 1.5, 1.1, -1.1, -1.2, 1.2, -1.0),
    (-1.5, 1.5, 1.1, -1.1, -1.2, 1.2, -1.0),
    (-1.5, -1.5, 1.1, -1.1, -1.2, 1.2, -1.0),
    (-1.5, -1.5, -2.0, -1.1, -1.2, 1.2, -1.0),
    (-1.5, -1.5, -2.0, 1.8, -1.2, 1.2, -1.0),
    (-1.5, -1.5, -2.0, 1.8, 2.0, 1.2, -1.0),
    (-1.5, -1.5, -2.0, 1.8, 2.0, -1.6, -1.0),
)
_V4 = tuple(product((-1.2, -0.6, 0.0, 0.8, 1.6), (-1.8, 1.8), (-1.2, 0.0, 1.2, 2.4, 3.6)))
_V5 = tuple(product((-1.6, 1.6), (-1.2, 1.6), (-1.2, 2.4)))

PLANS: dict[str, Plan] = {
    "v1": Plan(10, PROPERTIES, _V1),
    "v4": Plan(1, ("mouth", "eyes", "pose"), _V4, scored=SCORED_IN_FILE),
    "v5": Plan(10, EXPRESSIONS, _V5, scored=SCORED_IN_LOG, sweep=(1.0, 0.75, 0.5, 0.25, 0.0)),
    "v8": Plan(100, classified=True),
    "v9": Plan(100, classified=True),
}


@dataclass(frozen=True)
class Drawn:
    """Test pictures uint8 [N,R,R,3] with the label float32 [N,L] of each, label by label, latent by latent."""

    images: Rgb
    labels: NDArray[np.float32]


def draw(generator: Generator, recipe: Recipe, plan: Plan, psi: float | None = None) -> Drawn:
    """The plan's pictures: stored noise, styles not mixed, truncated as the recipe trains unless `psi` is given."""
    labels = plan.labels(recipe.properties, recipe.seed)
    z = normal((recipe.seed, LATENT_KEY), plan.latents, generator.config.z_size)
    if plan.rows:
        labels, z = np.repeat(labels, len(z), 0), np.tile(z, (len(plan.rows), 1))
    return Drawn(draw_pictures(generator, recipe, z, labels, recipe.psi if psi is None else psi), labels)


def before_training(generator: Generator, recipe: Recipe) -> Drawn:
    """The documented look at a generator that has just got its label: random latents and labels."""
    return draw(generator, recipe, Plan(BEFORE))


@torch.no_grad()
def draw_pictures(
    generator: Generator, recipe: Recipe, z: NDArray[np.float32], labels: NDArray[np.float32], psi: float
) -> Rgb:
    """z [N, z_size], labels [N, L] -> uint8 [N,R,R,3]."""
    device, config = generator.w_avg.device, generator.config
    averages = None
    if config.conditional_truncation and psi < 1:
        # One set of centres for all pictures, one mean for each label that occurs.
        centers = torch.from_numpy(normal((recipe.seed, CENTER_KEY), recipe.centers, config.z_size)).to(device)
        known, place = np.unique(labels, axis=0, return_inverse=True)
        averages = generator.label_average(torch.from_numpy(known).to(device), centers)[place.reshape(-1)]
    parts = []
    for i in range(0, len(z), AT_ONCE):
        part = slice(i, i + AT_ONCE)
        w = generator.mapping(torch.from_numpy(z[part]).to(device), torch.from_numpy(labels[part]).to(device))
        if averages is not None:
            w = torch.lerp(averages[part], w, psi)
        wp = generator.truncate(w, 1.0 if averages is not None else psi, config.layers)
        parts.append(to_images(generator.synthesis(wp, lod=0.0)))
    return np.concatenate(parts)


def write_pictures(path: Path, images: Rgb, dump: str, columns: int = 10) -> None:
    """One grid PATH.jpg ("grid"), or the documented files PATH/000000.jpg ... ("files"). Raises OutputError."""
    if dump == "grid":
        make_folder(path.parent)
        write_bytes(path.with_name(path.name + ".jpg"), encode_image(sample_grid(images, columns=columns), "jpeg", 92))
        return
    make_folder(path)
    for number, image in enumerate(images):
        write_bytes(path / f"{number:06d}.jpg", encode_image(image, "jpeg", 95))


def write_real_fake(out: Path, real: Rgb, fake: Rgb, dump: str) -> None:
    """inference_test_real_fake.png, each row of real pictures above generated ones; or the documented single files."""
    name = "inference_test_real_fake"
    if dump == "grid":
        write_bytes(out / f"{name}.png", encode_image(sample_grid(fake, real), "png"))
        return
    make_folder(out / name)
    for kind, images in (("real", real), ("fake", fake)):
        for number, image in enumerate(images):
            write_bytes(out / name / f"{kind}_{number:06d}.png", encode_image(image, "png", png_level=0))


def through_jpeg(images: Rgb) -> Rgb:
    """What the documented files hold: the documented tests score pictures that were written and read again
    (docs/spec/stylegan.md, section 13, P23).
    """
    read = [
        cv2.cvtColor(cv2.imdecode(np.frombuffer(encode_image(image, "jpeg", 95), np.uint8), cv2.IMREAD_COLOR), 4)
        for image in images
    ]
    return np.stack(read).astype(np.uint8)


@dataclass(frozen=True)
class Obeyed:
    """Scores float64 [N,3] (eyes, mouth, pose) of test pictures, and how they follow the labels."""

    scores: NDArray[np.float64]
    figures: dict[str, float]  # eyes_corr ... pose_mae; a correlation is NaN where nothing varies


FIGURES = tuple(f"{name}_{what}" for what in ("corr", "mae") for name in EXPRESSIONS)


def obeyed(drawn: Drawn, properties: Sequence[str], cnn: PropertyCnn) -> Obeyed:
    """Score the pictures with the property CNN, in evaluation mode, and compare with their labels."""
    device = next(cnn.parameters()).device
    images = through_jpeg(drawn.images)
    scores = np.concatenate(
        [
            tested_scores(cnn, torch.from_numpy(images[i : i + AT_ONCE]).to(device).permute(0, 3, 1, 2) / 127.5 - 1)
            for i in range(0, len(images), AT_ONCE)
        ]
    )
    figures: dict[str, float] = dict.fromkeys(FIGURES, float("nan"))
    for i, name in enumerate(EXPRESSIONS):
        if name in properties:
            label = drawn.labels[:, list(properties).index(name)].astype(np.float64)
            figures[f"{name}_corr"] = pearson(label, scores[:, i])
            figures[f"{name}_mae"] = float(np.abs(scores[:, i] - label).mean())
    return Obeyed(scores, figures)


def label_rows(drawn: Drawn, properties: Sequence[str], scores: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Rows of the documented label_info.csv: number, asked label and score of every picture."""
    rows = []
    for number in range(len(drawn.images)):
        row: dict[str, Any] = {"image_no": number}
        for name in EXPRESSIONS:
            known = name in properties
            row[f"{name}_label"] = float(drawn.labels[number, list(properties).index(name)]) if known else None
        row |= {f"{name}_cnn_score": float(scores[number, i]) for i, name in enumerate(EXPRESSIONS)}
        rows.append(row)
    return rows
