"""A small split generator and small score CNNs for tests of the search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.kernels.properties import PROPERTIES
from ohlora.training import checkpoints
from ohlora.training.nets.score_cnns import HairstyleCnn, HairstyleCnnConfig, MergedCnn, PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.vectorfind.portrayer import Portrayer, torch_portrayer
from ohlora.training.vectorfind.scorers import CnnScorer

WIDTH = 0.03


def small_generator(label_size: int = 3, split_size: int = 24) -> Generator:
    """8 pixels, w of 16, mapping of three layers, pictures that vary."""
    config = GeneratorConfig(
        resolution=8,
        w_size=16,
        label_size=label_size,
        embedding_size=4 if label_size else 0,
        mapping_layers=3,
        split_size=split_size,
        channel_base=64,
        channel_max=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        generator = Generator(config).eval()
        for name, parameter in generator.named_parameters():
            if "mapping" in name and parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=100.0 if "embedding" not in name else 1.0)
    return generator


def small_portrayer(**changes: int) -> Portrayer:
    return torch_portrayer(small_generator(**changes))


def small_network(merged: bool = False) -> PropertyCnn | MergedCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        properties = PropertyCnn(PropertyCnnConfig(WIDTH)).eval()
        return MergedCnn(properties, HairstyleCnn(HairstyleCnnConfig(WIDTH))).eval() if merged else properties


def small_scorer(merged: bool = False) -> CnnScorer:
    return CnnScorer(small_network(merged), "0" * 64, "merged CNN" if merged else "property CNN", torch.device("cpu"))


class PixelScorer:
    """Fixed mixtures of a small picture's values: scores at once, where nothing hangs on the CNN."""

    identity, kind = "1" * 64, "pixels"
    columns = PROPERTIES

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        self.mixing = rng.standard_normal((8 * 8 * 3, len(self.columns))) / 400

    def score(self, images: NDArray[np.uint8], columns: Sequence[str]) -> NDArray[np.float64]:
        flat = images.reshape(len(images), -1).astype(np.float64) - 128
        return np.tanh(flat @ self.mixing)[:, [self.columns.index(name) for name in columns]]


def save_models(folder: Path, merged: bool = False) -> tuple[Path, Path]:
    """(generator, scorer) as files."""
    generator, scorer = folder / "generator.safetensors", folder / "scorer.safetensors"
    checkpoints.save(small_generator(), generator, "stylegan")
    checkpoints.save(small_network(merged), scorer, "cnn-merged" if merged else "cnn-property")
    return generator, scorer
