"""Tiny networks, pictures and scores for the tests of FineTune-v2 and v3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ohlora.base.atomic import write_bytes
from ohlora.io.images import encode_image
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, write_score_table
from ohlora.training import checkpoints
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.nets.score_cnns import ClassifierCnn, ClassifierConfig, PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

PICTURES = 10
WIDTH = 0.02
SMALL = GeneratorConfig(
    resolution=32, z_size=16, w_size=16, label_size=7, embedding_size=16, mapping_layers=4,
    channel_base=256, channel_max=16,
)  # fmt: skip


def make_inputs(folder: Path) -> FineTuneInputs:
    """A v1-like generator, both CNNs, ten pictures and their scores, all seeded."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        checkpoints.save(Generator(SMALL), folder / "g.safetensors", "stylegan")
        property_cnn = PropertyCnn(PropertyCnnConfig(WIDTH))
        with torch.no_grad():
            for part in property_cnn.parts.values():  # fresh ones answer nearly the same to every picture
                part.hidden.weight.mul_(20)
        checkpoints.save(property_cnn, folder / "p.safetensors", "cnn-property")
        checkpoints.save(ClassifierCnn(ClassifierConfig("gender", WIDTH)), folder / "s.safetensors", "cnn-gender")
    rng = np.random.default_rng(4)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number in range(PICTURES):
        picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_bytes(images / f"{number + 20:06d}.png", encode_image(picture, "png"))
    table = ScoreTable(
        np.arange(20, 20 + PICTURES), PROPERTY_COLUMNS, rng.standard_normal((PICTURES, len(PROPERTY_COLUMNS)))
    )
    write_score_table(folder / "scores.csv", table)
    return inputs_in(folder)


def inputs_in(folder: Path) -> FineTuneInputs:
    """What `make_inputs` wrote there."""
    return FineTuneInputs(
        folder / "g.safetensors",
        images=folder / "images",
        scores=folder / "scores.csv",
        property_cnn=folder / "p.safetensors",
        gender_cnn=folder / "s.safetensors",
    )
