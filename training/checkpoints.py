"""Weights files by kind: the published ones and our own (docs/design.md, section 6).

    load("stylegan-finetune-v8", "stylegan_gen_fine_tuned_v8.pth") -> Generator in evaluation mode

A kind is one entry of `KINDS`. Published files are pickles and are only read with `weights_only=True`; our
own are safetensors whose metadata name the kind and the configuration.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from ohlora.base.text import shown
from ohlora.errors import CheckpointError, InvalidInputError, one_line
from ohlora.training.weights.files import read_pickle, read_tensors, require_file, write_tensors
from ohlora.training.weights.state_dicts import (
    AVERAGED,
    STATES,
    Layout,
    PublishedNetwork,
    likeness,
    load_layout,
    shapes_of,
    without_wrappers,
)

M = TypeVar("M", bound=nn.Module)

OWN_FORMAT = "ohlora-module-1"
NESTED = "models"  # training snapshots hold their networks one level down
SMOOTH = "_smooth"  # suffix of the weight-averaged copy in a wrapped file
ALIKE = 0.5  # share of equal keys from which a file is said to look like a kind


@dataclass(frozen=True)
class Kind:
    """Where the `PublishedNetwork` of a kind is, and where a file has its tensors.

    module, name: of `ohlora.training.weights`; with versions, `name` is a function of the version (None: any size).
    part: entry of a wrapped file (a dict of state dicts) that holds the network.
    """

    module: str
    name: str
    part: str | None = None
    versions: bool = False
    version: str | None = None

    @functools.cached_property
    def network(self) -> PublishedNetwork[Any]:
        there = getattr(importlib.import_module(f"ohlora.training.weights.{self.module}"), self.name)
        network: PublishedNetwork[Any] = there(self.version) if self.versions else there
        return network


SCORE_CNNS = ("gender", "quality", "age", "glass", "property", "hairstyle", "merged")
# The version is that of the network's shape: v2 has v1's, VectorFind v6 and v7 have v4's
# (docs/spec/stylegan.md, section 7.1).
_GENERATORS = {
    "stylegan-celeba256": "original",
    "stylegan-finetune-v1": "v1",
    "stylegan-finetune-v2": "v1",
    "stylegan-finetune-v3": "v3",
    "stylegan-finetune-v4": "v4",
    "stylegan-finetune-v5": "v5",
    "stylegan-finetune-v8": "v8",
    "stylegan-finetune-v9": "v9",
    "stylegan-vectorfind-v6": "v4",
    "stylegan-vectorfind-v7": "v4",
    "stylegan-vectorfind-v8": "v8",
    "stylegan-vectorfind-v9": "v9",
    "stylegan": None,  # any size, our own files only
}
_DISCRIMINATORS = {
    "discriminator-celeba256": "original",
    "discriminator-finetune-v1": "v1",
    "discriminator-finetune-v4": "v4",
    "discriminator-finetune-v8": "v8",
    "discriminator-finetune-v9": "v9",
    "discriminator": None,
}
KINDS: dict[str, Kind] = {
    **{name: Kind("stylegan_keys", "generator", "generator", True, v) for name, v in _GENERATORS.items()},
    **{name: Kind("stylegan_keys", "discriminator", "discriminator", True, v) for name, v in _DISCRIMINATORS.items()},
    "discriminator-finetune-v5": Kind("stylegan_v5_discriminator_keys", "DISCRIMINATOR", "discriminator"),
    "effisegnet-v4": Kind("effisegnet_keys", "STUDENT", "model"),
    "facexformer": Kind("facexformer_keys", "TEACHER", "state_dict_backbone"),
    "bisenet-19": Kind("bisenet_keys", "PARSER"),
    "cvae-encoder-v3": Kind("cvae_encoder_keys", "ENCODER"),
    "mobilestylegan-ffhq": Kind("random_face", "PHOTOGRAPHIC"),
    # Documented width or any other.
    **{f"cnn-{name}": Kind("score_cnns_keys", "score_cnn", None, True, name) for name in SCORE_CNNS},
}


def kind_named(kind: str) -> Kind:
    """The entry of `kind`. Raises InvalidInputError naming the known ones."""
    if kind not in KINDS:
        raise InvalidInputError(f"unknown kind of weights '{kind}'; known: {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def load(kind: str, path: Path | str, *, smooth: bool = False) -> nn.Module:
    """Read the weights file `path` as `kind` -> module on the CPU, float32, in evaluation mode.

    Accepts a bare state dict, a dict of state dicts ("generator", "discriminator", ...), the same below
    "models", and our own `.safetensors`; for 'mobilestylegan-ffhq' the package's wheel, or a folder of its files.
    smooth: take the weight-averaged copy ("generator_smooth") of a wrapped file. Strict. Raises CheckpointError naming
    the file and what is wrong, InvalidInputError for an unknown kind.
    """
    network, path = kind_named(kind).network, Path(path)
    # Building a network draws its initial weights; the caller's random stream shall not notice.
    with torch.random.fork_rng(devices=[]):
        if network.read is not None and path.suffix != ".safetensors":
            published: nn.Module = network.read(path)
            return published.float().eval()
        require_file(path, f" (for kind '{kind}')")
        if path.suffix == ".safetensors":
            return _load_own(kind, network, path).eval()
        if network.make is None:
            raise CheckpointError(
                f"{path}: kind '{kind}' reads our own .safetensors only; name the kind of a published file"
            )
        state = _unwrap(KINDS[kind], read_pickle(path), path, smooth)
        try:
            module: nn.Module = network.load(state)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is no '{kind}': {error}{_recognise(kind, state)}") from error
        except Exception as error:  # sizes of the network come from shapes of the file, which may be any
            hint = _recognise(kind, state)
            raise CheckpointError(
                f"{path} is no '{kind}': its tensors are others ({one_line(error, 120)}){hint}"
            ) from error
    return module.float().eval()


def load_as(expected: type[M], kind: str, path: Path | str, *, smooth: bool = False) -> M:
    """`load` for callers that need a network of this class. Raises CheckpointError when the kind has another."""
    module = load(kind, path, smooth=smooth)
    if not isinstance(module, expected):
        raise CheckpointError(f"{path} is a {type(module).__name__}, needed is a {expected.__name__}")
    return module


def recognise(path: Path | str, among: Sequence[str]) -> str:
    """Which of the published kinds `among` the weights file `path` is, by its keys and shapes.

    Raises CheckpointError naming the file when it is none of them.
    """
    path = require_file(path)
    # Mapped, not read: only the keys count here. Files of PyTorch before 1.6 are no zip and cannot be mapped.
    content = read_pickle(path, mapped=zipfile.is_zipfile(path))
    scores: dict[str, float] = {}
    for kind in among:
        entry = kind_named(kind)
        with contextlib.suppress(CheckpointError):
            state = _unwrap(entry, content, path, smooth=False)
            scores[kind] = likeness(entry.network.shapes(), shapes_of(state))
    best = max(scores, key=lambda kind: scores[kind], default=None)
    if best is None or scores[best] < ALIKE:
        raise CheckpointError(f"{path} is none of {', '.join(among)}: its keys are others; check which file it is")
    return best


def save(module: nn.Module, path: Path | str, kind: str) -> None:
    """Write a module as our own `.safetensors`; `load(kind, path)` reads it back. Atomic."""
    network = kind_named(kind).network
    if Path(path).suffix != ".safetensors" or network.own is None:
        raise InvalidInputError(
            f"cannot write {path}: '{kind}' needs a .safetensors name and a kind with a configuration"
        )
    metadata = {"format": OWN_FORMAT, "kind": kind, "config": json.dumps(network.config(module))}
    write_tensors(path, module.state_dict(), metadata)


def _load_own(kind: str, network: PublishedNetwork[Any], path: Path) -> nn.Module:
    metadata, state = read_tensors(path)
    if metadata.get("format") != OWN_FORMAT or network.own is None:
        raise CheckpointError(
            f"{path} was not written by this package as '{kind}' (metadata {shown(json.dumps(metadata), 120)})"
        )
    stored = metadata.get("kind")
    if stored != kind:
        raise CheckpointError(f"{path} is no '{kind}': its metadata say '{stored}'; load it as that")
    try:
        module: nn.Module = network.own(json.loads(metadata["config"]))
        load_layout(module, state, Layout({key: key for key in module.state_dict()}))
    except Exception as error:  # its configuration may say anything
        raise CheckpointError(f"{path} is no valid '{kind}': {one_line(error)}") from error
    return module


def _is_state(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(x, Tensor) for x in value.values())


def _unwrap(entry: Kind, content: Mapping[str, Any], path: Path, smooth: bool) -> Mapping[str, Tensor]:
    """The state dict inside a bare, wrapped or nested file, without the prefixes of modules around the network."""
    if isinstance(content.get(NESTED), Mapping):
        content = content[NESTED]
    parts = {key: value for key, value in content.items() if _is_state(value)}
    known = entry.network.shapes()
    wanted = (entry.part or "") + (SMOOTH if smooth else "")
    if wanted in parts:
        return without_wrappers(parts[wanted], known)
    if inside := next((name for name in (AVERAGED if smooth else (*STATES, *AVERAGED)) if name in parts), None):
        return without_wrappers(parts[inside], known)
    if entry.part is not None and parts:
        averaged = "; pass smooth=True for the averaged copy" if wanted + SMOOTH in parts else ""
        raise CheckpointError(f"{path} has no entry '{wanted}', only {', '.join(sorted(parts))}{averaged}")
    if smooth:
        raise CheckpointError(f"{path} is a bare state dict, without a weight-averaged copy: leave smooth out")
    if not _is_state(content):
        foreign = sorted(key for key, value in content.items() if not isinstance(value, Tensor))
        raise CheckpointError(f"{path} is no state dict: no tensors under {', '.join(foreign[:3]) or 'any key'}")
    return without_wrappers(content, known)


def _recognise(kind: str, state: Mapping[str, Tensor]) -> str:
    """A hint naming the kinds whose keys and shapes fit better than those of `kind`; may be empty."""
    known: dict[tuple[object, ...], float] = {}  # kinds share layouts: look at each once
    scores: dict[str, float] = {}
    for name, entry in KINDS.items():
        identity = (entry.module, entry.name, entry.version)
        if identity not in known:
            known[identity] = likeness(entry.network.shapes(), shapes_of(state))
        scores[name] = known[identity]
    best = max(scores.values(), default=0.0)
    if best < ALIKE or best <= scores.get(kind, 0.0):
        return ""
    names = ", ".join(name for name, score in scores.items() if score == best)
    return f". Its keys {'are those of' if best == 1.0 else 'resemble'} {names}"
