"""Small networks, pictures and score tables for the fine-tuning tests: everything runs in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.atomic import write_bytes
from ohlora.io.images import encode_image
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, write_score_table
from ohlora.training import checkpoints
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.recipes import Recipe, recipe
from ohlora.training.nets.score_cnns import PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig

SIZE = 8
PICTURES = 10
WIDTH = 1 / 32  # of the property CNN

# What makes a recipe's run short: 2 epochs of 3 batches, the last one of 2 pictures.
SHORT: dict[str, Any] = {"batch_size": 4, "epochs": 2, "log_every": 2, "log_first": 1, "log_every_first_epoch": 0}


def tiny_generator(label: int = 0, embedding: int = 0, seed: int = 1) -> Generator:
    torch.manual_seed(seed)
    sizes = {"z_size": 12, "w_size": 12, "mapping_layers": 3, "channel_base": 64, "channel_max": 8}
    return Generator(GeneratorConfig(SIZE, label_size=label, embedding_size=embedding, **sizes))


def tiny_discriminator(label: int = 0, group: int = 4, seed: int = 2) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(DiscriminatorConfig(SIZE, label_size=label, group=group, channel_base=64, channel_max=8))


def write_numbered(folder: Path, count: int = PICTURES, size: int = SIZE, first: int = 3) -> None:
    """Pictures first, first + 2, ... of smooth colours."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    ramp = np.linspace(0, 1, size)
    for i in range(count):
        a, b = rng.uniform(0, 255, (2, 3))
        image = a + (b - a) * (ramp[:, None, None] + ramp[None, :, None]) / 2
        write_bytes(folder / f"{first + 2 * i:06d}.png", encode_image(image.astype(np.uint8), "png"))


def write_scores(path: Path, count: int = PICTURES, first: int = 3) -> None:
    values = np.random.default_rng(5).standard_normal((count, len(PROPERTY_COLUMNS)))
    write_score_table(path, ScoreTable(np.arange(count) * 2 + first, PROPERTY_COLUMNS, values))


def start_label(version: str) -> tuple[int, int]:
    """(label_size, embedding_size) of the start weights of a version."""
    return (0, 0) if version == "v1" else (7, 16)


def make_inputs(folder: Path, version: str) -> FineTuneInputs:
    """Files a run of `version` starts from."""
    label, embedding = start_label(version)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save(tiny_generator(label, embedding), folder / "generator.safetensors", "stylegan")
    checkpoints.save(tiny_discriminator(label), folder / "discriminator.safetensors", "discriminator")
    torch.manual_seed(3)
    checkpoints.save(PropertyCnn(PropertyCnnConfig(WIDTH)), folder / "property.safetensors", "cnn-property")
    write_numbered(folder / "images")
    write_scores(folder / "scores.csv")
    return FineTuneInputs(
        generator=folder / "generator.safetensors",
        discriminator=folder / "discriminator.safetensors",
        images=folder / "images",
        scores=folder / "scores.csv" if version in ("v1", "v4", "v5") else None,
        property_cnn=folder / "property.safetensors" if version in ("v4", "v5") else None,
    )


def short(version: str, **changes: Any) -> Recipe:
    return recipe(version, **{**SHORT, **({"centers": 8} if version == "v5" else {}), **changes})
