"""Pictures for score CNNs: read once at 256 pixels, then kept in memory, or on disk behind a memory map."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohlora.base.reading import why_not
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import read_image
from ohlora.kernels.threads import for_each
from ohlora.training.gan.store import ImageStore
from ohlora.training.nets.score_cnns import SIZE

Images = NDArray[np.uint8]  # [N, 256, 256, 3] RGB
Gather = Callable[[NDArray[np.int64]], Images]  # rows [N] -> their pictures
MEMORY_LIMIT = 2**30  # bytes of pictures kept in memory; more go to disk
SHOWN = 5


def read_picture(path: Path) -> Images:
    """uint8 [256,256,3] RGB; other sizes are resized, bilinear, antialiased when shrinking (as `at_cnn_size`).

    Raises ImageError naming the file when it cannot be read or is not square.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    if height != width:
        raise ImageError(f"cannot use {path}: it has {width} x {height} pixels, score CNNs see square faces; crop it")
    if height == SIZE:
        return image
    return np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def read_all(paths: Sequence[Path]) -> Images:
    """Many at once, by threads -> [N,256,256,3]. Raises ImageError for the first that cannot be read."""
    images = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)

    def read(row: int) -> None:
        images[row] = read_picture(paths[row])

    for_each(read, len(paths), images.size, None)
    return images


def fingerprint(paths: Mapping[int, Path]) -> str:
    """Numbers, names, sizes and times of pictures in 16 letters: changes when one of them is replaced."""
    lines = []
    for number, path in paths.items():
        try:
            info = path.stat()
        except OSError as error:
            raise ImageError(f"cannot read {path}: {why_not(error)}") from error
        lines.append(f"{number} {path.name} {info.st_size} {info.st_mtime_ns}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def of_numbers(paths: Mapping[int, Path], numbers: Iterable[int], what: str, folder: Path) -> dict[int, Path]:
    """The pictures of `numbers`, in that order. Raises InvalidInputError naming the first numbers without a picture.

    what: what the numbers have, for the message ("labels").
    """
    wanted = [int(number) for number in numbers]
    missing = [number for number in wanted if number not in paths]
    if missing:
        raise InvalidInputError(
            f"{len(missing)} of {len(wanted)} {what} have no picture in {folder}: number {first_of(missing)}. They "
            "belong to other pictures: check the table and the folder"
        )
    return {number: paths[number] for number in wanted}


def first_of(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """The first few numbers, for a message."""
    return ", ".join(map(str, numbers[:SHOWN])) + (" ..." if len(numbers) > SHOWN else "")


def load_pictures(paths: Mapping[int, Path], store: Path, fabric: Fabric, note: Callable[[str], None]) -> Gather:
    """Read all pictures once, for every process; `gather(rows)` then gives any of them, in the order of `paths`.

    store: folder for the memory-mapped copy where they are too many for memory; the first process writes it, the others
    wait. note: told when that happens. Raises ImageError for a picture that cannot be read, OutputError for a full
    disk.
    """
    files, size = list(paths.values()), len(paths) * SIZE * SIZE * 3
    if size <= MEMORY_LIMIT:
        images = read_all(files)
        return lambda rows: images[rows]
    name = f"pictures-{fingerprint(paths)}"
    if fabric.is_global_zero:
        note(f"{len(files)} pictures ({size / 2**30:.1f} GiB) are kept in {store / name}")
    else:
        fabric.barrier()
    disk = ImageStore(store / name, {"pictures": name}, len(files), SIZE)
    disk.fill(lambda first, end: read_all(files[first:end]))
    if fabric.is_global_zero:
        fabric.barrier()
    return disk.gather


def network_input(images: Images, device: torch.device, signed: bool) -> Tensor:
    """uint8 [N,256,256,3] -> float32 [N,3,256,256], channels last in memory: [0,1], or [-1,1] where signed."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    scaled = pixels.to(torch.float32, memory_format=torch.channels_last).div_(255)
    return scaled.sub_(0.5).div_(0.5) if signed else scaled
