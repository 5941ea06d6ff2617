"""Published names of the v3 encoder and of the networks that v2 and v3 train as one
(docs/spec/stylegan.md, section 9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ohlora.training.nets.cvae_encoder import CHANNELS, HIDDEN, REDUCTION, CvaeEncoder, EncoderConfig
from ohlora.training.nets.score_cnns import ClassifierCnn, PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.weights.score_cnns_keys import published_state
from ohlora.training.weights.state_dicts import Layout, Shapes, load_layout
from ohlora.training.weights.stylegan_keys import published_generator

_PARTS = {"fc1.0": "hidden", "fc2_mu": "mean", "fc2_var": "log_variance"} | {
    f"conv{i + 1}.0": f"convs.{i}" for i in range(len(CHANNELS))
}
LAYOUT = Layout({f"{a}.{leaf}": f"{b}.{leaf}" for a, b in _PARTS.items() for leaf in ("weight", "bias")})


def published_shapes() -> Shapes:
    """Every key of the published encoder with its shape."""
    with torch.device("meta"):
        return LAYOUT.shapes(CvaeEncoder(EncoderConfig()))


def from_upstream(state: Mapping[str, Tensor]) -> CvaeEncoder:
    """A published state dict -> our module; sizes are read off its layers, so files of any width can be imported.

    Raises CheckpointError naming missing, foreign or mis-shaped keys.
    """
    model = CvaeEncoder(_config(state))
    load_layout(model, state, LAYOUT)
    return model


def _config(state: Mapping[str, Tensor]) -> EncoderConfig:
    first, mean = state.get("fc1.0.weight"), state.get("fc2_mu.weight")
    if first is None or mean is None or first.ndim != 2 or mean.ndim != 2:
        return EncoderConfig()  # the strict loading names what is missing
    hidden = first.shape[0]
    label_size, width = max(0, mean.shape[1] - hidden), min(hidden / HIDDEN, 4.0)
    flat = EncoderConfig(label_size=label_size, width=width, resolution=REDUCTION).features
    side = round(math.sqrt(max(1, first.shape[1] - label_size) / flat))
    return EncoderConfig(REDUCTION * max(1, side), mean.shape[0], label_size, width)


def published_encoder(module: CvaeEncoder) -> dict[str, Tensor]:
    """State dict of `module` under the published names, for other programs of the family."""
    return LAYOUT.rename(module)


def from_config(config: Mapping[str, Any]) -> CvaeEncoder:
    return CvaeEncoder(EncoderConfig(**config))


def config_of(module: CvaeEncoder) -> dict[str, Any]:
    """The configuration as plain values, to be stored beside the weights."""
    return asdict(module.config)


def published_v2(generator: Generator, property_cnn: PropertyCnn) -> dict[str, Tensor]:
    """The networks of FineTune-v2 as the one state dict that other programs of the family know."""
    return _joined(
        {"stylegan_generator": published_generator(generator), "property_score_cnn": published_state(property_cnn)}
    )


def published_v3(
    encoder: CvaeEncoder, generator: Generator, property_cnn: PropertyCnn, gender_cnn: ClassifierCnn
) -> dict[str, Tensor]:
    """The networks of FineTune-v3 as the one state dict that other programs of the family know."""
    return _joined(
        {
            "CVAE_encoder": published_encoder(encoder),
            "stylegan_generator": published_generator(generator),
            "property_score_cnn": published_state(property_cnn),
            "gender_cnn": published_state(gender_cnn),
        }
    )


def _joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for prefix, state in parts.items() for key, value in state.items()}
