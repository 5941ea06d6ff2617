"""How well a generator obeys its label: the documented image generation test (docs/spec/stylegan.md, section 9.3).

For one latent every label of a grid is drawn, the property CNN scores the pictures, and label and score are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training.nets.score_cnns import PropertyCnn, at_cnn_size
from ohlora.training.nets.stylegan import Generator

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Watch = Callable[[int, Tensor], None]

TESTED = ("eyes", "mouth", "pose")
# Which columns of a label they are, by the label's size.
LABEL_COLUMNS = {7: (0, 3, 4), 3: (0, 1, 2)}

# The documented grids: of the test after each epoch, and of the tester for one checkpoint.
EPOCH_GRID = {"mouth": (-1.2, -0.6, 0.0, 0.8, 1.6), "eyes": (-1.8, 1.8), "pose": (-1.2, 0.0, 1.2, 2.4, 3.6)}
TESTER_GRID = {
    "eyes": (-1.8, -0.9, 0.0, 0.9, 1.8),
    "mouth": (-1.2, -0.6, 0.0, 0.8, 1.6),
    "pose": (-1.2, 0.0, 1.2, 2.4, 3.6),
}


@dataclass(frozen=True)
class PassRule:
    """A latent passes when every correlation is at least and every mean absolute error at most this (eyes, mouth,
    pose).
    """

    correlation: tuple[float, ...] = (0.77, 0.85, 0.82)
    mae: tuple[float, ...] = (1.0, 0.6, 1.4)

    def passes(self, correlation: ArrayLike, mae: ArrayLike) -> NDArray[np.bool_]:
        """[..., 3] each -> [...]; a correlation that does not exist (NaN) does not pass."""
        right = np.asarray(correlation, np.float64) >= self.correlation
        return np.asarray((right & (np.asarray(mae, np.float64) <= self.mae)).all(-1))


@dataclass(frozen=True)
class Conditioning:
    """What was measured of Z latents with L labels each.

    labels [Z,L,3] and scores [Z,L,3]: asked for and measured, in the order of TESTED. correlation, mae [Z,3]: per
    latent; a correlation is NaN where the scores or the labels do not vary.
    """

    labels: Floats
    scores: Floats
    correlation: Floats
    mae: Floats

    def summary(self) -> dict[str, dict[str, float]]:
        """{"eyes": {"correlation": ..., "mae": ...}, ...}: the mean over the latents, a missing correlation as 0."""
        correlation = np.nan_to_num(self.correlation).mean(0)
        mae = self.mae.mean(0)
        return {name: {"correlation": float(correlation[i]), "mae": float(mae[i])} for i, name in enumerate(TESTED)}


def label_grid(values: Mapping[str, Sequence[float]], label_size: int = 7) -> Float32s:
    """All combinations, the first property slowest, every other entry 0 -> float32 [L, label_size].

    Raises InvalidInputError for a label size without those properties.
    """
    columns = dict(zip(TESTED, label_columns(label_size), strict=True))
    rows = list(product(*values.values()))
    labels = np.zeros((len(rows), label_size), np.float32)
    for i, name in enumerate(values):
        labels[:, columns[name]] = [row[i] for row in rows]
    return labels


def label_columns(label_size: int) -> tuple[int, ...]:
    """Where eyes, mouth and pose are in a label. Raises InvalidInputError for a size that is not documented."""
    if label_size not in LABEL_COLUMNS:
        raise InvalidInputError(
            f"a generator with {label_size} label values has no documented eyes, mouth and pose: it takes 3 or 7"
        )
    return LABEL_COLUMNS[label_size]


def conditioning(
    generator: Generator,
    property_cnn: PropertyCnn,
    z: ArrayLike,
    labels: ArrayLike,
    *,
    batch_size: int = 16,
    watch: Watch = lambda latent, images: None,
) -> Conditioning:
    """Draw every label for every latent and compare label and score; deterministic, networks in evaluation mode.

    z [Z, z_size]; labels [L, label_size], the same for every latent, or [Z, L, label_size]. Pictures are scored as
    floats, as documented, not as files; watch gets (number of a latent, its pictures [n,3,R,R]) in order. Raises
    InvalidInputError for other shapes, or a generator whose label has no eyes, mouth and pose.
    """
    size = generator.config.label_size
    columns = list(label_columns(size))
    latents, wanted = np.asarray(z, np.float32), np.asarray(labels, np.float32)
    if latents.ndim != 2 or latents.shape[1] != generator.config.z_size or not len(latents):
        raise InvalidInputError(f"z must have shape [Z, {generator.config.z_size}], got {list(latents.shape)}")
    if wanted.ndim == 2:
        wanted = np.broadcast_to(wanted, (len(latents), *wanted.shape))
    if wanted.ndim != 3 or wanted.shape[0] != len(latents) or wanted.shape[2] != size or not wanted.shape[1]:
        raise InvalidInputError(f"labels must have shape [L, {size}] or [Z, L, {size}], got {list(np.shape(labels))}")
    scores = np.empty((*wanted.shape[:2], len(TESTED)))
    for number, latent in enumerate(latents):
        for first in range(0, wanted.shape[1], batch_size):
            part = wanted[number, first : first + batch_size]
            images = draw(generator, np.broadcast_to(latent, (len(part), len(latent))), part)
            scores[number, first : first + batch_size] = tested_scores(property_cnn, images)
            watch(number, images)
    return compare(wanted[..., columns].astype(np.float64), scores)


def compare(labels: Floats, scores: Floats) -> Conditioning:
    """[Z,L,3] each -> correlation and mean absolute error per latent and property."""
    correlation = np.array(
        [[pearson(labels[k, :, i], scores[k, :, i]) for i in range(len(TESTED))] for k in range(len(labels))]
    )
    return Conditioning(labels, scores, correlation, np.abs(scores - labels).mean(1))


def pearson(first: Floats, second: Floats) -> float:
    """Correlation of two rows of numbers; NaN when one of them is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


@torch.no_grad()
def draw(generator: Generator, z: Float32s, label: Float32s | None) -> Tensor:
    """Pictures [N,3,R,R] on the generator's device: stored noise, no truncation, nothing random."""
    device = generator.w_avg.device
    with evaluating(generator):
        given = None if label is None else torch.tensor(label, dtype=torch.float32, device=device)
        return generator(torch.tensor(z, dtype=torch.float32, device=device), given, lod=0.0)


@torch.no_grad()
def tested_scores(property_cnn: PropertyCnn, image: Tensor) -> Floats:
    """image [N,3,R,R] in [-1,1] -> eyes, mouth, pose [N,3], in evaluation mode."""
    with evaluating(property_cnn):
        return property_cnn.only(at_cnn_size(image.float()), TESTED).double().cpu().numpy()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode inside the block: a scorer with dropout gives noise
    (docs/spec/cnn.md, section 13).
    """
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
