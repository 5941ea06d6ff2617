"""The files of the documented image generation tests: tables, and pictures as sheets or one by one
(docs/spec/stylegan.md, section 9.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.base.values import Z_SIZE
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED
from ohlora.training.finetune.property_test import (
    EPOCH_GRID,
    Conditioning,
    Float32s,
    conditioning,
    draw_parts,
    evaluating,
    gender_picture,
    label_grid,
)
from ohlora.training.finetune.recipes import EXPRESSIONS, PROPERTIES, Recipe
from ohlora.training.loop.logs import write_table
from ohlora.training.loop.streams import normal
from ohlora.training.nets.cvae_encoder import draw_latent
from ohlora.training.nets.score_cnns import ClassifierCnn, PropertyCnn, at_cnn_size
from ohlora.training.nets.stylegan import Generator

FOLDER = "inference_test_during_finetuning_v3"
COLUMNS = len(EPOCH_GRID["eyes"]) * len(EPOCH_GRID["pose"])  # of a sheet: one row for each value of the mouth
TEST_DRAW, RANDOM_DRAW = 31, 32


@dataclass(frozen=True)
class Scorers:
    """The networks of a test: a generator and those that judge it. gender_input: range that the gender CNN is given."""

    generator: Generator
    property_cnn: PropertyCnn
    gender_cnn: ClassifierCnn | None
    gender_input: str

    @torch.no_grad()
    def scores(self, images: Tensor) -> list[list[float | None]]:
        """Seven scores and the probability of a woman (None without that CNN) of pictures [N,3,R,R] in [-1,1]."""
        with evaluating(self.property_cnn):
            rows: list[list[float | None]] = self.property_cnn(at_cnn_size(images.float())).cpu().tolist()
        if self.gender_cnn is None:
            return [[*row, None] for row in rows]
        with evaluating(self.gender_cnn):
            women = self.gender_cnn(gender_picture(images.float(), self.gender_input))[:, 0].cpu().tolist()
        return [[*row, woman] for row, woman in zip(rows, women, strict=True)]


def epoch_test(
    out: Path, recipe: Recipe, epoch: int, networks: Scorers, means: Tensor, log_variances: Tensor
) -> tuple[Conditioning, list[int]]:
    """The test after an epoch, with its files below `out` -> what was measured, and which latents passed.

    means, log_variances [K, z_size]: of the first picture of each of the last batches, oldest first; the last
    recipe.test_latents of them give a latent each. Random numbers are keyed by (recipe.seed, epoch).
    """
    folder = make_folder(out / FOLDER / f"epoch_{epoch:04d}")
    mean, log_variance = means[-recipe.test_latents :].cpu(), log_variances[-recipe.test_latents :].cpu()
    noise = torch.from_numpy(normal((recipe.seed, TEST_DRAW, epoch), len(mean), mean.shape[1]))
    z = draw_latent(mean.float(), log_variance.float(), noise).numpy()
    labels = label_grid(EPOCH_GRID, networks.generator.config.label_size)
    pictures = [TestPictures(folder / str(i), recipe.dump, columns=COLUMNS) for i in range(len(z))]
    measured = conditioning(
        networks.generator, networks.property_cnn, z, labels, watch=lambda i, images: pictures[i].add(images)
    )
    passed = measured.passed(recipe.test_correlation, recipe.test_error)
    for values, name in ((mean.numpy(), "mus"), (log_variance.numpy(), "log_vars"), (z, "zs")):
        write_vectors(folder / f"test_{name}.csv", values)
    for i, files in enumerate(pictures):
        files.close()
        write_scores(folder / str(i) / "test_result.csv", measured, i)
    header = ("z_idx", *(f"{name}_{what}" for what in ("corr", "mae") for name in EXPRESSIONS), "passed")
    rows = ((i, *measured.correlation[i], *measured.mae[i], int(good)) for i, good in enumerate(passed))
    write_table(folder / "result_each_z.csv", header, rows)
    _random_pictures(folder, recipe, epoch, networks)
    return measured, np.flatnonzero(passed).tolist()


def _random_pictures(folder: Path, recipe: Recipe, epoch: int, networks: Scorers) -> None:
    """As many pictures of random latents and labels, with all their scores."""
    config, count = networks.generator.config, recipe.test_latents
    drawn = normal((recipe.seed, RANDOM_DRAW, epoch), count, config.z_size + config.label_size)
    pictures = TestPictures(folder, recipe.dump, "test_random_gen_img")
    rows: list[list[float | None]] = []
    for images in draw_parts(networks.generator, drawn[:, : config.z_size], drawn[:, config.z_size :]):
        pictures.add(images)
        rows += networks.scores(images)
    pictures.close()
    header = ("img_no", *(f"{name}_score" for name in PROPERTIES), "gender_score")
    write_table(folder / "test_random_gen_result.csv", header, ([i, *row] for i, row in enumerate(rows)))


class TestPictures:
    """Pictures that arrive in parts, as one sheet FOLDER/NAME.jpg ("grid") or as FOLDER/NAME_NNN.png ("files")."""

    def __init__(
        self, folder: Path, dump: str, name: str = "test_img", columns: int | None = None, digits: int = 3
    ) -> None:
        self.folder, self.dump, self.name, self.columns, self.digits = make_folder(folder), dump, name, columns, digits
        self.count = 0
        self._kept: list[Rgb] = []

    def add(self, images: Tensor) -> None:
        for image in png_levels(images):
            if self.dump == "files":
                data = encode_image(image, "png", png_level=0, mark=RENDERED)
                write_bytes(self.folder / f"{self.name}_{self.count:0{self.digits}d}.png", data)
            else:
                self._kept.append(image)
            self.count += 1

    def close(self) -> None:
        if self._kept:
            cell = min(128, self._kept[0].shape[0])
            sheet = contact_sheet(self._kept, columns=self.columns, cell=cell, gap=0)
            write_bytes(self.folder / f"{self.name}.jpg", encode_image(sheet, "jpeg", 90, mark=RENDERED))


def png_levels(images: Tensor) -> Rgb:
    """[N,3,R,R] in [-1,1] -> uint8 [N,R,R,3], rounded half to even as the documented PNG files are
    (docs/spec/stylegan.md, section 6).
    """
    levels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write_vectors(path: Path, vectors: Float32s) -> None:
    """A z-vector table in the published layout: a header of column numbers, every digit."""
    write_table(path, range(vectors.shape[1]), vectors.tolist(), None)


def write_scores(path: Path, measured: Conditioning, latent: int) -> None:
    """What was asked for and what was measured, one row a picture."""
    header = ("img_no", *(f"{name}_{what}" for what in ("label", "score") for name in EXPRESSIONS))
    rows = zip(measured.labels[latent], measured.scores[latent], strict=True)
    write_table(path, header, ((i, *label, *scores) for i, (label, scores) in enumerate(rows)))


def read_latent(text: str, z_size: int) -> Float32s:
    """One latent float32 [z_size]: "FILE.csv:ROW" of a z-vector table, or a seed as the runtime means it.

    Raises InvalidInputError naming what is wrong.
    """
    path, colon, row = text.rpartition(":")
    if not colon:
        if not text.isdigit() or z_size > Z_SIZE:
            raise InvalidInputError(f"'{text}' is not a latent: write FILE.csv:ROW or a seed")
        return face_from_seed(int(text)).z[:z_size]
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read the z-vector table {path}: {error}") from error
    if not row.isdigit() or int(row) >= len(table):
        raise InvalidInputError(f"{path} has rows 0 to {len(table) - 1}, not '{row}'")
    chosen: Float32s = table[int(row), -z_size:]
    if chosen.size != z_size:
        raise InvalidInputError(f"{path} holds latents of {table.shape[1]} values, this generator takes {z_size}")
    return chosen
