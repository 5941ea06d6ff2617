"""Encoder of the conditional VAE that FineTune-v3 trains together with its generator
(docs/spec/stylegan.md, section 9.3).

A picture and its label become the mean and the log variance of a latent; a draw from them is the z from which the
generator has to make a picture with that label again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.score_cnns import scaled_to
from ohlora.training.nets.stylegan import require_shape

CHANNELS = (32, 64, 128, 128, 256)
HIDDEN = 512
SLOPE = 0.01
REDUCTION = 2 ** len(CHANNELS)  # each convolution halves the picture


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of one encoder.

    resolution: pictures of another size are scaled to it; a multiple of 32. width: factor on the channels and on the
    hidden layer, 1 as documented.
    """

    resolution: int = 256
    z_size: int = 512
    label_size: int = 7
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.resolution < REDUCTION or self.resolution % REDUCTION:
            raise InvalidInputError(
                f"EncoderConfig.resolution must be a multiple of {REDUCTION}, got {self.resolution}"
            )
        if not 0 < self.width <= 4:
            raise InvalidInputError(f"EncoderConfig.width must be in (0, 4], got {self.width:g}")
        if self.z_size < 1 or self.label_size < 0:
            raise InvalidInputError(
                f"EncoderConfig needs z_size >= 1 and label_size >= 0, got {self.z_size}, {self.label_size}"
            )

    def scaled(self, channels: int) -> int:
        """A layer's size. A width counts in whole 512ths, which the hidden layer of a file tells."""
        return max(1, round(channels * max(1, round(self.width * HIDDEN)) / HIDDEN))

    @property
    def features(self) -> int:
        """Numbers that the convolutions leave of a picture."""
        return self.scaled(CHANNELS[-1]) * int((self.resolution // REDUCTION) ** 2)


class CvaeEncoder(nn.Module):
    """image [N,3,R,R] in [-1,1] and label [N,L] -> (mean, log variance) of z, each [N, z_size].

    The label is given twice, to the hidden layer and to the two output layers.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [3, *(config.scaled(channels) for channels in CHANNELS)]
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, padding_mode="reflect")
            for inputs, outputs in pairwise(sizes)
        )
        hidden = config.scaled(HIDDEN)
        self.hidden = nn.Linear(config.features + config.label_size, hidden)
        self.mean = nn.Linear(hidden + config.label_size, config.z_size)
        self.log_variance = nn.Linear(hidden + config.label_size, config.z_size)

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Raises InvalidInputError for a label of another size."""
        require_shape("label", label, self.config.label_size)
        x = scaled_to(image, self.config.resolution)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
        x = F.elu(self.hidden(torch.cat([x.flatten(1), label], 1)))
        x = torch.cat([x, label], 1)
        return self.mean(x), self.log_variance(x)


def draw_latent(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mean + noise * standard deviation; all [N, z_size], noise ~ N(0, 1)."""
    return mean + noise * torch.exp(0.5 * log_variance)
