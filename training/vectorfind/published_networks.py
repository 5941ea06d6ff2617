"""The published gradient networks `stylegan_gen_vector_find_v9_nn_{property}.pth`
(docs/spec/vectorfind.md, section 6.3).
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.latents.gradient_network import KEYS, GradientNetwork
from ohlora.training.weights.state_dicts import listed

# Published networks raise the score along their gradient, sets of directions lower it (`ohlora.latents.directions`).
PUBLISHED_SCALE = -1.0


def load_published_network(path: Path | str) -> GradientNetwork:
    """The network of a state dict, for latents of any length, with the sign that sets of directions have.

    The file does not say which space it is for: its length does. Raises CheckpointError naming the file and what is
    missing, unexpected or mis-shaped.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read the gradient network {path}: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is no state dict of a gradient network: expected {', '.join(KEYS)}")
    for problem, keys in (("missing", KEYS.keys() - state.keys()), ("unexpected", state.keys() - KEYS.keys())):
        if keys:
            raise CheckpointError(f"{path} is no gradient network, {problem}: {listed(sorted(map(str, keys)))}")
    unreal = sorted(key for key, value in state.items() if value.is_complex())
    if unreal:
        raise CheckpointError(f"{path}: {listed(unreal)} must hold real numbers: the file is damaged")
    try:
        arrays = {key: value.detach().float().numpy() for key, value in state.items()}
        return GradientNetwork.from_arrays(arrays, PUBLISHED_SCALE)
    except InvalidInputError as error:
        raise CheckpointError(f"{path}: {error}") from error
