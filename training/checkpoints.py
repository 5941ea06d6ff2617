"""Weights files by kind: the published ones and our own (docs/design.md, section 6).

    load("stylegan-finetune-v8", "stylegan_gen_fine_tuned_v8.pth") -> Generator in evaluation mode

A kind is one entry of `KINDS`. Published files are pickles and are only read with `weights_only=True`; our
own are safetensors whose metadata name the kind and the configuration.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ohlora.base.atomic import atomic_path
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.weights.state_dicts import Layout, Shapes, likeness, load_layout

OWN_FORMAT = "ohlora-module-1"
NESTED = "models"  # training snapshots hold their networks one level down
SMOOTH = "_smooth"  # suffix of the weight-averaged copy in a wrapped file
ALIKE = 0.5  # share of equal keys from which a file is said to look like a kind


@dataclass(frozen=True)
class Kind:
    """How to make a module from a file's state dict.

    module, build: `build(state)` or `build(state, version)` of this module returns the network; strict,
        raising CheckpointError, KeyError or RuntimeError.
    part: entry of a wrapped file (a dict of state dicts) that holds the network.
    shapes: `shapes(version)` of the same module gives the published keys and shapes; used to recognise files.
    own, config: `own(config)` makes an empty module for our own files, `config(module)` gives what they
    store.
    """

    module: str
    build: str | None = None
    version: str | None = None
    part: str | None = None
    shapes: str | None = None
    own: str | None = None
    config: str | None = None

    def call(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), name)
        return function(*arguments)

    @property
    def arguments(self) -> tuple[str, ...]:
        return () if self.version is None else (self.version,)


STYLEGAN = "ohlora.training.weights.stylegan_keys"
SCORE_CNNS = ("gender", "quality", "age", "glass", "property", "hairstyle", "merged")


def _generator(version: str | None) -> Kind:
    build, shapes = ("import_generator", "generator_shapes") if version else (None, None)
    return Kind(STYLEGAN, build, version, "generator", shapes, "generator_from_config", "config_of")


def _discriminator(version: str | None) -> Kind:
    build, shapes = ("import_discriminator", "discriminator_shapes") if version else (None, None)
    return Kind(STYLEGAN, build, version, "discriminator", shapes, "discriminator_from_config", "config_of")


def _score_cnn(name: str) -> Kind:
    module = "ohlora.training.weights.score_cnns_keys"
    return Kind(module, "from_upstream", name, None, "published_shapes", "from_config", "config_of")


# The version is that of the network's shape: v2 has v1's, VectorFind v6 and v7 have v4's
# (docs/spec/stylegan.md, section 7.1).
KINDS: dict[str, Kind] = {
    "stylegan-celeba256": _generator("original"),
    "stylegan-finetune-v1": _generator("v1"),
    "stylegan-finetune-v2": _generator("v1"),
    "stylegan-finetune-v3": _generator("v3"),
    "stylegan-finetune-v4": _generator("v4"),
    "stylegan-finetune-v5": _generator("v5"),
    "stylegan-finetune-v8": _generator("v8"),
    "stylegan-finetune-v9": _generator("v9"),
    "stylegan-vectorfind-v6": _generator("v4"),
    "stylegan-vectorfind-v7": _generator("v4"),
    "stylegan-vectorfind-v8": _generator("v8"),
    "stylegan-vectorfind-v9": _generator("v9"),
    "discriminator-celeba256": _discriminator("original"),
    "discriminator-finetune-v1": _discriminator("v1"),
    "discriminator-finetune-v4": _discriminator("v4"),
    "discriminator-finetune-v8": _discriminator("v8"),
    "discriminator-finetune-v9": _discriminator("v9"),
    "effisegnet-v4": Kind(
        "ohlora.training.weights.effisegnet_keys", "from_upstream", part="model", shapes="published_shapes"
    ),
    "facexformer": Kind(
        "ohlora.training.weights.facexformer_keys",
        "from_upstream",
        part="state_dict_backbone",
        shapes="published_shapes",
    ),
    "bisenet-19": Kind("ohlora.training.weights.bisenet_keys", "from_upstream", shapes="published_shapes"),
    # Documented width or any other.
    **{f"cnn-{name}": _score_cnn(name) for name in SCORE_CNNS},
    "cvae-encoder-v3": Kind(
        "ohlora.training.weights.cvae_encoder_keys",
        "from_upstream",
        shapes="published_shapes",
        own="from_config",
        config="config_of",
    ),
    "discriminator-finetune-v5": Kind(
        "ohlora.training.weights.stylegan_v5_discriminator_keys",
        "from_upstream",
        part="discriminator",
        shapes="published_shapes",
        own="from_config",
        config="config_of",
    ),
    # Any size, our own files only.
    "stylegan": _generator(None),
    "discriminator": _discriminator(None),
}


def kind_named(kind: str) -> Kind:
    """The entry of `kind`. Raises InvalidInputError naming the known ones."""
    if kind not in KINDS:
        raise InvalidInputError(f"unknown kind of weights '{kind}'; known: {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def load(kind: str, path: Path | str, *, smooth: bool = False) -> nn.Module:
    """Read the weights file `path` as `kind` -> module on the CPU, float32, in evaluation mode.

    Accepts a bare state dict, a dict of state dicts ("generator", "discriminator", ...), the same below
    "models", and our own `.safetensors`. smooth: take the weight-averaged copy ("generator_smooth") of a
    wrapped file. Strict. Raises CheckpointError naming the file and what is wrong, InvalidInputError for an unknown
    kind.
    """
    entry, path = kind_named(kind), Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights file {path} (for kind '{kind}'): check the path")
    # Building a network draws its initial weights; the caller's random stream shall not notice.
    with torch.random.fork_rng(devices=[]):
        if path.suffix == ".safetensors":
            return _load_own(kind, entry, path).eval()
        if entry.build is None:
            raise CheckpointError(
                f"{path}: kind '{kind}' reads our own .safetensors only; name the kind of a published file"
            )
        state = _unwrap(entry, _read_pickle(path), path, smooth)
        try:
            module: nn.Module = entry.call(entry.build, state, *entry.arguments)
        except (CheckpointError, KeyError, RuntimeError) as error:
            hint = _recognise(kind, state)
            raise CheckpointError(f"{path} is no '{kind}': {error}{hint}") from error
    return module.float().eval()


def recognise(path: Path | str, among: Sequence[str]) -> str:
    """Which of the published kinds `among` the weights file `path` is, by its keys and shapes.

    Raises CheckpointError naming the file when it is none of them.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}: check the path")
    # Mapped, not read: only the keys count here. Files of PyTorch before 1.6 are no zip and cannot be mapped.
    content = _read_pickle(path, mapped=zipfile.is_zipfile(path))
    scores: dict[str, float] = {}
    for kind in among:
        entry = kind_named(kind)
        try:
            state = _unwrap(entry, content, path, smooth=False)
        except CheckpointError:
            continue
        found: Shapes = {key: tuple(value.shape) for key, value in state.items()}
        assert entry.shapes is not None, f"kind '{kind}' has no published keys"
        scores[kind] = likeness(entry.call(entry.shapes, *entry.arguments), found)
    best = max(scores, key=lambda kind: scores[kind], default=None)
    if best is None or scores[best] < ALIKE:
        raise CheckpointError(f"{path} is none of {', '.join(among)}: its keys are others; check which file it is")
    return best


