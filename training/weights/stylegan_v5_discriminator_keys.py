"""Published names of the v5 discriminator's tensors, and the network made from a published state dict."""

from __future__ import annotations

from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator, V5DiscriminatorConfig
from ohlora.training.weights.score_cnns_keys import LEAVES, branch_names, branches_width
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork


def layout_of(module: V5Discriminator) -> Layout:
    """Published name -> our name."""
    last = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in (("fc1.0", "hidden"), ("fc_final", "output")) for leaf in LEAVES}
    return Layout(last | branch_names(module.parts))


DISCRIMINATOR = PublishedNetwork(
    layout_of,
    lambda state: V5Discriminator(V5DiscriminatorConfig(branches_width(state))),
    own=lambda config: V5Discriminator(V5DiscriminatorConfig(**config)),
)
