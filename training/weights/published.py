"""The published names of a network of the family, for files that other programs of the family load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ohlora.training.nets.cvae_encoder import CvaeEncoder
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator
from ohlora.training.weights import cvae_encoder_keys, score_cnns_keys, stylegan_keys, stylegan_v5_discriminator_keys
from ohlora.training.weights.state_dicts import Layout

LAYOUTS: dict[type[nn.Module], Callable[[Any], Layout]] = {
    Generator: lambda module: stylegan_keys.generator_layout(module.config),
    Discriminator: lambda module: stylegan_keys.discriminator_layout(module.config),
    V5Discriminator: stylegan_v5_discriminator_keys.layout_of,
    CvaeEncoder: lambda module: cvae_encoder_keys.LAYOUT,
}


def layout_of(module: nn.Module) -> Layout:
    """Published name -> name in `module.state_dict()`, of a GAN's networks, the encoder and the score CNNs."""
    return LAYOUTS.get(type(module), score_cnns_keys.layout_of)(module)


def published_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict of `module` under the published names; tensors are shared with the module."""
    return layout_of(module).rename(module)


def published_composite(**networks: nn.Module) -> dict[str, Tensor]:
    """Networks that were trained as one, as the one state dict that other programs of the family know.

    By published names: stylegan_generator and property_score_cnn of FineTune-v2; CVAE_encoder, stylegan_generator,
    property_score_cnn and gender_cnn of FineTune-v3 (docs/spec/stylegan.md, section 9).
    """
    return {f"{name}.{key}": value for name, one in networks.items() for key, value in published_state(one).items()}
