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
from ohlora.training.finetune.recipes import EXPRESSIONS
from ohlora.training.nets.score_cnns import PropertyCnn, at_cnn_size
from ohlora.training.nets.stylegan import Generator

AT_ONCE = 16  # pictures drawn in one pass

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]

# Which columns of a label eyes, mouth and pose are, by the label's size.
LABEL_COLUMNS = {7: (0, 3, 4), 3: (0, 1, 2)}
# The documented grids: of the test after each epoch, and of the tester for one checkpoint.
EPOCH_GRID = {"mouth": (-1.2, -0.6, 0.0, 0.8, 1.6), "eyes": (-1.8, 1.8), "pose": (-1.2, 0.0, 1.2, 2.4, 3.6)}
TESTER_GRID = {"eyes": (-1.8, -0.9, 0.0, 0.9, 1.8), "mouth": EPOCH_GRID["mouth"], "pose": EPOCH_GRID["pose"]}


@dataclass(frozen=True)
class Conditioning:
    """What was measured of Z latents with L labels each.

    labels [Z,L,3] and scores [Z,L,3]: asked for and measured, in the order of EXPRESSIONS. correlation, mae [Z,3]: per
    latent; a correlation is NaN where the scores or the labels do not vary.
    """

    labels: Floats
    scores: Floats
    correlation: Floats
    mae: Floats

    def summary(self) -> dict[str, dict[str, float]]:
        """{"eyes": {"correlation": ..., "mae": ...}, ...}: the mean over the latents, a missing correlation as 0."""
        means = zip(np.nan_to_num(self.correlation).mean(0), self.mae.mean(0), strict=True)
        return {
            name: {"correlation": float(correlation), "mae": float(mae)}
            for name, (correlation, mae) in zip(EXPRESSIONS, means, strict=True)
        }

    def passed(self, correlation: Sequence[float], error: Sequence[float]) -> NDArray[np.bool_]:
        """[Z]: every correlation is at least, every mean absolute error at most this; one that is NaN does not pass."""
        return np.asarray(((self.correlation >= correlation) & (self.mae <= error)).all(-1))


def label_grid(values: Mapping[str, Sequence[float]], label_size: int = 7) -> Float32s:
    """All combinations, the first property slowest, every other entry 0 -> float32 [L, label_size].

    Raises InvalidInputError for a label size without those properties.
    """
    columns = dict(zip(EXPRESSIONS, label_columns(label_size), strict=True))
    rows = list(product(*values.values()))
    labels = np.zeros((len(rows), label_size), np.float32)
    labels[:, [columns[name] for name in values]] = rows
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
    batch_size: int = AT_ONCE,
    watch: Callable[[int, Tensor], None] = lambda latent, images: None,
) -> Conditioning:
    """Draw every label for every latent and compare label and score; deterministic, networks in evaluation mode.

    z [Z, z_size]; labels [L, label_size], the same for every latent, or [Z, L, label_size]. Pictures are scored as
    floats, as documented, not as files; watch gets (number of a latent, its pictures [n,3,R,R]) in order. Raises
    InvalidInputError for other shapes, or a generator whose label has no eyes, mouth and pose.
    """
    size = generator.config.label_size
    columns = list(label_columns(size))
    latents, asked = np.asarray(z, np.float32), np.asarray(labels, np.float32)
    if latents.ndim != 2 or latents.shape[1] != generator.config.z_size or not len(latents):
        raise InvalidInputError(f"z must have shape [Z, {generator.config.z_size}], got {list(latents.shape)}")
    if asked.ndim == 2:
        asked = np.broadcast_to(asked, (len(latents), *asked.shape))
    if asked.ndim != 3 or asked.shape[0] != len(latents) or asked.shape[2] != size or not asked.shape[1]:
        raise InvalidInputError(f"labels must have shape [L, {size}] or [Z, L, {size}], got {list(np.shape(labels))}")
    scores: list[Floats] = []
    for number, (latent, rows) in enumerate(zip(latents, asked, strict=True)):
        for images in draw_parts(generator, np.broadcast_to(latent, (len(rows), len(latent))), rows, batch_size):
            scores.append(tested_scores(property_cnn, images))
            watch(number, images)
    return compare(asked[..., columns].astype(np.float64), np.concatenate(scores).reshape(*asked.shape[:2], -1))


def compare(labels: Floats, scores: Floats) -> Conditioning:
    """[Z,L,3] each -> correlation and mean absolute error per latent and property."""
    pairs = zip(labels.swapaxes(1, 2), scores.swapaxes(1, 2), strict=True)
    correlation = [[pearson(a, b) for a, b in zip(label, score, strict=True)] for label, score in pairs]
    return Conditioning(labels, scores, np.array(correlation), np.abs(scores - labels).mean(1))


def pearson(first: Floats, second: Floats) -> float:
    """Correlation of two rows of numbers; NaN when one of them is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def draw_parts(generator: Generator, z: Float32s, label: Float32s, size: int = AT_ONCE) -> Iterator[Tensor]:
    """`draw`, so many pictures at a time."""
    for first in range(0, len(z), size):
        yield draw(generator, z[first : first + size], label[first : first + size])


@torch.no_grad()
def draw(generator: Generator, z: Float32s, label: Float32s) -> Tensor:
    """Pictures [N,3,R,R] on the generator's device: stored noise, no truncation, nothing random."""
    device = generator.w_avg.device
    latent, given = (torch.tensor(values, dtype=torch.float32, device=device) for values in (z, label))
    with evaluating(generator):
        images: Tensor = generator(latent, given, lod=0.0)
    return images


def gender_picture(image: Tensor, value_range: str) -> Tensor:
    """What the gender CNN is given of a generated picture in [-1,1].

    "unit": [0,1], as it was trained; "signed": as it is, which is what the published v3 was trained with
    (docs/spec/stylegan.md, section 13, P11).
    """
    return at_cnn_size((image + 1) / 2 if value_range == "unit" else image)


@torch.no_grad()
def tested_scores(property_cnn: PropertyCnn, image: Tensor) -> Floats:
    """image [N,3,R,R] in [-1,1] -> eyes, mouth, pose [N,3], in evaluation mode."""
    with evaluating(property_cnn):
        return property_cnn.only(at_cnn_size(image.float()), EXPRESSIONS).double().cpu().numpy()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block: a scorer with dropout gives noise (docs/spec/cnn.md, section 13)."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
