"""Norms of a student that was taken out of a bundle: their statistics, which the bundle does not keep, measured anew.

A folded network computes the same in evaluation mode with any statistics in its norms, if their weights and biases make
up for it. In training mode a norm takes the statistics of the batch, so only the true ones keep what was learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

BATCH = 16


def has_unmeasured_norms(network: nn.Module) -> bool:
    """Whether every norm says that it has only seen mean 0 and variance 1, as those that `unbundle` makes."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return bool(norms) and all(
        bool((cast(Tensor, norm.running_mean) == 0).all() and (cast(Tensor, norm.running_var) == 1).all())
        for norm in norms
    )


@torch.no_grad()
def measure_norms(network: nn.Module, images: Tensor) -> None:
    """Give every norm the mean and variance of what reaches it, and weights with which evaluation stays the same.

    images: [N,3,S,S] as the network is trained on them. The network ends in evaluation mode.
    """
    network.eval()
    sums: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def add(norm: nn.BatchNorm2d) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            x = inputs[0].double().transpose(0, 1).flatten(1)
            row = [torch.tensor(float(x.shape[1])), x.sum(1), x.square().sum(1)]
            sums[norm] = row if norm not in sums else [a + b for a, b in zip(sums[norm], row, strict=True)]

        return hook

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(add(norm)) for norm in norms]
    try:
        for part in torch.split(images, BATCH):
            network(part)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        before_mean, before = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
        # weight * (x - mean) / sqrt(variance + eps) + bias must stay the same function of x.
        slope = norm.weight.double() / (before + norm.eps).sqrt()
        shift = norm.bias.double() - slope * before_mean
        norm.weight.copy_(slope * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + slope * mean)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)
