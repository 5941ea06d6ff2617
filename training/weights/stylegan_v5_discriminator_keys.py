"""Published names of the v5 discriminator's tensors, and the network made from a published state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from ohlora.errors import CheckpointError
from ohlora.training.nets.score_cnns import PROPERTY_PARTS, CropCnn, Tower, width_of_hidden
from ohlora.training.nets.stylegan_v5_discriminator import BRANCHES, V5Discriminator, V5DiscriminatorConfig
from ohlora.training.weights.score_cnns_keys import LEAVES, part_prefix
from ohlora.training.weights.state_dicts import Layout, Shapes, load_layout


def layout_of(module: V5Discriminator) -> Layout:
    """Published name -> our name."""
    pairs = {"fc1.0": "hidden", "fc_final": "output"}
    for name in BRANCHES:
        theirs, ours = part_prefix(name), f"parts.{name}"
        pairs |= {f"{theirs}fc1.0": f"{ours}.hidden", f"{theirs}fc_final": f"{ours}.output"}
        tower = cast(Tower, cast(CropCnn, module.parts[name]).towers[0])
        pairs |= {f"{theirs}conv{c + 1}.0": f"{ours}.towers.0.convs.{c}" for c in range(len(tower.convs))}
    return Layout({f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in pairs.items() for leaf in LEAVES})


def published_shapes() -> Shapes:
    """Published keys and shapes of the documented network."""
    with torch.device("meta"):
        module = V5Discriminator()
    return layout_of(module).shapes(module)


def published_state(module: V5Discriminator) -> dict[str, Tensor]:
    """State dict of `module` under the published names, for other programs of the family."""
    return layout_of(module).rename(module)


def from_upstream(state: Mapping[str, Tensor]) -> V5Discriminator:
    """The network from its published state dict, any width. Raises CheckpointError."""
    key = f"{part_prefix(BRANCHES[0])}fc1.0.weight"
    hidden = state.get(key)
    if hidden is None or hidden.ndim != 2:
        raise CheckpointError(f"no hidden layer {key} [values, inputs]: a network of another kind")
    width = width_of_hidden(hidden.shape[0], PROPERTY_PARTS[BRANCHES[0]].hidden)
    module = V5Discriminator(V5DiscriminatorConfig(width))
    load_layout(module, state, layout_of(module))
    return module


def from_config(config: Mapping[str, Any]) -> V5Discriminator:
    return V5Discriminator(V5DiscriminatorConfig(**config))


def config_of(module: V5Discriminator) -> dict[str, Any]:
    """The configuration as plain values, to be stored beside the weights."""
    return asdict(module.config)
