"""The reference data's arrays and pictures, and how near to them is near enough."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = 1e-4


@cache
def arrays(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def near(made: Tensor | NDArray[Any], wanted: NDArray[Any], tolerance: float = TOLERANCE) -> None:
    made = np.asarray(made)
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() <= tolerance


def pixels(image: Tensor, data: dict[str, Any]) -> Tensor:
    rows, columns = data["pix_yx"].T
    return image[:, :, rows, columns]


def tensor(data: dict[str, Any], key: str) -> Tensor:
    return torch.from_numpy(data[key])


def rule_images(seed: int) -> Tensor:
    """The eight seeded pictures of the reference data."""
    stream = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros((8, 3, 256, 256))
    for size, amount in ((4, 0.4), (16, 0.3), (64, 0.2), (256, 0.1)):
        draw = stream.standard_normal((8, 3, size, size))
        total += amount * draw.repeat(256 // size, 2).repeat(256 // size, 3)
    return torch.from_numpy(np.clip(total, -1, 1).astype(np.float32))
