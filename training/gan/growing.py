"""Networks that change their resolution between phases, and the weight average of a generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator


def cut(generator: Generator, resolution: int) -> Generator:
    """A coarser generator: the blocks up to `resolution`, with the colors its own level learnt."""
    if resolution > generator.config.resolution:
        raise InvalidInputError(f"cannot cut a generator of {generator.config.resolution} pixels to {resolution}")
    with torch.random.fork_rng(devices=[]):
        coarse = Generator(replace(generator.config, resolution=resolution))
    coarse.load_state_dict(_shared(generator.state_dict(), coarse.state_dict()))
    return coarse.train(generator.training)


def _shared(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: old[key] for key, value in new.items() if key in old and old[key].shape == value.shape}


def grow_generator(old: Generator, new: Generator) -> None:
    """Copy everything `old` knows into `new` (same family, as fine or finer). Fresh blocks stay as initialised."""
    _require_growth("generator", old.config.resolution, new.config.resolution)
    missing, unexpected = new.load_state_dict(_shared(old.state_dict(), new.state_dict()), strict=False)
    expected = [key for key in missing if key in old.state_dict()]
    if expected or unexpected:
        raise InvalidInputError(
            f"the generator to go on from has other shapes, for one {(expected + list(unexpected))[0]}"
        )


def grow_discriminator(old: Discriminator, new: Discriminator) -> None:
    """As `grow_generator`. A discriminator counts its blocks from the finest, so they move up by the difference."""
    _require_growth("discriminator", old.config.resolution, new.config.resolution)
    shift = len(new.blocks) - len(old.blocks)
    moved = {}
    for key, value in old.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts[1] = str(int(parts[1]) + shift)
        moved[".".join(parts)] = value
    new.load_state_dict({**new.state_dict(), **moved})


def _require_growth(what: str, old: int, new: int) -> None:
    if new < old:
        raise InvalidInputError(f"a {what} of {old} pixels cannot go on at {new}: cut it first")


def fading_level(resolution_before: int, resolution: int, share: float) -> float:
    """lod at `share` (0 .. 1) of the way from the resolution before to this one; 0 without growth."""
    if resolution <= resolution_before or resolution_before == 0 or share >= 1.0:
        return 0.0
    steps = math.log2(resolution / resolution_before)
    return steps * (1.0 - max(share, 0.0))


class WeightAverage:
    """Exponential moving average of a module's weights with a half-life in training pictures.

    The half-life is at most `ramp` of the pictures seen, so an early average is not stuck at the initial weights.
    Buffers are copied.
    """

    def __init__(self, module: nn.Module, average: nn.Module, half_life: float, ramp: float) -> None:
        self.module, self.average = module, average
        self.half_life, self.ramp = half_life, ramp
        average.load_state_dict(module.state_dict())
        average.requires_grad_(False)

    def decay(self, batch: int, seen: int) -> float:
        half_life = min(self.half_life, seen * self.ramp) if self.ramp > 0 else self.half_life
        return 0.5 ** (batch / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, batch: int, seen: int) -> None:
        """Take in the weights after a step of `batch` pictures; `seen` counts them since the phase began."""
        share = 1.0 - self.decay(batch, seen)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), share)
        for mine, theirs in zip(self.average.buffers(), self.module.buffers(), strict=True):
            mine.copy_(theirs)
