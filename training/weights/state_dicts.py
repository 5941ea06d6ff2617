"""Strict loading of state dicts named otherwise than ours: every key is used, or the error names it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ohlora.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]
M = TypeVar("M", bound=nn.Module)
SHOWN = 3  # keys named in a message; the rest is counted


@dataclass(frozen=True)
class Layout:
    """How a file stores a module.

    names: key in the file -> key of the module's state dict, one to one. constants: keys of the file that
    hold what is a constant in our module; their values are compared, not loaded.
    """

    names: Mapping[str, str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def shapes(self, module: nn.Module) -> Shapes:
        """Every key of a file of this layout, with its shape."""
        ours = module.state_dict()
        shapes = {theirs: tuple(ours[name].shape) for theirs, name in self.names.items()}
        return shapes | {key: tuple(value.shape) for key, value in self.constants.items()}

    def inside(self, theirs: str, ours: str) -> dict[str, str]:
        """The names where file and state dict hold the module among others, with these prefixes."""
        return {theirs + name: ours + own for name, own in self.names.items()}

    def rename(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's state in this layout; tensors are shared with the module."""
        ours = module.state_dict()
        return {theirs: ours[name] for theirs, name in self.names.items()} | dict(self.constants)


@dataclass(frozen=True)
class PublishedNetwork(Generic[M]):
    """A network that weights files hold: how modules, published files and our own files become each other.

    layout: names in a published file of this module. make: a module with fresh weights of the sizes in a published
    file, of the documented ones without a file; None when no file of it was published. dead: keys that are saved and
    never used. repair: of a file before it is read. own: a module with fresh weights from the configuration that our
    own files store, `config` of the module; None when there are no own files. read: a module from published files that
    are not a state dict of PyTorch; then there is no `make`.
    """

    layout: Callable[[M], Layout]
    make: Callable[[Mapping[str, Tensor]], M] | None = None
    dead: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    repair: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    own: Callable[[dict[str, Any]], M] | None = None
    config: Callable[[M], dict[str, Any]] = lambda module: asdict(module.config)  # type: ignore[call-overload]
    read: Callable[[Path], M] | None = None

    def shapes(self) -> Shapes:
        """Every key of the documented file with its shape; none when no file was published."""
        if self.make is None:
            return {}
        with torch.device("meta"):
            module = self.make({})
        return self.layout(module).shapes(module) | dict(self.dead)

    def load(self, state: Mapping[str, Tensor]) -> M:
        """A published state dict as a module. Raises CheckpointError naming missing, foreign or mis-shaped keys."""
        if self.make is None:
            raise CheckpointError("no file of this network was published")
        dead = {key for key, shape in self.dead.items() if key in state and tuple(state[key].shape) == shape}
        module = self.make(state)
        state = self.repair({key: value for key, value in state.items() if key not in dead})
        load_layout(module, state, self.layout(module))
        return module


def load_layout(module: nn.Module, state: Mapping[str, Tensor], layout: Layout) -> None:
    """Copy `state` into `module`. Raises CheckpointError naming missing, unexpected, mis-shaped or unusable
    keys.
    """
    problems = differences(layout.shapes(module), shapes_of(state))
    if problems:
        raise CheckpointError("; ".join(problems))
    unusable = [key for key, value in state.items() if not usable(value)]
    if unusable:
        raise CheckpointError(f"not finite real numbers in {listed(unusable)}: the file is damaged")
    changed = [key for key, value in layout.constants.items() if not torch.allclose(state[key].float(), value)]
    if changed:
        raise CheckpointError(f"other values than the fixed ones in {listed(changed)}: a network of another kind")
    module.load_state_dict({ours: state[theirs] for theirs, ours in layout.names.items()}, strict=True)


# What training loops put before every key: DataParallel, torch.compile, Lightning and other wrapping modules.
WRAPPERS = ("module.", "_orig_mod.", "model.", "_forward_module.", "net.", "network.")
# Entries of training snapshots that hold the network's state; the weight-averaged copies come after the others.
STATES = ("state_dict", "model_state_dict", "model", "module", "network", "net", "params")
AVERAGED = ("ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema_model", "params_ema")


def without_wrappers(state: Mapping[str, Tensor], known: Container[str]) -> Mapping[str, Tensor]:
    """`state` without the prefixes of wrapping modules, where keys in `known` come out; else as it is."""
    bare = state
    while bare and not any(key in known for key in bare):
        prefix = next((one for one in WRAPPERS if all(key.startswith(one) for key in bare)), None)
        if prefix is None:
            return state
        bare = {key.removeprefix(prefix): value for key, value in bare.items()}
    return bare


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def usable(value: Tensor) -> bool:
    """Whether a tensor is a plain one of finite real numbers."""
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_complex()
    return plain and bool(torch.isfinite(value).all())


def differences(expected: Shapes, found: Shapes) -> list[str]:
    """One phrase for each way in which `found` is not `expected`; empty when they agree."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{key} {list(found[key])} instead of {list(shape)}"
        for key, shape in sorted(expected.items())
        if key in found and found[key] != shape
    ]
    problems = []
    for name, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", misshapen)):
        if keys:
            problems.append(f"{len(keys)} {name}: {listed(keys)}")
    return problems


def listed(keys: Iterable[str]) -> str:
    """The first few keys, and how many more there are."""
    keys = list(keys)
    shown = ", ".join(keys[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"


def likeness(expected: Shapes, found: Shapes) -> float:
    """Share of keys, of both together, that agree in name and shape; 1 = the same."""
    union = len(expected.keys() | found.keys())
    return sum(found.get(key) == shape for key, shape in expected.items()) / union if union else 0.0
