"""Hair of pictures by a network of the zoo: held-out figures and overlays, masks of any pictures
(docs/spec/segmentation.md, section 8).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.training.data.hair_faces import LabelledPicture
from ohlora.training.data.portrait_faces import png
from ohlora.training.hairzoo.checkpoint import load_checkpoint
from ohlora.training.hairzoo.config import DIVISOR, DOCUMENTED_SIZE
from ohlora.training.hairzoo.models import check_size
from ohlora.training.hairzoo.pipeline import normalised, resized
from ohlora.training.loop.distributed import chosen_device
from ohlora.training.students.metrics import HairMetrics
from ohlora.training.students.report import overlay

GAP = 8  # white pixels between picture and mask
CELL, SHOWN = 224, 24  # overlays: pixels a side, and how many


@dataclass(frozen=True)
class Segmenter:
    """A network of the zoo in evaluation mode, with the picture size it works at."""

    model: nn.Module
    size: int
    device: torch.device

    @torch.no_grad()
    def maps(self, images: Sequence[Rgb]) -> NDArray[np.float32]:
        """uint8 RGB [size,size,3] each -> hair probability float32 [N,size,size]."""
        stack = torch.from_numpy(np.stack([normalised(image) for image in images])).to(self.device)
        logits = self.model(stack.contiguous(memory_format=torch.channels_last)).float()
        return np.asarray(logits.sigmoid()[:, 0].cpu().numpy(), np.float32)

    def measure(self, pictures: Sequence[LabelledPicture], batch: int, sheet: Path) -> dict[str, float]:
        """Pooled figures (`HairMetrics`) over whole pictures.

        sheet: JPEG of the documented overlays of the worst by IoU: sky blue agrees, green is too much, blue is missed.
        """
        metrics, tiles, captions = HairMetrics(), [], []
        for start in range(0, len(pictures), batch):
            pairs = [resized(*picture.read()[:2], self.size) for picture in pictures[start : start + batch]]
            for hair, (_, mask) in zip(self.maps([image for image, _ in pairs]), pairs, strict=True):
                metrics.add(hair, mask.astype(np.float32) / np.float32(255))
        for index in np.argsort(metrics.per_face_iou(), kind="stable")[:SHOWN]:
            picture: LabelledPicture = pictures[int(index)]
            image, mask = resized(*picture.read()[:2], self.size)
            tiles.append(overlay(image, mask, self.maps([image])[0]))
            captions.append(picture.name)
        write_bytes(sheet, encode_image(contact_sheet(tiles, cell=CELL, captions=captions), "jpeg", 95))
        return metrics.summary()

    def mask(self, image: Rgb) -> NDArray[np.uint8]:
        """uint8 RGB [H,W,3] -> uint8 [H,W], 255 where the logit, brought to the picture's size, is above 0."""
        # The network sees another aspect, as documented.
        small = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        # Probability .5 is logit 0. The smooth map is enlarged, not the mask: its edge would be stairs.
        large = cv2.resize(self.maps([small])[0], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.where(large > 0.5, 255, 0).astype(np.uint8)


def open_segmenter(
    checkpoint: Path,
    encoder: str | None = None,
    decoder: str | None = None,
    size: int | None = None,
    accelerator: str = "auto",
) -> Segmenter:
    """A checkpoint, ready for pictures.

    encoder, decoder: by the file's name where not given. size: what report.json beside the checkpoint says it was
    trained at, else the documented 512. Raises CheckpointError, InvalidInputError.
    """
    device = chosen_device(accelerator)
    size = size or trained_size(checkpoint) or DOCUMENTED_SIZE
    if size < DIVISOR or size % DIVISOR:
        raise InvalidInputError(f"--img-size must be a multiple of {DIVISOR} pixels, got {size}")
    model = load_checkpoint(checkpoint, encoder, decoder, image_size=size)
    check_size(model, checkpoint.stem, size)
    return Segmenter(model.to(device), size, device)


def trained_size(checkpoint: Path) -> int | None:
    """The picture size in the report of the run that wrote the checkpoint; None when there is no such report."""
    report = checkpoint.parent / "report.json"
    if not report.is_file():
        return None
    try:
        content = json.loads(report.read_text())
        return int(content["config"]["image_size"]) if content["checkpoint"] == checkpoint.name else None
    except (ValueError, KeyError, TypeError):
        return None


def side_by_side(image: Rgb, mask: NDArray[np.uint8]) -> Rgb:
    """Picture [H,W,3] and mask [H,W] on one picture [H, 2 W + GAP, 3]."""
    between = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([image, between, np.repeat(mask[..., None], 3, axis=2)], axis=1)


def segment(
    segmenter: Segmenter, pictures: Sequence[Path], out: Path, advance: Callable[[int], None] = lambda count: None
) -> tuple[dict[str, float], dict[str, str]]:
    """Write NAME_mask.png (0 or 255, the picture's size) and NAME_output.jpg (side by side) for every picture.

    Returns ({picture: share of hair}, {picture: why it failed}); a bad picture does not stop the others. Raises
    InvalidInputError for two pictures of one name, OutputError.
    """
    seen: dict[str, Path] = {}
    for picture in pictures:
        if (other := seen.setdefault(picture.stem, picture)) is not picture:
            raise InvalidInputError(
                f"{other} and {picture} would both be written as {picture.stem}_mask.png: give them one "
                "after the other, with another --out"
            )
    make_folder(out)
    hair: dict[str, float] = {}
    failed: dict[str, str] = {}
    for picture in pictures:
        try:
            image = read_image(picture)
            mask = segmenter.mask(image)
            mask_file = png(mask)
            shown = encode_image(side_by_side(image, mask), "jpeg", 95)
        except ImageError as error:
            failed[str(picture)] = str(error)
        else:
            write_bytes(out / f"{picture.stem}_mask.png", mask_file)
            write_bytes(out / f"{picture.stem}_output.jpg", shown)
            hair[str(picture)] = round(float((mask > 0).mean()), 4)
        advance(1)
    return hair, failed
