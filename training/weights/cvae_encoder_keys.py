"""Published names of the v3 encoder (docs/spec/stylegan.md, section 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ohlora.training.nets.cvae_encoder import CHANNELS, HIDDEN, REDUCTION, CvaeEncoder, EncoderConfig
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork

_PARTS = {"fc1.0": "hidden", "fc2_mu": "mean", "fc2_var": "log_variance"} | {
    f"conv{i + 1}.0": f"convs.{i}" for i in range(len(CHANNELS))
}
LAYOUT = Layout({f"{a}.{leaf}": f"{b}.{leaf}" for a, b in _PARTS.items() for leaf in ("weight", "bias")})


def _config(state: Mapping[str, Tensor]) -> EncoderConfig:
    """Sizes are read off the layers, so files of any width can be imported."""
    first, mean = state.get("fc1.0.weight"), state.get("fc2_mu.weight")
    if first is None or mean is None or first.ndim != 2 or mean.ndim != 2:
        return EncoderConfig()  # the strict loading names what is missing
    hidden = first.shape[0]
    label_size, width = max(0, mean.shape[1] - hidden), min(hidden / HIDDEN, 4.0)
    flat = EncoderConfig(label_size=label_size, width=width, resolution=REDUCTION).features
    side = round(math.sqrt(max(1, first.shape[1] - label_size) / flat))
    return EncoderConfig(REDUCTION * max(1, side), mean.shape[0], label_size, width)


ENCODER = PublishedNetwork(
    lambda module: LAYOUT,
    lambda state: CvaeEncoder(_config(state)),
    own=lambda config: CvaeEncoder(EncoderConfig(**config)),
)
