"""Files of tensors: safetensors with metadata, and pickles of which nothing is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ohlora.base.atomic import atomic_path
from ohlora.errors import CheckpointError


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; it is damaged or not a safetensors file") from error


def read_metadata(path: Path | str) -> dict[str, str]:
    """What a safetensors file says about itself. Raises CheckpointError naming a damaged or foreign one."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_tensors(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors by name) of a safetensors file. Raises CheckpointError naming a damaged or foreign one."""
    with _opened(path) as file:
        return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def write_tensors(path: Path | str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """What `read_tensors` reads back, on the CPU. Atomic."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata))


def require_file(path: Path | str, why: str = "") -> Path:
    """The path of a weights file. Raises CheckpointError when it is not there."""
    if not Path(path).is_file():
        raise CheckpointError(f"no weights file {path}{why}: check the path")
    return Path(path)


def read_pickle(path: Path, *, mapped: bool = False, allowed: Sequence[Any] = ()) -> Mapping[str, Any]:
    """A dictionary that PyTorch saved, its tensors on the CPU.

    mapped: read a tensor when it is used. allowed: further types that may be unpickled.
    Raises CheckpointError for a missing or damaged file, other objects (which are never made) and anything but a
    dictionary with text keys.
    """
    require_file(path)
    try:
        with torch.serialization.safe_globals([*allowed]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        lines = (str(error).strip() or type(error).__name__).splitlines()
        # The unpickler's own reason stands below advice to read the file without care.
        reason = next((line for line in lines if "Unsupported" in line), lines[0])
        raise CheckpointError(
            f"cannot read {path} as PyTorch weights: {reason[:200]}. It is damaged, of another format, or "
            "holds objects other than tensors, which are never executed: copy or download it again"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of named tensors")
    return content
