"""A small generator whose mapping ends in two branches, directions in its spaces, faces for it."""

from __future__ import annotations

import numpy as np
import torch

from ohlora.base.values import Face
from ohlora.latents.directions import Directions
from ohlora.latents.spaces import space_size
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from tests.support.small_directions import make

CONFIG = GeneratorConfig(
    resolution=8,  # an export takes seconds
    w_size=24,
    label_size=3,
    embedding_size=5,
    mapping_layers=3,
    split_size=16,
    channel_base=128,
    channel_max=8,
    fused_from=8,
)
NETWORKS = ((), ("eyes",))


def randomized(seed: int = 0, config: GeneratorConfig = CONFIG) -> Generator:
    """A generator in which every tensor matters, both branches alike."""
    torch.manual_seed(seed)
    model = Generator(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("mapping.split"):
                value.normal_(std=100.0 if name.endswith("weight") else 10.0)
            elif name.endswith(("bias", "strength")):
                value.normal_(std=10.0 if name.startswith("mapping") else 0.2)
        model.synthesis.const.normal_()
    return model


def directions_in(space: str, networks: tuple[str, ...] = (), config: GeneratorConfig = CONFIG) -> Directions:
    return make(space, space_size(space, config, "test"), networks)


def faces(count: int = 5) -> list[Face]:
    rng = np.random.default_rng(11)
    return [
        Face(rng.standard_normal(512), rng.standard_normal(3), name=f"f{i}", group="hl"[i % 2] * 2)
        for i in range(count)
    ]
