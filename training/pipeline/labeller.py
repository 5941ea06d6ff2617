"""A small network in place of the person who labels: it reads the four attributes off a picture.

After the first fine-tuning the mapping is another one, so the portrait of a seed no longer says what its picture shows.
In the demo chain this network, trained on drawn portraits whose truth is known, does what a person does in the
documents. Its labels have its errors: the figures say how often it is right on portraits it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.types import Rgb
from ohlora.io.images import read_image
from ohlora.training.directions.reader import Reader, disturbed, mirrored, paint_portraits, sample_parameters
from ohlora.training.directions.recipes import ReaderConfig
from ohlora.training.loop.fits import fit_rows
from ohlora.training.pipeline.portrait_truth import NAMES, truth

READ_AT_ONCE = 64


def train_labeller(
    config: ReaderConfig, note: Callable[[str], None] = lambda text: None
) -> tuple[Reader, dict[str, Any]]:
    """Paint portraits, train, judge on held-out ones -> (network, figures). One output per attribute of NAMES.

    Figures: accuracy and AUROC of every attribute.
    """
    parameters = sample_parameters(config.pictures + config.held_out, config.seed)
    images, labels = paint_portraits(parameters, config.size), truth(parameters)
    learned = torch.from_numpy(labels).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Reader(config.size, config.width, NAMES)

        def loss(rows: Tensor) -> Tensor:
            shown, _ = mirrored(network.prepared(images[rows.numpy()]))
            return F.binary_cross_entropy_with_logits(network(disturbed(shown)), learned[rows])

        fit_rows(
            network, loss, config.pictures, epochs=config.epochs, batch_size=config.batch_size,
            rate=config.learning_rate,
            report=lambda epoch, loss: note(f"labeller: epoch {epoch}/{config.epochs}, loss {loss:.4f}"),
        )  # fmt: skip
    share, right = shares(network, images[config.pictures :]), labels[config.pictures :]
    figures = {}
    for i, name in enumerate(NAMES):
        both = 0 < right[:, i].sum() < len(right)
        figures[name] = {
            "accuracy": float(((share[:, i] >= 0.5) == (right[:, i] >= 0.5)).mean()),
            "auroc": float(roc_auc_score(right[:, i], share[:, i])) if both else None,
        }
    return network, figures


def shares(network: Reader, images: Rgb) -> NDArray[np.float64]:
    """images uint8 [N,H,H,3] -> how sure the network is of each attribute, [N, len(NAMES)] in [0,1]."""
    return 1.0 / (1.0 + np.exp(-network.read(images)))


def shares_of_files(network: Reader, paths: list[Path]) -> NDArray[np.float64]:
    """The same for picture files, a few at a time."""
    parts = [
        shares(network, np.stack([read_image(path) for path in paths[i : i + READ_AT_ONCE]]))
        for i in range(0, len(paths), READ_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(NAMES)))
