"""A small generator of the documented family with random weights, and latents for it."""

from __future__ import annotations

import torch
from torch import Tensor

from ohlora.training.nets.stylegan import Generator, GeneratorConfig

# The same family at 32 pixels; the two largest sizes store their kernels unturned, as 128 and 256 do in the
# real one.
SMALL = GeneratorConfig(
    resolution=32, z_size=24, w_size=16, label_size=3, embedding_size=5, channel_base=256, channel_max=24, fused_from=16
)  # fmt: skip


def randomized(config: GeneratorConfig) -> Generator:
    """A generator in which every tensor matters."""
    torch.manual_seed(0)
    model = Generator(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("bias", "strength")):
                value.normal_(std=10.0 if name.startswith("mapping") else 0.2)
        model.synthesis.const.normal_()
        model.w_avg.normal_()
    return model


def latents(config: GeneratorConfig, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """z, label, and a wp whose layers all differ."""
    stream = torch.Generator().manual_seed(7)
    sizes = ((config.z_size,), (config.label_size,), (config.layers, config.w_size))
    z, label, wp = (torch.randn(count, *size, generator=stream) for size in sizes)
    return z, label, wp
