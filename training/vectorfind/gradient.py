"""The Gradient method: a regression network reads a score off the vector, its input gradient is a face's direction.

(docs/spec/vectorfind.md, section 6.3.) Directions are taken in evaluation mode, for many faces at once, by
`GradientNetwork`, the run-time form; the published program left dropout on, which made them random.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.errors import CheckpointError, InvalidInputError, OhloraError
from ohlora.latents.gradient_network import KEYS, GradientNetwork
from ohlora.training.directions.measure import pearson
from ohlora.training.loop.seeds import derive
from ohlora.training.vectorfind.settings import GradientTraining
from ohlora.training.weights.files import read_pickle
from ohlora.training.weights.state_dicts import listed, usable, without_wrappers

DROPOUT = 0.25
MIN_SAMPLES = 20
# Published networks raise the score along their gradient, sets of directions lower it (`ohlora.latents.directions`).
PUBLISHED_SCALE = -1.0


class RegressionNetwork(nn.Module):
    """x [N,D] -> score [N,1]: linear, tanh, dropout, twice, then linear; H1 = 768 + D // 4, H2 = 128 + D // 8."""

    def __init__(self, size: int) -> None:
        super().__init__()
        first, second = 768 + size // 4, 128 + size // 8
        self.fc1 = nn.Sequential(nn.Linear(size, first), nn.Tanh(), nn.Dropout(DROPOUT))
        self.fc2 = nn.Sequential(nn.Linear(first, second), nn.Tanh(), nn.Dropout(DROPOUT))
        self.fc_final = nn.Linear(second, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc_final(self.fc2(self.fc1(x)))
        return out

    def runtime(self, scale: float = 1.0) -> GradientNetwork:
        """The same in NumPy, without dropout. Keys of the state are those of published files."""
        state = {key: value.detach().cpu().numpy() for key, value in self.state_dict().items()}
        return GradientNetwork({key: state[key] for key in KEYS}, scale)


def train_regression(
    vectors: NDArray[np.float32],
    scores: NDArray[np.floating],
    training: GradientTraining,
    *,
    seed: int,
    name: str,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[RegressionNetwork, dict[str, float]]:
    """vectors [N,D] and the property's scores [N] -> the network of the best epoch, in evaluation mode, and figures.

    figures: mse, mae, rmse and correlation on the test part, epochs and the best one. Samples without a score take no
    part. Every random choice is keyed by (seed, name). Raises InvalidInputError for fewer than 20 samples, OhloraError
    when the loss is no number.
    """
    known = ~np.isnan(scores)
    x = torch.from_numpy(np.ascontiguousarray(vectors[known]))
    y = torch.from_numpy(scores[known].astype(np.float32))
    if len(x) < MIN_SAMPLES:
        raise InvalidInputError(
            f"the gradient network of {name} needs {MIN_SAMPLES} scored samples or more, got {len(x)}"
        )
    order = torch.from_numpy(np.random.Generator(np.random.Philox(key=derive(seed, name, "split"))).permutation(len(x)))
    ends = [int(training.shares[0] * len(x)), int(sum(training.shares) * len(x))]
    parts = [order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, name, "weights"))
        network = RegressionNetwork(x.shape[1])
        with one_thread():
            epochs = _fit(network, x, y, parts, training, lambda text: note(f"{name}, {text}"))
    return network, _figures(network, x[parts[2]], y[parts[2]]) | epochs


@contextmanager
def one_thread() -> Iterator[None]:
    """Batches of sixteen are too small to share: a second thread costs more waiting than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    network: RegressionNetwork,
    x: Tensor,
    y: Tensor,
    parts: list[Tensor],
    training: GradientTraining,
    note: Callable[[str], None],
) -> dict[str, float]:
    """Leaves the network of the best epoch, in evaluation mode; how many there were, and which it is."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, training.decay)
    lowest, best, best_epoch, epoch = float("inf"), copy.deepcopy(network.state_dict()), 0, 0
    for epoch in range(1, training.epochs + 1):
        network.train()
        shuffled = parts[0][torch.randperm(len(parts[0]))]
        for first in range(0, len(shuffled), training.batch):
            rows = shuffled[first : first + training.batch]
            # Summed over the batch, as documented.
            loss = (network(x[rows])[:, 0] - y[rows]).square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        schedule.step()
        network.eval()
        validation = _figures(network, x[parts[1]], y[parts[1]])["mse"]
        if not np.isfinite(validation):
            raise OhloraError(f"the validation loss of epoch {epoch} is {validation}: use a lower learning rate")
        note(f"epoch {epoch}: validation loss {validation:.4f}")
        if validation < lowest:
            lowest, best, best_epoch = validation, copy.deepcopy(network.state_dict()), epoch
        elif epoch - best_epoch >= training.patience:
            break
    network.load_state_dict(best)
    network.eval()
    return {"epochs": epoch, "best_epoch": best_epoch}


@torch.no_grad()
def _figures(network: RegressionNetwork, x: Tensor, y: Tensor) -> dict[str, float]:
    read = torch.cat([network(part)[:, 0] for part in torch.split(x, 4096)]).double()
    error = read - y.double()
    mse = float(error.square().mean())
    return {
        "mse": mse,
        "mae": float(error.abs().mean()),
        "rmse": mse**0.5,
        "correlation": pearson(read.numpy(), y.double().numpy()),
    }


def load_published_network(path: Path | str) -> GradientNetwork:
    """A published network, `stylegan_gen_vector_find_v9_nn_{property}.pth`, with the sign that sets of directions have.

    Latents may have any length; the file does not say which space it is for, its length does. Raises CheckpointError
    naming the file and what is missing, unexpected or mis-shaped.
    """
    state = without_wrappers(read_pickle(Path(path)), KEYS)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is not a state dict of a gradient network: expected {', '.join(KEYS)}")
    for problem, keys in (("missing", set(KEYS) - state.keys()), ("unexpected", state.keys() - set(KEYS))):
        if keys:
            raise CheckpointError(f"{path} is not a gradient network, {problem}: {listed(sorted(keys))}")
    if unreal := sorted(key for key, value in state.items() if not usable(value)):
        raise CheckpointError(f"{path}: {listed(unreal)} must hold finite real numbers: the file is damaged")
    try:
        arrays = {key: value.detach().float().numpy() for key, value in state.items()}
        return GradientNetwork(arrays, PUBLISHED_SCALE)
    except InvalidInputError as error:
        raise CheckpointError(f"{path}: {error}") from error
