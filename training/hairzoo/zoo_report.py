"""A trained network on held-out pictures: figures, and overlays of the worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohlora.base.atomic import write_bytes
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.training.data.hair_faces import LabelledPicture
from ohlora.training.hairzoo.pictures import Image
from ohlora.training.hairzoo.pipeline import normalised, resized
from ohlora.training.students.metrics import HairMetrics
from ohlora.training.students.report import overlay

CELL = 224


@torch.no_grad()
def hair_maps(model: nn.Module, images: Sequence[Image], device: torch.device) -> NDArray[np.float32]:
    """uint8 RGB [S,S,3] each, S as trained -> hair probability float32 [N,S,S]. The model is in evaluation mode."""
    stack = torch.from_numpy(np.stack([normalised(image) for image in images])).to(device)
    logits = model(stack.contiguous(memory_format=torch.channels_last)).float()
    return np.asarray(logits.sigmoid()[:, 0].cpu().numpy(), np.float32)


def measure(
    model: nn.Module, pictures: Sequence[LabelledPicture], size: int, batch: int, device: torch.device, worst: int
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Pooled figures (`HairMetrics`) over whole pictures at size x size, and the indices of the worst by IoU."""
    model.eval()
    metrics = HairMetrics()
    for start in range(0, len(pictures), batch):
        pairs = [resized(*picture.read()[:2], size) for picture in pictures[start : start + batch]]
        for hair, (_, mask) in zip(hair_maps(model, [image for image, _ in pairs], device), pairs, strict=True):
            metrics.add(hair, mask.astype(np.float32) / np.float32(255))
    return metrics.summary(), np.argsort(metrics.per_face_iou(), kind="stable")[:worst]


def write_overlays(
    path: Path, model: nn.Module, pictures: Sequence[LabelledPicture], size: int, device: torch.device
) -> None:
    """The documented overlay of each picture: sky blue agrees, green is too much, blue is missed."""
    model.eval()
    tiles = []
    for picture in pictures:
        image, mask = resized(*picture.read()[:2], size)
        tiles.append(overlay(image, mask, hair_maps(model, [image], device)[0]))
    captions = [picture.name for picture in pictures]
    write_bytes(path, encode_image(contact_sheet(tiles, cell=CELL, captions=captions), "jpeg", 95))


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch for a terminal."""
    mark = ", best so far" if row["best"] else ""
    return (
        f"epoch {row['epoch'] + 1}/{epochs}, rate {row['lr']:.4g}: loss {row['train_loss']:.4f}, Dice "
        f"{row['train_dice']:.4f}; held out: loss {row['valid_loss']:.4f}, Dice {row['valid_dice']:.4f}{mark}, "
        f"{row['seconds']:.0f} s"
    )
