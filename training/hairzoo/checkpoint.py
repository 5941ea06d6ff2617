"""Checkpoints in the published layout (docs/spec/segmentation.md, section 8).

    {encoder}_{decoder}_fold{fold}_{light|heavy}[_celeb].pth
    {"encoder": state dict of the network, every key behind "encoder.", "optimizer": ..., "scheduler": ...}

Published files hold the scheduler as it was, with an object of PyTorch's inside, which the safe reader refuses. Its
class, and that of the optimizer it refers to, are read as empty stand-ins: nothing of theirs is ever called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.hairzoo.models import DECODERS, build_model
from ohlora.training.loop.states import save_tensors
from ohlora.training.weights.files import read_pickle, require_file
from ohlora.training.weights.state_dicts import Layout, load_layout

PREFIX = "encoder."  # the published program wraps the network in a module of that name
PARALLEL = "module."  # what nn.DataParallel puts before it
NAME = re.compile(r"(?P<encoder>.+)_(?P<decoder>[A-Za-z0-9]+)_fold(?P<fold>\d+)(?P<rest>(?:_[a-z]+)*)")
# Old name -> new name of parts, where the library has renamed them since 0.1.3.
RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "DeepLabV3": (("decoder.0.", "decoder.aspp."), ("decoder.1.", "decoder.conv."), ("decoder.2.", "decoder.bn.")),
}
TIMM_PREFIX = ("encoder.", "encoder.model.")  # encoders that the library now takes from timm


class StandIn:
    """Takes the place of an object in a pickle; keeps what the pickle says about it and does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.kept = state


def _plain_dict(factory: Any) -> dict[Any, Any]:
    """In place of collections.defaultdict: an optimizer keeps its state in one, and the safe reader cannot fill it."""
    return {}


# The safe reader looks globals up by module and, depending on its release, plain or qualified name.
_plain_dict.__module__, _plain_dict.__name__, _plain_dict.__qualname__ = "collections", "defaultdict", "defaultdict"

SCHEDULERS = ("CosineAnnealingWarmRestarts", "CosineAnnealingLR", "ReduceLROnPlateau")
OBJECTS = (*((name, "torch.optim.lr_scheduler") for name in SCHEDULERS), ("Adam", "torch.optim.adam"))
STAND_INS = (type(name, (StandIn,), {"__module__": module}) for name, module in OBJECTS)
ALLOWED: list[Callable[..., Any]] = [*STAND_INS, _plain_dict, dict]


class CheckpointName(NamedTuple):
    """What a file's name says."""

    encoder: str
    decoder: str
    fold: int


def parse_name(path: Path) -> CheckpointName | None:
    """The name's parts; None when it is not of the published form or the decoder is unknown."""
    match = NAME.fullmatch(path.stem)
    if match is None or match["decoder"] not in DECODERS:
        return None
    return CheckpointName(match["encoder"], match["decoder"], int(match["fold"]))


def save_checkpoint(path: Path, model: nn.Module, optimizer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    """Write the published layout. Atomic."""
    state = {PREFIX + key: value.detach().cpu() for key, value in model.state_dict().items()}
    save_tensors(path, {"encoder": state, "optimizer": optimizer, "scheduler": scheduler})


def model_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The network's own state of a published file, or of a bare state dict, without the wrappers' prefixes."""
    state = content.get("encoder", content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path} is no checkpoint of the zoo: it needs an entry 'encoder' with the network's tensors, and has "
            f"{', '.join(list(content)[:5]) or 'nothing'}"
        )
    # A network of the library has an encoder, a decoder and a head; behind the wrapper's prefix all look like encoder.
    for prefix, sign in ((PARALLEL, PARALLEL), (PREFIX, PREFIX + "decoder.")):
        if all(key.startswith(prefix) for key in state) and any(key.startswith(sign) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def renamed(state: Mapping[str, Tensor], model: nn.Module, decoder: str) -> dict[str, Tensor]:
    """Keys of older releases by the names of the installed one."""
    ours = model.state_dict()
    result = {}
    for key, value in state.items():
        found = key
        for old, new in (*RENAMED.get(decoder, ()), TIMM_PREFIX):
            if found not in ours and found.startswith(old) and new + found.removeprefix(old) in ours:
                found = new + found.removeprefix(old)
        result[found] = value
    return result


def load_weights(model: nn.Module, path: Path, decoder: str) -> None:
    """Put a checkpoint's weights into a network of the same encoder and decoder. Strict.

    Raises CheckpointError naming the file and the keys that are missing, unexpected or mis-shaped.
    """
    content = read_pickle(path, allowed=ALLOWED)
    state = renamed(model_state(content, path), model, decoder)
    try:
        load_layout(model, state, Layout({key: key for key in model.state_dict()}))
    except CheckpointError as error:
        named = parse_name(path)
        hint = f" (its name says {named.decoder} on {named.encoder})" if named else ""
        raise CheckpointError(f"{path} does not fit{hint}: {error}") from error


def load_checkpoint(
    path: Path, encoder: str | None = None, decoder: str | None = None, image_size: int | None = None
) -> nn.Module:
    """A network from a checkpoint, in evaluation mode; encoder and decoder by the file's name where not given.

    Raises CheckpointError naming the file, InvalidInputError when its name does not tell and neither do the arguments.
    """
    named = parse_name(require_file(path))
    encoder, decoder = encoder or (named and named.encoder), decoder or (named and named.decoder)
    if not encoder or not decoder:
        raise InvalidInputError(
            f"the name of {path} does not say which network it holds (ENCODER_DECODER_foldN_light.pth): give "
            "--encoder-type and --decoder-type"
        )
    # Building a network draws its initial weights; the caller's random stream shall not notice.
    with torch.random.fork_rng(devices=[]):
        model = build_model(encoder, decoder, image_size=image_size)
    load_weights(model, path, decoder)
    return model.eval()