def save(module: nn.Module, path: Path | str, kind: str) -> None:
    """Write a module as our own `.safetensors`; `load(kind, path)` reads it back. Atomic."""
    entry, path = kind_named(kind), Path(path)
    if path.suffix != ".safetensors" or entry.config is None:
        raise InvalidInputError(
            f"cannot write {path}: '{kind}' needs a .safetensors name and a kind with a configuration"
        )
    metadata = {"format": OWN_FORMAT, "kind": kind, "config": json.dumps(entry.call(entry.config, module))}
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _load_own(kind: str, entry: Kind, path: Path) -> nn.Module:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; it is damaged or no safetensors file") from error
    if metadata.get("format") != OWN_FORMAT or entry.own is None:
        raise CheckpointError(f"{path} was not written by this package as '{kind}' (metadata {json.dumps(metadata)})")
    stored = metadata.get("kind")
    if stored != kind:
        raise CheckpointError(f"{path} is no '{kind}': its metadata say '{stored}'; load it as that")
    try:
        module: nn.Module = entry.call(entry.own, json.loads(metadata["config"]))
        load_layout(module, state, Layout({key: key for key in module.state_dict()}))
    except (CheckpointError, InvalidInputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no valid '{kind}': {error}") from error
    return module


def _read_pickle(path: Path, mapped: bool = False) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot read {path} as PyTorch weights: {reason[:200]}. It is damaged, of another format, or "
            "holds objects other than tensors, which are never executed: download it again"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of named tensors")
    return content


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(x, Tensor) for x in value.values())


def _unwrap(entry: Kind, content: Mapping[str, Any], path: Path, smooth: bool) -> Mapping[str, Tensor]:
    """The state dict inside a bare, wrapped or nested file."""
    if isinstance(content.get(NESTED), Mapping):
        content = content[NESTED]
    parts = {key: value for key, value in content.items() if _is_state(value)}
    if entry.part is not None and parts:
        wanted = entry.part + SMOOTH if smooth else entry.part
        if wanted in parts:
            return parts[wanted]
        averaged = "; pass smooth=True for the averaged copy" if wanted + SMOOTH in parts else ""
        raise CheckpointError(f"{path} has no entry '{wanted}', only {', '.join(sorted(parts))}{averaged}")
    if smooth:
        raise CheckpointError(f"{path} is a bare state dict, without a weight-averaged copy: leave smooth out")
    if not _is_state(content):
        foreign = sorted(key for key, value in content.items() if not isinstance(value, Tensor))
        raise CheckpointError(f"{path} is no state dict: no tensors under {', '.join(foreign[:3]) or 'any key'}")
    return content


def _recognise(kind: str, state: Mapping[str, Tensor]) -> str:
    """A hint naming the kinds whose keys and shapes fit better than those of `kind`; may be empty."""
    found: Shapes = {key: tuple(value.shape) for key, value in state.items()}
    scores: dict[str, float] = {}
    known: dict[tuple[str, ...], float] = {}  # kinds share layouts: look at each once
    for name, entry in KINDS.items():
        if entry.shapes is not None:
            identity = (entry.module, entry.shapes, *entry.arguments)
            if identity not in known:
                known[identity] = likeness(entry.call(entry.shapes, *entry.arguments), found)
            scores[name] = known[identity]
    best = max(scores.values(), default=0.0)
    if best < ALIKE or best <= scores.get(kind, 0.0):
        return ""
    names = ", ".join(name for name, score in scores.items() if score == best)
    return f". Its keys {'are those of' if best == 1.0 else 'resemble'} {names}"
