"""What speed is compared with: the documented way of doing each step, written from the specs, nothing tuned."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.faces import face_from_seed
from ohlora.kernels.ombre import hue_table
from ohlora.training.nets.effisegnet import EffiSegNet
from ohlora.training.nets.stylegan import Generator


def documented_ombre(
    image: NDArray[np.uint8], hair: NDArray[np.float32], color: float, height: float, grad_height: float
) -> NDArray[np.uint8]:
    """One picture as the spec describes the original: float64 arrays, a Python maximum over each row."""
    rows_count, columns = image.shape[:2]
    mask = cv2.resize(hair * 255, (columns, rows_count), interpolation=cv2.INTER_CUBIC)
    mask = np.clip((mask - 191.25) * 4, 0, 255)
    rows = [y for y in range(rows_count) if max(mask[y]) >= 191.25]
    if not rows:
        return image
    top, bottom = rows[0], rows[-1]
    first = int(top + (bottom - top) * (1.0 - height))
    full = int(first + (bottom - first) * grad_height)
    weights = [0 if y < first else 1 if y >= full else (y - first) / (full - first) for y in range(rows_count)]
    mask = mask * np.array(weights)[:, None]
    tinted = image + ((0.35 * image + 0.25 * hue_table()[int(color * 360)]) - 38.25)
    dyed = np.clip(tinted, 0, 255).astype(np.uint8)
    alpha = np.repeat(mask[..., None], 3, 2) / 255
    return ((1 - alpha) * image + alpha * dyed).astype(np.uint8)


@torch.no_grad()
def documented_portrait(generator: Generator, student: EffiSegNet, seed: int, out: Path, color: float) -> None:
    """One dyed portrait: eager PyTorch float32, batch 1, networks loaded once, NumPy ombre, one JPEG."""
    z = torch.from_numpy(face_from_seed(seed).z.copy())[None]
    image = generator.synthesis(generator.truncate(generator.mapping(z)))
    pixels = ((image + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
    small = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
    hair = student(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1)[0, 0].numpy()
    dyed = documented_ombre(np.ascontiguousarray(pixels), hair, color, 0.7, 0.5)
    cv2.imwrite(str(out / f"{seed:06d}.jpg"), dyed[..., ::-1])
