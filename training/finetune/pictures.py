"""Training pictures of a fine-tuning run with their labels: joined by number, read once, handed out by batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import ScoreTable, read_score_table
from ohlora.training.finetune.inputs import MADE_BY, FineTuneInputs, fingerprint
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.gan.data import Report, Source, read_square, to_tensor
from ohlora.training.loop.run_folder import RunFolder

IN_MEMORY = 512 * 2**20  # bytes of pictures kept in every process; more lie on disk, mapped
AT_ONCE = 256  # read from one report to the next
SHOWN = 5


@dataclass
class Batch:
    """This process's share: images [N,3,R,R] in [-1,1], labels [N,L]."""

    images: Tensor
    labels: Tensor


class Pictures(Source):
    """Numbered pictures, their numbers rising, and their labels float32 [N, L]."""

    _memory: Rgb | None = None

    def __init__(self, files: Mapping[int, Path], labels: NDArray[np.float32]) -> None:
        self.numbers, self.paths, self.labels, self.count = list(files), list(files.values()), labels, len(files)

    def identity(self) -> dict[str, Any]:
        return {"files": fingerprint(self.paths[0].parent), "pictures": self.count, "first": self.numbers[0]}

    def make(self, first: int, end: int, resolution: int) -> Rgb:
        return np.stack([read_square(path, resolution) for path in self.paths[first:end]])

    def load(self, folder: RunFolder, resolution: int, report: Report) -> None:
        """Read all pictures at resolution x resolution (center square). Many are kept in FOLDER/pictures, mapped.

        Raises ImageError naming a picture that cannot be read, OutputError.
        """
        if self.count * resolution**2 * 3 <= IN_MEMORY:
            self._memory = np.empty((self.count, resolution, resolution, 3), np.uint8)
            for first in range(0, self.count, AT_ONCE):
                end = min(first + AT_ONCE, self.count)
                self._memory[first:end] = self.make(first, end, resolution)
                report(end, self.count)
            return
        # The first process of a machine makes them; a store that is full is only looked at.
        place, content = folder.out / "pictures", folder.contents.digests.get("pictures")
        if folder.fabric.local_rank == 0:
            self.prepare(place, resolution, report, content=content, renew=not folder.resume)
        folder.fabric.barrier()
        self.prepare(place, resolution, lambda done, count: None, content=content)

    def batch(self, indices: NDArray[np.int64], resolution: int, device: torch.device) -> Batch:
        """Pictures and labels as tensors on `device`."""
        images = self.images(indices, resolution) if self._memory is None else self._memory[indices]
        return Batch(to_tensor(images, device), torch.from_numpy(self.labels[indices]).to(device))


def open_pictures(recipe: Recipe, inputs: FineTuneInputs) -> Pictures:
    """The pictures of `inputs` with the labels `recipe` asks for; nothing is decoded yet.

    Labels "scores": every picture needs a row, and every cell of the label's columns a number. Labels "zeros": with a
    table, only its pictures are trained on; without, all. Raises InvalidInputError naming the first numbers that are
    missing on either side and the stage that makes them.
    """
    folder = inputs.path("images")
    files = numbered_images(folder)
    if recipe.labels == "scores":
        return Pictures(files, _scored(recipe, files, folder, inputs.path("scores")))
    if inputs.scores is not None:
        files = _listed(files, folder, inputs.scores)
    return Pictures(files, np.zeros((len(files), recipe.label_size), np.float32))


def _scored(recipe: Recipe, files: dict[int, Path], folder: Path, path: Path) -> NDArray[np.float32]:
    table = read_score_table(path, recipe.score_columns)
    missing = sorted(files.keys() - set(table.numbers.tolist()))
    if missing:
        raise InvalidInputError(
            f"{path} has no scores for {len(missing)} of {len(files)} pictures of {folder}: {_some(missing)}; score "
            f"them ({MADE_BY['scores'][1]}) or move them away"
        )
    rows = table.rows(list(files))
    _refuse_gaps(rows, path)
    return rows.values.astype(np.float32)


def _refuse_gaps(rows: ScoreTable, path: Path) -> None:
    gaps = np.isnan(rows.values)
    if gaps.any():
        numbers = rows.numbers[gaps.any(1)].tolist()
        columns = [name for i, name in enumerate(rows.columns) if gaps[:, i].any()]
        raise InvalidInputError(
            f"{path} has empty cells for {len(numbers)} pictures ({_some(numbers)}) in {', '.join(columns)}: move "
            f"these pictures away, or score them with a CNN ({MADE_BY['property_cnn'][1]})"
        )


