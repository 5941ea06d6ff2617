"""Small data sets in the published layouts: a bright blob of hair on a dark picture, easy to learn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 64


def blob(number: int, size: int = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture RGB [size,size,3] and mask 0/255 [size,size] of one made-up head of hair."""
    rng = np.random.default_rng((11, number))
    mask = np.zeros((size, size), np.uint8)
    centre = tuple(int(v) for v in rng.uniform(0.4, 0.6, 2) * size)
    axes = tuple(int(v) for v in rng.uniform(0.2, 0.35, 2) * size)
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    color = np.where(mask[..., None] > 0, (220, 180, 60), (40, 60, 90))
    return np.clip(color + rng.normal(0, 8, color.shape), 0, 255).astype(np.uint8), mask


def write(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.imencode(path.suffix, array[..., ::-1] if array.ndim == 3 else array)[1]
    path.write_bytes(bytes(code))


def published_celeb(folder: Path, count: int, without_mask: tuple[int, ...] = ()) -> Path:
    """CelebA-HQ-img/{id}.jpg and CelebAMask-HQ-mask-anno/{id // 4}/{id:05d}_hair.png, three channels as published."""
    for number in range(count):
        image, mask = blob(number)
        write(folder / "CelebA-HQ-img" / f"{number}.jpg", image)
        annotation = folder / "CelebAMask-HQ-mask-anno" / str(number // 4)
        write(annotation / f"{number:05d}_skin.png", np.zeros((8, 8), np.uint8))
        if number not in without_mask:
            write(annotation / f"{number:05d}_hair.png", np.repeat(mask[..., None], 3, 2))
    return folder


def celeb(folder: Path, count: int) -> Path:
    """The zoo's own layout: images/{id:05d}.jpg, masks/{id:05d}.png."""
    for number in range(count):
        image, mask = blob(number)
        write(folder / "images" / f"{number:05d}.jpg", image)
        write(folder / "masks" / f"{number:05d}.png", mask)
    return folder


def polygon_text(points: list[tuple[float, float]]) -> str:
    return str([{"x": float(x), "y": float(y)} for x, y in points])


def korean(folder: Path, people: int = 6, views: int = 3) -> Path:
    """Two tables of polygons with `views` rows of one source for each person, and the pictures they name."""
    rows: list[list[str]] = []
    for person in range(people):
        left = 100 + 20 * person
        for view in range(views):
            name = f"CP{person:03d}-{view}.jpg"
            image = np.full((512, 512, 3), (40, 60, 90), np.uint8)
            image[100:400, left : left + 200] = (220, 180, 60)
            write(folder / f"partition{person % 2}" / f"set-{view}" / name, image)
            polygon = polygon_text([(left, 100), (left + 199, 100), (left + 199, 399), (left, 399)])
            path = f"/home/someone/dataset/partition{person % 2}/set-{view}/{name}"
            rows.append([path, polygon, polygon_text([(0, 0), (5, 0), (5, 5)]), f"source{person}"])
    for table, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        lines = ["Unnamed: 0,path,polygon1,polygon2,source"]
        lines += [f'{i},{path},"{first}","{second}",{source}' for i, (path, first, second, source) in enumerate(part)]
        (folder / f"dataindex_{table:02d}.csv").write_text("\n".join(lines) + "\n")
    return folder


def faces(folder: Path, people: int = 6, views: int = 2) -> Path:
    """Our own layout: pictures with hair_soft/NAME.png; the views of a person differ by noise only."""
    for person in range(people):
        image, mask = blob(person)
        # Each person before a background of their own, as the split by people goes by looks.
        color = np.array([(person * 83) % 256, (person * 157) % 256, (person * 199) % 256])
        image = np.where(mask[..., None] > 0, image, color).astype(np.uint8)
        for view in range(views):
            noise = np.random.default_rng((person, view)).integers(0, 4, image.shape)
            write(folder / f"p{person}_{view}.png", np.clip(image + noise, 0, 255).astype(np.uint8))
            write(folder / "hair_soft" / f"p{person}_{view}.png", cv2.GaussianBlur(mask, (0, 0), 1).astype(np.uint8))
    return folder
