"""Small modules of every network that has a graph, with random weights in which every tensor matters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ohlora.training.checkpoints import SCORE_CNNS
from ohlora.training.data.parsing_classes import NAMES11
from ohlora.training.directions.reader import Reader
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.cvae_encoder import CvaeEncoder, EncoderConfig
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.nets.mobilestylegan import MobileStyleGANConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator, V5DiscriminatorConfig
from ohlora.training.weights.random_face import from_arrays
from ohlora.training.weights.score_cnns_keys import make
from tests.support.random_faces import SMALL, small_state

GENERATOR = GeneratorConfig(
    resolution=16, z_size=24, w_size=16, label_size=3, embedding_size=5, mapping_layers=3, split_size=20,
    channel_base=128, channel_max=12, fused_from=16
)  # fmt: skip
DISCRIMINATOR = DiscriminatorConfig(resolution=16, label_size=3, group=4, channel_base=128, channel_max=12)

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "generator": lambda: Generator(GENERATOR),
    "mobilestylegan": lambda: from_arrays(small_state(), MobileStyleGANConfig(SMALL, SMALL.resolution)),
    "discriminator": lambda: Discriminator(DISCRIMINATOR),
    "discriminator-v5": lambda: V5Discriminator(V5DiscriminatorConfig(0.03)),
    "student": lambda: EffiSegNet(SHIPPED_ENCODER),
    "parsing": lambda: EffiSegNet(SHIPPED_ENCODER, outputs=len(NAMES11)),
    "bisenet": BiSeNet,
    "reader": lambda: Reader(32, 4),
    "cvae-encoder": lambda: CvaeEncoder(EncoderConfig(64, 16, 7, 0.05)),
    **{f"cnn-{name}": lambda name=name: make(name, 0.03) for name in SCORE_CNNS},  # type: ignore[misc]
}


def random_module(name: str, seed: int = 0) -> nn.Module:
    """Biases, norms, noise strengths and statistics are not the initial ones; the mapping's draws are large."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = MAKERS[name]().eval()
        for key, value in (*module.named_parameters(), *module.named_buffers()):
            if key.endswith(("running_var", "spread")):
                value.uniform_(0.5, 1.5)
            elif key.endswith(("running_mean", "mean", "bias", "strength")):
                value.normal_(std=10.0 if key.startswith("mapping") else 0.2)
            elif key.endswith("weight") and value.ndim == 1:
                value.normal_(1.0, 0.2)
            elif key.endswith(("const", "w_avg")):
                value.normal_()
    return module
