"""What is drawn of a generator while it is fine-tuned, and how that is judged (docs/spec/stylegan.md, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED
from ohlora.training.finetune.property_test import Conditioning, Float32s, compare, tested_scores
from ohlora.training.finetune.recipes import EXPRESSIONS, PROPERTIES, Recipe
from ohlora.training.gan.data import to_images, to_tensor
from ohlora.training.loop.previews import sample_grid
from ohlora.training.loop.streams import normal
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator

AT_ONCE = 16  # pictures drawn or scored in one pass
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

    def labels(self, properties: Sequence[str], seed: int) -> Float32s:
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

BEFORE = Plan(20)  # the documented look at a generator that has just got its label
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
    labels: Float32s


@torch.no_grad()
def draw(generator: Generator, recipe: Recipe, plan: Plan, psi: float | None = None) -> Drawn:
    """The plan's pictures: stored noise, styles not mixed, truncated as the recipe trains unless `psi` is given."""
    device, config, psi = generator.w_avg.device, generator.config, recipe.psi if psi is None else psi
    labels = plan.labels(recipe.properties, recipe.seed)
    z = normal((recipe.seed, LATENT_KEY), plan.latents, config.z_size)
    if plan.rows:
        labels, z = np.repeat(labels, len(z), 0), np.tile(z, (len(plan.rows), 1))
    averages = None
    if config.conditional_truncation and psi < 1:
        # One set of centers for all pictures, one mean for each label that occurs.
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
    return Drawn(np.concatenate(parts), labels)


def write_pictures(path: Path, images: Rgb, dump: str) -> None:
    """One grid PATH.jpg ("grid"), or the documented files PATH/000000.jpg ... ("files"). Raises OutputError."""
    if dump == "grid":
        make_folder(path.parent)
        write_bytes(
            path.with_name(path.name + ".jpg"), encode_image(sample_grid(images, columns=10), "jpeg", 92, mark=RENDERED)
        )
        return
    make_folder(path)
    for number, image in enumerate(images):
        write_bytes(path / f"{number:06d}.jpg", encode_image(image, "jpeg", 95, mark=RENDERED))


def write_real_fake(path: Path, real: Rgb, fake: Rgb, dump: str) -> None:
    """PATH.png, each row of real pictures above generated ones; or the documented single files in folder PATH."""
    if dump == "grid":
        write_bytes(path.with_suffix(".png"), encode_image(sample_grid(fake, real), "png", mark=RENDERED))
        return
    make_folder(path)
    for kind, images, mark in (("real", real, None), ("fake", fake, RENDERED)):
        for number, image in enumerate(images):
            data = encode_image(image, "png", png_level=0, mark=mark)
            write_bytes(path / f"{kind}_{number:06d}.png", data)


def through_jpeg(images: Rgb) -> Rgb:
    """What the documented files hold: the documented tests score pictures that were written and read again
    (docs/spec/stylegan.md, section 13, P23).
    """
    read = [
        cv2.cvtColor(cv2.imdecode(np.frombuffer(encode_image(image, "jpeg", 95), np.uint8), cv2.IMREAD_COLOR), 4)
        for image in images
    ]
    return np.stack(read).astype(np.uint8)


FIGURES = tuple(f"{name}_{what}" for what in ("corr", "mae") for name in EXPRESSIONS)


def obeyed(drawn: Drawn, properties: Sequence[str], cnn: PropertyCnn) -> Conditioning:
    """Score the pictures with the property CNN, in evaluation mode, and compare with their labels, as one latent's.

    A property that the label lacks is asked for NaN, and so are its figures.
    """
    device = next(cnn.parameters()).device
    images = through_jpeg(drawn.images)
    parts = (to_tensor(images[i : i + AT_ONCE], device) for i in range(0, len(images), AT_ONCE))
    scores = np.concatenate([tested_scores(cnn, part) for part in parts])
    asked: NDArray[np.float64] = np.full(scores.shape, np.nan)
    for i, name in enumerate(EXPRESSIONS):
        if name in properties:
            asked[:, i] = drawn.labels[:, list(properties).index(name)]
    return compare(asked[None], scores[None])