def _listed(files: dict[int, Path], folder: Path, path: Path) -> dict[int, Path]:
    numbers = sorted(read_score_table(path, ()).numbers.tolist())
    missing = [number for number in numbers if number not in files]
    if missing:
        raise InvalidInputError(
            f"{folder} lacks {len(missing)} of the {len(numbers)} pictures of {path}: {_some(missing)}; make them "
            f"({MADE_BY['images'][1]})"
        )
    return {number: files[number] for number in numbers}


def _some(numbers: list[int]) -> str:
    return f"number {', '.join(map(str, numbers[:SHOWN]))}{' ...' if len(numbers) > SHOWN else ''}"


@dataclass(frozen=True)
class Batches:
    """How the pictures of an epoch are cut into batches, all processes together.

    count: pictures. limit: batches of an epoch, None = all. A last batch that is shorter is kept, cut to a multiple of
    `processes` (so with one process nothing is lost), or dropped.
    """

    count: int
    batch_size: int
    processes: int = 1
    last_batch: str = "keep"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.processes:
            raise InvalidInputError(
                f"batch_size {self.batch_size} cannot be divided among {self.processes} processes: use a multiple"
            )
        if not len(self):
            raise InvalidInputError(
                f"{self.count} pictures make no batch of {self.batch_size}: use a smaller batch_size"
            )

    @classmethod
    def of(cls, recipe: Recipe, count: int, fabric: Fabric) -> Batches:
        """Those of a recipe for `count` pictures."""
        return cls(count, recipe.batch_size, fabric.world_size, recipe.last_batch, recipe.batches_per_epoch)

    @property
    def rest(self) -> int:
        """Size of the last, shorter batch; 0 when there is none."""
        rest = self.count % self.batch_size
        return rest - rest % self.processes if self.last_batch == "keep" else 0

    def __len__(self) -> int:
        whole = self.count // self.batch_size + (self.rest > 0)
        return whole if self.limit is None else min(whole, self.limit)

    def size(self, batch: int) -> int:
        return min(self.batch_size, self.count - batch * self.batch_size) // self.processes * self.processes

    def indices(self, seed: int, epoch: int, batch: int) -> NDArray[np.int64]:
        """Which pictures batch `batch` of an epoch holds: every epoch has its own order."""
        order = np.random.default_rng((seed, 1, epoch)).permutation(self.count)
        first = batch * self.batch_size
        return order[first : first + self.size(batch)]

    def require_groups(self, group: int) -> None:
        """Raises InvalidInputError when a batch cannot be cut into groups for the minibatch standard deviation
        (docs/spec/stylegan.md, section 13, P17).
        """
        for size in {self.size(0), self.size(len(self) - 1)}:
            share = size // self.processes
            if share % min(group, share):
                whose = " of each process" if self.processes > 1 else ""
                raise InvalidInputError(
                    f"a batch of {share}{whose} cannot be cut into groups of {group} for the minibatch standard "
                    f"deviation ({self.count} pictures, batch_size {self.batch_size}): use a batch_size up to "
                    f"{group * self.processes}, or another one with last_batch=drop"
                )


def jittered(images: Tensor, amount: float, key: tuple[int, ...]) -> Tensor:
    """[N,3,R,R] in [-1,1] with brightness and contrast changed by up to `amount`, each picture its own (v5).

    Factors are uniform in [1 - amount, 1 + amount]; which of the two comes first is drawn too, and values stay in
    range, as in torchvision's ColorJitter, which is documented.
    """
    rng = np.random.default_rng(key)
    factors = rng.uniform(max(0.0, 1 - amount), 1 + amount, (2, len(images))).astype(np.float32)
    first = torch.from_numpy(rng.random(len(images)) < 0.5).view(-1, 1, 1, 1).to(images.device)
    bright, contrast = torch.from_numpy(factors).view(2, -1, 1, 1, 1).to(images.device)
    luma = images.new_tensor((0.2989, 0.587, 0.114)).view(1, 3, 1, 1)

    def with_contrast(x: Tensor) -> Tensor:
        grey = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return torch.lerp(grey.expand_as(x), x, contrast.expand_as(x)).clamp(0, 1)

    unit = (images + 1) / 2
    one = with_contrast((unit * bright).clamp(0, 1))
    other = (with_contrast(unit) * bright).clamp(0, 1)
    return torch.where(first, one, other) * 2 - 1
