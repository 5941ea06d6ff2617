"""What a picture goes through on its way into a network (docs/spec/segmentation.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ohlora.base.types import Rgb
from ohlora.training.data.hair_faces import LabelledPicture
from ohlora.training.hairzoo import distort
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.distort import Pair
from ohlora.training.hairzoo.pictures import Mask
from ohlora.training.teachers.protocol import normalized

Sample = tuple[NDArray[np.float32], NDArray[np.float32]]  # picture [3,S,S], normalised; label [1,S,S] in [0,1]

CONTRAST, BRIGHTNESS, GAMMA = 0.2, 0.2, (80, 120)  # shares; hundredths
P_COLOR, P_DISTORT, P_MOVE, P_DROPOUT = 0.3, 0.3, 0.2, 0.1


LEVELS = np.arange(256)
# What becomes of the levels: contrast, gamma, brightness.
COLORS: tuple[Callable[[np.random.Generator], NDArray[np.floating]], ...] = (
    lambda rng: LEVELS * (1 + rng.uniform(-CONTRAST, CONTRAST)),
    lambda rng: (LEVELS / 255) ** (int(rng.integers(GAMMA[0], GAMMA[1] + 1)) / 100) * 255,
    lambda rng: LEVELS + 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS),
)
DISTORTIONS = (distort.elastic, distort.grid, distort.optical)


def looked_up(image: Rgb, table: NDArray[np.floating]) -> Rgb:
    """table: what becomes of 0 .. 255; rounded and kept in that range."""
    return np.asarray(cv2.LUT(image, np.clip(np.round(table), 0, 255).astype(np.uint8)), np.uint8)


def augment(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """The documented steps, each with its probability. Picture [S,S,3] and mask [S,S], uint8, come out as such.

    The published program runs its colour steps on floats of 0 .. 255 with a library that takes floats for 0 .. 1:
    contrast and brightness then clip nearly every pixel to black. Here they work on 8 bits, as meant.
    """
    if rng.random() < P_COLOR:
        image = looked_up(image, COLORS[rng.integers(len(COLORS))](rng))
    if rng.random() < P_DISTORT:
        image, mask = DISTORTIONS[rng.integers(len(DISTORTIONS))](image, mask, rng)
    if rng.random() < P_MOVE:
        image, mask = distort.shift_scale_rotate(image, mask, rng)
    if rng.random() < P_DROPOUT:
        image, mask = distort.grid_dropout(image, mask, rng)
    return image, mask


def resized(image: Rgb, mask: Mask, size: int) -> Pair:
    """Both at size x size: the picture bilinearly, the mask by nearest neighbour (aspect not kept, as documented)."""
    side = (size, size)
    if image.shape[:2] != side:
        image = cv2.resize(image, side, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    if mask.shape != side:
        mask = cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    return image, mask


def normalised(image: Rgb) -> NDArray[np.float32]:
    """uint8 RGB [H,W,3] -> float32 [3,H,W], ImageNet mean and deviation."""
    return np.ascontiguousarray(normalized(image).transpose(2, 0, 1))


class ZooDataset(Dataset[Any]):
    """Pictures of one epoch. What item i is depends on (seed, epoch, i) alone, in any worker, after any resume.

    epoch: None for pictures as they are, held-out ones.
    """

    def __init__(self, pictures: Sequence[LabelledPicture], config: ZooConfig, epoch: int | None) -> None:
        self.pictures, self.config, self.epoch = pictures, config, epoch

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        image, mask = resized(*self.pictures[index].read()[:2], self.config.image_size)
        if self.epoch is not None and self.config.augment:
            image, mask = augment(image, mask, np.random.default_rng((self.config.seed, self.epoch, index)))
        return normalised(image), mask[None].astype(np.float32) / np.float32(255)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # the workers themselves are the threads


def batches(
    pictures: Sequence[LabelledPicture],
    indices: NDArray[np.int64],
    config: ZooConfig,
    epoch: int | None,
    workers: int = 0,
) -> DataLoader[list[Tensor]]:
    """Batches of pictures [B,3,S,S] and labels [B,1,S,S].

    With an epoch: shuffled by (seed, epoch), augmented, an incomplete last batch dropped, as documented; without one in
    the order of `indices`, all of them.
    """
    order = indices
    if epoch is not None:
        order = np.random.default_rng((config.seed, epoch)).permutation(indices)
    return DataLoader(
        ZooDataset(pictures, config, epoch),
        batch_size=config.batch_size,
        sampler=order.tolist(),
        num_workers=workers,
        drop_last=epoch is not None,
        worker_init_fn=_one_thread,
        # Its own generator: the loader draws a number that nothing here uses, and would draw it from the network's.
        generator=torch.Generator(),
    )
