"""Latents to pictures for the search: a generator's mapping in PyTorch, its synthesis in PyTorch or a compiled
engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.base.types import Backend, PrecisionChoice, Rgb
from ohlora.base.values import Z_SIZE
from ohlora.bundle import Bundle
from ohlora.engines import Engine
from ohlora.errors import InvalidInputError
from ohlora.faces import LABEL_SIZES
from ohlora.latents.spaces import Space, space_size
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.families import AnyGenerator
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import Mapping
from ohlora.training.sampling.sample import exact_arithmetic
from ohlora.training.unbundle.generator import unbundled

Floats = NDArray[np.float32]
Synthesis = Callable[[Floats], Rgb]  # w float32 [N,W] -> uint8 RGB [N,R,R,3]

MAPPED_AT_ONCE = 1024
DRAWN_AT_ONCE = 16


@dataclass(frozen=True)
class Portrayer:
    """generator: in evaluation mode. synthesis: draws w. sha256: of the trained weights. engine: what draws, in
    words."""

    generator: AnyGenerator
    synthesis: Synthesis
    sha256: str
    engine: str

    def __post_init__(self) -> None:
        config = self.generator.config
        if config.z_size != Z_SIZE or config.label_size not in LABEL_SIZES:
            raise InvalidInputError(
                f"this generator takes {config.z_size} latent and {config.label_size} label values; the search draws "
                f"codes of {Z_SIZE} and {', '.join(map(str, LABEL_SIZES))}"
            )

    def size(self, space: Space) -> int:
        """Length of a vector of `space`. Raises InvalidInputError for a space that this generator does not have."""
        return space_size(space, self.generator.config, "this generator")

    @torch.inference_mode()
    def start(self, z: Floats, label: Floats, space: Space) -> Floats:
        """z [N,512], label [N,L] -> the vectors that are edited, float32 [N,D]."""
        if space == "z":
            return np.concatenate([z, label], 1)
        parts = []
        for first in range(0, len(z), MAPPED_AT_ONCE):
            rows = slice(first, first + MAPPED_AT_ONCE)
            parts.append(self._start(self._tensor(z[rows]), self._label(label[rows]), space).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.size(space)), np.float32)

    @torch.inference_mode()
    def finish(self, vectors: Floats, space: Space) -> Floats:
        """Edited vectors of `space` [N,D] -> w float32 [N,W]."""
        mapping, width = self.generator.mapping, self.generator.config.w_size
        if space == "w":
            return vectors
        if space == "mapping_split2":
            return vectors[:, :width] + vectors[:, width:]
        given = self._tensor(vectors)
        if space == "z":
            w: Tensor = mapping(given[:, :Z_SIZE], given[:, Z_SIZE:] if self.generator.config.label_size else None)
        else:
            first, second = self._split().ends(given[:, :width], given[:, width:])
            w = first + second
        return cast(Floats, w.cpu().numpy())

    def images(self, w: Floats) -> Rgb:
        """uint8 RGB [N,R,R,3]: stored noise, no truncation, rounded as documented."""
        parts = [self.synthesis(w[first : first + DRAWN_AT_ONCE]) for first in range(0, len(w), DRAWN_AT_ONCE)]
        return np.concatenate(parts)

    def _start(self, z: Tensor, label: Tensor | None, space: Space) -> Tensor:
        if space == "w":
            return cast(Tensor, self.generator.mapping(z, label))
        mapping = self._split()
        first, second = mapping.hidden(z, label)
        if space == "mapping_split2":
            first, second = mapping.ends(first, second)
        return torch.cat([first, second], 1)

    def _split(self) -> Mapping:
        """The mapping network of two branches, which `size` has asked for."""
        mapping = self.generator.mapping
        if not isinstance(mapping, Mapping):
            raise InvalidInputError(f"the mapping network of a {type(self.generator).__name__} has one branch")
        return mapping

    def _tensor(self, values: Floats) -> Tensor:
        return torch.tensor(values).to(self.generator.w_avg.device)

    def _label(self, label: Floats) -> Tensor | None:
        return self._tensor(label) if self.generator.config.label_size else None


def torch_portrayer(generator: AnyGenerator, device: torch.device | str = "cpu") -> Portrayer:
    """Everything in PyTorch, float32 (TF32 off), on `device`."""
    generator = generator.to(device).eval()
    sha256 = state_sha256(generator)

    def draw(w: Floats) -> Rgb:
        with exact_arithmetic(), torch.inference_mode():
            wp = generator.broadcast(torch.tensor(w).to(generator.w_avg.device))
            return as_bytes(generator.draw(wp).double())

    return Portrayer(generator, draw, sha256, f"torch-{torch.device(device).type}")


def engine_portrayer(generator: AnyGenerator, synthesis: Engine, sha256: str | None = None) -> Portrayer:
    """`synthesis` (wp -> image) draws; only the mapping network stays in PyTorch.

    sha256: name of the generator's weights, where the module is not the original (a bundle's).
    """
    layers = generator.config.layers

    def draw(w: Floats) -> Rgb:
        return cast(Rgb, synthesis(wp=np.repeat(w[:, None], layers, axis=1))["image"])

    name = f"{synthesis.backend}-{synthesis.precision}"
    return Portrayer(generator.eval(), draw, sha256 or state_sha256(generator), name)


def bundle_portrayer(bundle: str | Path, backend: Backend = "auto", precision: PrecisionChoice = "fp32") -> Portrayer:
    """A bundle's generator, drawn by its own engine. Raises BundleError or EngineError."""
    opened = Bundle.open(bundle)
    synthesis = opened.synthesis_engine(backend, precision)
    return engine_portrayer(unbundled(opened), synthesis, opened.generator_part().state_sha256 or None)
