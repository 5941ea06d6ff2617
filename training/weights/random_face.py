"""The photographic generator as a module: the numbers of random-face, and the mean latent that truncation pulls to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.bundle.photo.architecture import Architecture
from ohlora.bundle.photo.mean_latent import mean_latent
from ohlora.bundle.photo.random_face import Package, random_face
from ohlora.training.nets.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork


def from_published(path: Path | str, package: Package | None = None) -> MobileStyleGAN:
    """The generator at its full size, from the package's wheel or a folder of its files.

    Raises CheckpointError naming the file that is missing or another one.
    """
    package = package or random_face()
    state = package.read(path)
    module = from_arrays(state, MobileStyleGANConfig(package.architecture, package.architecture.resolution))
    module.w_avg.copy_(torch.from_numpy(mean_latent(state, package.architecture, samples=package.samples)))
    return module


def from_arrays(state: Mapping[str, NDArray[np.float32]], config: MobileStyleGANConfig) -> MobileStyleGAN:
    """A module with these tensors, by `Architecture.shapes`; w_avg is left 0."""
    module = MobileStyleGAN(config)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    module.load_state_dict(tensors | {"w_avg": module.w_avg}, strict=True)
    return module


def from_config(config: Mapping[str, Any]) -> MobileStyleGAN:
    """An empty module for our own files."""
    values = dict(config["architecture"])
    architecture = Architecture(**{**values, "channels": tuple(values["channels"])})
    return MobileStyleGAN(MobileStyleGANConfig(architecture, config["size"]))


PHOTOGRAPHIC = PublishedNetwork[MobileStyleGAN](
    layout=lambda module: Layout({name: name for name in module.config.architecture.shapes()}),
    own=from_config,
    read=from_published,
)
