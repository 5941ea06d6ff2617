"""Random numbers of one batch, keyed by (seed, epoch, batch, use): a resumed run draws the same ones.

Every process draws for the whole batch and takes its share, so that several processes see what one would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ohlora.training.loop.distributed import my_share
from ohlora.training.nets.stylegan import GeneratorConfig

# Uses of a batch's random numbers; update k of a network is DISCRIMINATOR + k or GENERATOR + k.
DISCRIMINATOR, GENERATOR = 100, 200
LATENTS, NOISE, MIXING, CENTERS, DROPOUT = range(5)


@dataclass(frozen=True)
class Draws:
    """count: size of the whole batch; share: what this process works on; rank: its number."""

    seed: int
    epoch: int
    batch: int
    count: int
    share: slice
    device: torch.device
    rank: int = 0

    @classmethod
    def of(cls, fabric: Fabric, seed: int, epoch: int, batch: int, count: int) -> Draws:
        """Those of this process. Raises InvalidInputError when the batch cannot be divided among the processes."""
        return cls(seed, epoch, batch, count, my_share(fabric, count), fabric.device, fabric.global_rank)

    def _stream(self, use: int, kind: int, device: torch.device) -> torch.Generator:
        stream = torch.Generator(device=device)
        return stream.manual_seed(mixed(self.seed, self.epoch, self.batch, use, kind))

    def latents(self, use: int, size: int) -> Tensor:
        """z [share, size]; drawn on the CPU, the same on every device."""
        stream = self._stream(use, LATENTS, torch.device("cpu"))
        return torch.randn(self.count, size, generator=stream)[self.share].to(self.device)

    def mixing(self, use: int, probability: float, config: GeneratorConfig) -> tuple[Tensor, int] | None:
        """Second latents [share, z_size] and the first layer that takes them; None where styles are not mixed.

        One decision and one cut, uniform in 1 .. layers - 1, for the whole batch (docs/spec/stylegan.md, section 3).
        """
        if probability <= 0:
            return None
        stream = self._stream(use, MIXING, torch.device("cpu"))
        if float(torch.rand((), generator=stream, dtype=torch.float64)) >= probability:
            return None
        cut = int(torch.randint(1, config.layers, (), generator=stream))
        return torch.randn(self.count, config.z_size, generator=stream)[self.share].to(self.device), cut

    def noise(self, use: int, config: GeneratorConfig) -> list[Tensor]:
        """One map [share, 1, r, r] a synthesis layer; drawn on the device, where it is needed in bulk."""
        stream = self._stream(use, NOISE, self.device)
        sizes = [resolution for resolution in config.resolutions for _ in range(2)]
        maps = [torch.randn(self.count, 1, size, size, generator=stream, device=self.device) for size in sizes]
        return [part[self.share] for part in maps]

    def centers(self, use: int, samples: int, size: int) -> Tensor:
        """Latents [share, samples, size] whose mean w a label's truncation pulls to."""
        stream = self._stream(use, CENTERS, self.device)
        drawn = torch.randn(self.count, samples, size, generator=stream, device=self.device)
        return drawn[self.share]

    def start_dropout(self, use: int) -> None:
        """Seed the stream that dropout draws from; another one in every process, as their pictures differ."""
        torch.manual_seed(mixed(self.seed, self.epoch, self.batch, use, DROPOUT) + self.rank)


def mixed(*keys: int) -> int:
    """A seed of 62 bits from small whole numbers; near keys give far seeds (splitmix64)."""
    state = 0
    for key in keys:
        state = (state ^ (key + 0x9E3779B97F4A7C15)) & (2**64 - 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = ((state ^ (state >> shift)) * factor) & (2**64 - 1)
        state ^= state >> 31
    return state >> 2
