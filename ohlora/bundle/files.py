"""The files of a bundle: found, checked against the manifest, and read."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.arrays import read_safetensors
from ohlora.base.atomic import recover_folder
from ohlora.base.reading import why_not
from ohlora.bundle.installed import NAME, installed_folder, installed_names
from ohlora.bundle.manifest import MANIFEST_NAME, FileEntry, generator_identity
from ohlora.bundle.photo.bundles import PHOTO_BUNDLES
from ohlora.errors import BundleError
from ohlora.kernels.gpu.arrays import fits

# Hashing a bundle takes a while; one process need not do it twice for a file that has not changed.
_HASHES: dict[tuple[str, int, int], str] = {}
_SETTLED_NS = 2_000_000_000


def locate(path_or_name: str | os.PathLike[str]) -> Path:
    """Folder of a bundle: of the shipped or installed one for a bare name, else the one given. Raises BundleError.

    A bare name is a text without separators; it never means a folder of the working directory (./NAME does).
    """
    text = os.fspath(path_or_name)
    if isinstance(path_or_name, str) and NAME.fullmatch(text):
        return _named(text)
    path = recover_folder(text)
    if path.is_dir():
        return path.absolute()
    if path.exists():
        raise BundleError(f"{path} is a file: give the bundle's folder")
    raise BundleError(f"there is no bundle folder {path}")


def _named(name: str) -> Path:
    shipped = Path(str(importlib.resources.files("ohlora"))) / "bundle"
    if (shipped / name / MANIFEST_NAME).is_file():
        return shipped / name
    installed = installed_folder(name)
    if installed is not None:
        return installed
    if name in PHOTO_BUNDLES:
        raise BundleError(f"there is no bundle '{name}' yet: `ohlora bundle get {name}` installs it")
    if Path(name).is_dir():
        raise BundleError(f"there is no bundle '{name}': for the folder here, give ./{name}")
    names = sorted(entry.parent.name for entry in shipped.glob(f"*/{MANIFEST_NAME}"))
    raise BundleError(
        f"there is no bundle '{name}': the package ships {', '.join(names) or 'none'}, installed are "
        f"{', '.join(installed_names()) or 'none'}; a folder is given with its path (./{name})"
    )


def file_sha256(path: Path) -> str:
    """sha256 of a file, remembered in this process as long as its time and size stay."""
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    if key in _HASHES:
        return _HASHES[key]
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    # A file this young can change again within one tick of its clock, and its key would not show it.
    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        _HASHES[key] = digest.hexdigest()
    return digest.hexdigest()


def generator_identity_of(*files: Path) -> str:
    """Identity of a generator not in a bundle yet: what it draws.

    files: those of `GeneratorPart.files`, in that order: mapping, synthesis, constants, mapping_end if there is one.
    """
    return generator_identity(*(file_sha256(path) for path in files))


def verified_file(folder: Path, name: str, entry: FileEntry, remedy: str) -> Path:
    """`folder / name`, with the size and sha256 of `entry`, and no link leading out of `folder`.

    Raises BundleError ending in `remedy`.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
        size = real.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links on Python before 3.13
        raise BundleError(f"{path} is missing: {remedy}") from error
    if not real.is_relative_to(folder.resolve()):
        raise BundleError(f"{path} is a link out of the bundle, to {real}: replace it by the file itself")
    if not real.is_file():
        raise BundleError(f"{path} is not a file: {remedy}")
    if size != entry.size:
        raise BundleError(f"{path} has {size} bytes, the manifest says {entry.size}: {remedy}")
    try:
        digest = file_sha256(real)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {why_not(error)}") from error
    if digest != entry.sha256:
        raise BundleError(f"{path} does not match its sha256 in the manifest: {remedy}")
    return path


def read_arrays(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, NDArray[Any]]:
    """The named arrays of a safetensors file, float32 or float64 as stored. None in a shape: any size.

    Raises BundleError when one is absent, of another shape or type, or not finite.
    """
    _, arrays = read_safetensors(path, error=BundleError, remedy="build the bundle again")
    chosen = {}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or not fits(array.shape, shape) or array.dtype not in (np.float32, np.float64):
            got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise BundleError(f"{path}: '{name}' must be float [{wanted}], got {got}")
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: '{name}' holds NaN or infinity")
        chosen[name] = array
    return chosen
