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

from ohlora.io.images import read_image
from ohlora.training.directions.reader import Reader, disturbed, paint_portraits, sample_parameters
from ohlora.training.pipeline.portrait_truth import NAMES, truth

READ_AT_ONCE = 64


def train_labeller(
    size: int,
    width: int,
    pictures: int,
    held_out: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Reader, dict[str, Any]]:
    """Paint portraits, train, judge on held-out ones -> (network, figures). One output per attribute of NAMES.

    size: pixels the network looks at, a multiple of 32. Figures: accuracy and AUROC of every attribute.
    """
    parameters = sample_parameters(pictures + held_out, seed)
    images, wanted = paint_portraits(parameters, size), torch.from_numpy(truth(parameters)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Reader(size, width, NAMES)
        _fit(network, images[:pictures], wanted[:pictures], epochs, batch_size, learning_rate, note)
    share = shares(network, images[pictures:])
    right = wanted[pictures:].numpy()
    figures = {}
    for i, name in enumerate(NAMES):
        accuracy = float(((share[:, i] >= 0.5) == (right[:, i] >= 0.5)).mean())
        both = 0 < right[:, i].sum() < len(right)
        figures[name] = {
            "accuracy": accuracy,
            "auroc": float(roc_auc_score(right[:, i], share[:, i])) if both else None,
        }
    return network, figures


def _fit(
    network: Reader,
    images: NDArray[np.uint8],
    wanted: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    note: Callable[[str], None],
) -> None:
    steps = max(1, len(images) // batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            shown = network.prepared(images[rows.numpy()])
            mirrored = torch.rand(len(rows)) < 0.5
            shown = torch.where(mirrored[:, None, None, None], shown.flip(3), shown)
            loss = F.binary_cross_entropy_with_logits(network(disturbed(shown)), wanted[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        note(f"labeller: epoch {epoch + 1}/{epochs}, loss {total / steps:.4f}")
    network.eval()


def shares(network: Reader, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """images uint8 [N,H,H,3] -> how sure the network is of each attribute, [N, len(NAMES)] in [0,1]."""
    return 1.0 / (1.0 + np.exp(-network.read(images)))


def shares_of_files(network: Reader, paths: list[Path]) -> NDArray[np.float64]:
    """The same for picture files, a few at a time."""
    parts = [
        shares(network, np.stack([read_image(path) for path in paths[i : i + READ_AT_ONCE]]))
        for i in range(0, len(paths), READ_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(NAMES)))
