"""Checkpoints in the published layout (docs/spec/segmentation.md, section 8).

    {encoder}_{decoder}_fold{fold}_{light|heavy}[_celeb].pth
    {"encoder": state dict of the network, every key behind "encoder.", "optimizer": ..., "scheduler": ...}

Published files hold the scheduler as it was, with an object of PyTorch's inside, which the safe reader refuses. Its
class, and that of the optimizer it refers to, are read as empty stand-ins: nothing of theirs is ever called.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.base.atomic import atomic_path
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.hairzoo.models import DECODERS, build_model
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


def _stand_in(module: str, name: str) -> type[StandIn]:
    return type(name, (StandIn,), {"__module__": module})


def _plain_dict(factory: Any) -> dict[Any, Any]:
    """In place of collections.defaultdict: an optimizer keeps its state in one, and the safe reader cannot fill it."""
    return {}


# The safe reader looks globals up by module and, depending on its release, plain or qualified name.
_plain_dict.__module__, _plain_dict.__name__, _plain_dict.__qualname__ = "collections", "defaultdict", "defaultdict"

ALLOWED: list[Callable[..., Any]] = [
    _stand_in("torch.optim.lr_scheduler", "CosineAnnealingWarmRestarts"),
    _stand_in("torch.optim.lr_scheduler", "CosineAnnealingLR"),
    _stand_in("torch.optim.lr_scheduler", "ReduceLROnPlateau"),
    _stand_in("torch.optim.adam", "Adam"),
    _plain_dict,
    dict,
]


@dataclass(frozen=True)
class CheckpointName:
    """What a file's name says."""

    encoder: str
    decoder: str
    fold: int


@contextlib.contextmanager
def _allowing(classes: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """The safe reader takes `classes` too, for the time of the block."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([*classes])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def parse_name(path: Path) -> CheckpointName | None:
    """The name's parts; None when it is not of the published form or the decoder is unknown."""
    match = NAME.fullmatch(path.stem)
    if match is None or match["decoder"] not in DECODERS:
        return None
    return CheckpointName(match["encoder"], match["decoder"], int(match["fold"]))


def read_pickle(path: Path) -> Mapping[str, Any]:
    """A dictionary of tensors and plain values; other objects of it are not made. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}: check the path")
    try:
        with _allowing(ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        lines = (str(error).strip() or type(error).__name__).splitlines()
        # The reader's own reason stands below advice to read the file without care.
        reason = next((line for line in lines if "Unsupported" in line), lines[0])
        raise CheckpointError(
            f"cannot read {path} as PyTorch weights: {reason[:160]}. It is damaged, of another format, or holds "
            "objects other than tensors, which are never executed: copy or download it again"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of named tensors")
    return content


def save_checkpoint(path: Path, model: nn.Module, optimizer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    """Write the published layout. Atomic."""
    state = {PREFIX + key: value.detach().cpu() for key, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save({"encoder": state, "optimizer": optimizer, "scheduler": scheduler}, temporary)


def model_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The network's own state of a published file, or of a bare state dict, without the wrappers' prefixes."""
    state = content.get("encoder", content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path} is no checkpoint of the zoo: it needs an entry 'encoder' with the network's tensors, and has "
            f"{', '.join(list(content)[:5]) or 'nothing'}"
        )
    result = dict(state)
    if all(key.startswith(PARALLEL) for key in result):
        result = {key.removeprefix(PARALLEL): value for key, value in result.items()}
    # A network of the library has an encoder, a decoder and a head; behind the wrapper's prefix all look like encoder.
    if all(key.startswith(PREFIX) for key in result) and any(key.startswith(PREFIX + "decoder.") for key in result):
        result = {key.removeprefix(PREFIX): value for key, value in result.items()}
    return result


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
    state = renamed(model_state(read_pickle(path), path), model, decoder)
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
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}: check the path")
    named = parse_name(path)
    if named is None and (encoder is None or decoder is None):
        raise InvalidInputError(
            f"the name of {path} does not say which network it holds (ENCODER_DECODER_foldN_light.pth): give "
            "--encoder-type and --decoder-type"
        )
    if named is not None:
        encoder, decoder = encoder or named.encoder, decoder or named.decoder
    assert encoder is not None
    assert decoder is not None
    # Building a network draws its initial weights; the caller's random stream shall not notice.
    with torch.random.fork_rng(devices=[]):
        model = build_model(encoder, decoder, image_size=image_size)
    load_weights(model, path, decoder)
    return model.eval()
