"""Files of tensors: safetensors with metadata, and pickles of which nothing is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ohlora.base.atomic import atomic_path
from ohlora.base.text import shown
from ohlora.errors import CheckpointError


class _Ignored:
    """Takes the place of NumPy's scalars, which training loops keep beside the weights; nothing of NumPy is called."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Name in a pickle, NumPy 1's and 2's; the safe reader wants an object of its own for each name.
NUMPY_STAND_INS = [
    (type("Ignored", (_Ignored,), {}), name)
    for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode")
]


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
        with warnings.catch_warnings(), torch.serialization.safe_globals([*NUMPY_STAND_INS, *allowed]):
            warnings.simplefilter("ignore")  # of the unpickler, about bytes that are no pickle
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        # PyTorch's own words are advice to read the file without care: only the object's name is taken from them.
        named = re.search(r"Unsupported (?:global: GLOBAL|class|operand) ([\w.]+)", str(error))
        reason = (
            f"it holds a {shown(named[1])}, and objects other than tensors are never executed: save the "
            "network's state_dict() alone"
            if named
            else "it is damaged or of another format: copy or download it again"
        )
        raise CheckpointError(f"cannot read {shown(path, 300)} as PyTorch weights: {reason}") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of named tensors")
    return content
