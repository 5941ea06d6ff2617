"""Published names of the v5 discriminator's tensors, and the network made from a published state dict."""

from __future__ import annotations

from typing import cast

from ohlora.training.nets.score_cnns import CropCnn, Tower
from ohlora.training.nets.stylegan_v5_discriminator import BRANCHES, V5Discriminator, V5DiscriminatorConfig
from ohlora.training.weights.score_cnns_keys import LEAVES, branches_width, part_prefix
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork


def layout_of(module: V5Discriminator) -> Layout:
    """Published name -> our name."""
    pairs = {"fc1.0": "hidden", "fc_final": "output"}
    for name in BRANCHES:
        theirs, ours = part_prefix(name), f"parts.{name}"
        pairs |= {f"{theirs}fc1.0": f"{ours}.hidden", f"{theirs}fc_final": f"{ours}.output"}
        tower = cast(Tower, cast(CropCnn, module.parts[name]).towers[0])
        pairs |= {f"{theirs}conv{c + 1}.0": f"{ours}.towers.0.convs.{c}" for c in range(len(tower.convs))}
    return Layout({f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in pairs.items() for leaf in LEAVES})


DISCRIMINATOR = PublishedNetwork(
    layout_of,
    lambda state: V5Discriminator(V5DiscriminatorConfig(branches_width(state))),
    own=lambda config: V5Discriminator(V5DiscriminatorConfig(**config)),
)
