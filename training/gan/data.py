"""Where training pictures come from: rendered portraits, with a latent each, or a folder of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.io.images import list_images, read_image
from ohlora.photos.segmentation import resize_area
from ohlora.training.data import portraits
from ohlora.training.gan.store import ImageStore, area_mean

Renderer = Callable[[NDArray[np.float32], int], Rgb]  # (z [N, z_size], R) -> uint8 [N, R, R, 3]
Features = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # z [N, z_size] -> [N, F]
Report = Callable[[int, int], None]
PROBE = 4  # pictures that identify a renderer
PART = 256  # pictures drawn at once
HELD = 20  # of so many pictures of a folder one is kept for judging


class Source:
    """What the loop trains on: `count` pictures, kept in a store.

    latents: how many first z values decide a picture, 0 without targets. files: that are read.
    """

    count: int
    latents = 0
    files: Sequence[Path] = ()
    _store: ImageStore | None = None

    def identity(self) -> dict[str, Any]:
        """JSON-able: two sources with the same identity give the same pictures."""
        raise NotImplementedError

    def make(self, first: int, end: int, resolution: int) -> Rgb:
        """Pictures first .. end - 1, uint8 [N, resolution, resolution, 3]."""
        raise NotImplementedError

    def prepare(
        self, folder: Path, resolution: int, report: Report, *, content: str | None = None, renew: bool = False
    ) -> None:
        """Make the pictures below `folder`, once; called before anything else is asked for.

        content: hash of `files`. renew: other pictures that lie there are deleted.
        """
        identity = self.identity() | ({"content": content} if content else {})
        self._store = store = ImageStore(folder, identity, self.count, resolution, renew=renew)
        store.fill(lambda first, end: self.make(first, end, store.resolution), report)

    def images(self, indices: NDArray[np.int64], resolution: int) -> Rgb:
        """uint8 [N, resolution, resolution, 3]."""
        if self._store is None:
            raise InvalidInputError("the training pictures have not been made: call prepare first")
        return self._store.gather(indices, resolution)

    def z(self, indices: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The latents [N, z_size] whose targets `images(indices)` are; None for a source without."""
        return None

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Numbers [N, F] that are known of these pictures and decide how they look; None for a source without."""
        return None

    def unseen(self, count: int, resolution: int) -> tuple[NDArray[np.float32] | None, Rgb]:
        """Up to `count` pairs (z, picture) that are not trained on."""
        raise NotImplementedError


def render_portraits(z: NDArray[np.float32], resolution: int) -> Rgb:
    """The portraits of latents z [N, >= LATENTS]."""
    return portraits.render(portraits.parameters_from_latents(z), resolution).images


def portrait_features(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers of the scenes of latents z."""
    return portraits.scene_numbers(portraits.parameters_from_latents(z))


class PortraitSource(Source):
    """Portrait i is that of seed first_seed + i: z from `face_from_seed`, picture from the renderer.

    Seeds below `first_seed` are never trained on: `unseen` takes the first of them.
    """

    def __init__(
        self,
        count: int,
        first_seed: int = 1_000_000,
        *,
        renderer: Renderer = render_portraits,
        features: Features | None = None,
        latents: int | None = None,
        store: Path | None = None,
    ) -> None:
        self.count, self.first_seed, self.renderer = count, first_seed, renderer
        self.latents = int(portraits.LATENTS) if latents is None else latents
        # Another renderer's pictures are not described by this one's scenes.
        self._features = portrait_features if features is None and renderer is render_portraits else features
        self._folder = store

    def identity(self) -> dict[str, Any]:
        """Names the renderer by what it draws: a changed renderer must not go on with the old one's pictures."""
        probe = self.renderer(latents_of_seeds(range(PROBE))[0], 64)
        drawn = hashlib.sha256(np.ascontiguousarray(probe).tobytes()).hexdigest()[:16]
        return {"source": "portraits", "first_seed": self.first_seed, "latents": self.latents, "renderer": drawn}

    def prepare(
        self, folder: Path, resolution: int, report: Report, *, content: str | None = None, renew: bool = False
    ) -> None:
        if self._folder is not None:  # what others share is not this run's to delete
            folder, renew = self._folder, False
        super().prepare(folder, resolution, report, content=content, renew=renew)

    def make(self, first: int, end: int, resolution: int) -> Rgb:
        return self.renderer(self.z(np.arange(first, end)), resolution)

    def z(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return latents_of_seeds(self.first_seed + indices)[0]

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32] | None:
        return None if self._features is None else self._features(self.z(indices))

    def unseen(self, count: int, resolution: int) -> tuple[NDArray[np.float32], Rgb]:
        z, _ = latents_of_seeds(range(min(count, self.first_seed)))
        # Drawn as fine as the training pictures and scaled like them: lines drawn for fewer pixels look different.
        fine = resolution if self._store is None else self._store.resolution
        parts = [area_mean(self.renderer(z[i : i + PART], fine), resolution) for i in range(0, len(z), PART)]
        return z, np.concatenate(parts)


class FolderSource(Source):
    """Pictures of a folder (not of its subfolders), center square, scaled. Every HELD-th is kept for judging."""

    def __init__(self, paths: Sequence[Path]) -> None:
        files = list_images(list(paths))
        if len(files) < 4:
            raise InvalidInputError(f"{', '.join(map(str, paths))}: {len(files)} pictures; training needs at least 4")
        self.judged = files[HELD - 1 :: HELD]
        self.files = [file for i, file in enumerate(files, 1) if i % HELD]
        self.count = len(self.files)

    def identity(self) -> dict[str, Any]:
        text = "".join(f"{file.name} {file.stat().st_size}\n" for file in self.files)
        return {
            "source": "folder",
            "pictures": len(self.files),
            "files": hashlib.sha256(text.encode()).hexdigest()[:16],
        }

    def make(self, first: int, end: int, resolution: int) -> Rgb:
        return np.stack([read_square(file, resolution) for file in self.files[first:end]])

    def unseen(self, count: int, resolution: int) -> tuple[None, Rgb]:
        pictures = [read_square(file, resolution) for file in self.judged[:count]]
        return None, np.stack(pictures) if pictures else np.empty((0, resolution, resolution, 3), np.uint8)


def read_square(path: Path, size: int) -> NDArray[np.uint8]:
    """The centre square of a picture at size x size, uint8 RGB."""
    image = read_image(path)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side < size:
        return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    return resize_area(square, (size, size))


def to_tensor(images: Rgb, device: torch.device) -> Tensor:
    """uint8 [N,R,R,3] -> float32 [N,3,R,R] in [-1,1], channels last in memory."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    return pixels.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)


def to_images(tensor: Tensor) -> Rgb:
    """[N,3,R,R] nominally in [-1,1] -> uint8 [N,R,R,3], rounded half up."""
    scaled = (tensor.detach().float() + 1.0).mul_(127.5).add_(0.5).clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def batch_indices(count: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """Indices of step `step`: every picture once per round, each round in its own order."""
    first = step * batch
    rounds, result = range(first // count, (first + batch - 1) // count + 1), []
    for number in rounds:
        order = np.random.default_rng((seed, 1, number)).permutation(count)
        result.append(order[max(first - number * count, 0) : first + batch - number * count])
    return np.concatenate(result)
