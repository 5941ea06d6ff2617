"""States of a training on disk: written whole or not at all, read without running anything that they hold."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Union

import torch

from ohlora.base.atomic import atomic_path, explain_os_error
from ohlora.errors import InvalidInputError


class Stateful(Protocol):
    """A network, an optimizer, a schedule: whatever has a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


Parts = Mapping[str, Union[Stateful, "Parts"]]


def states_of(parts: Parts) -> dict[str, Any]:
    """The state of every part, by the same names."""
    return {name: states_of(part) if isinstance(part, Mapping) else part.state_dict() for name, part in parts.items()}


def load_states(parts: Parts, states: Mapping[str, Any]) -> None:
    """Give every part its state of `states`. Raises InvalidInputError where they are states of other parts."""
    try:
        _load(parts, states)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(f"the resume state is of other networks: {first_line(error)}; use --restart") from error


def _load(parts: Parts, states: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        if isinstance(part, Mapping):
            _load(part, states[name])
        else:
            part.load_state_dict(states[name])


def save_tensors(path: Path, content: Any) -> None:
    """torch.save of tensors and plain values, atomically. Raises OutputError, also when the disk fills up meanwhile."""
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # PyTorch's zip writer makes this of any failed write
            cause = error.__context__
            raise explain_os_error(path, cause if isinstance(cause, OSError) else OSError(errno.ENOSPC, "")) from error


def load_tensors(path: Path, remedy: str = "delete it, or use --restart") -> dict[str, Any]:
    """What `save_tensors` wrote, on the CPU. Raises InvalidInputError when it is damaged."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        raise damaged(path, error, remedy) from error
    return content


def damaged(path: Path, error: Exception, remedy: str = "delete it, or use --restart") -> InvalidInputError:
    """What to say about a state that cannot be read, and what to do."""
    return InvalidInputError(f"cannot resume from {path}: {first_line(error)}; {remedy}")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
