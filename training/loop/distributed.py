"""Training on several devices or machines: Lightning Fabric starts the processes, gradients are averaged here.

The modules stay plain modules, one copy a process, with the same weights everywhere: every process draws the same
random numbers for the whole batch and works on its own share of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.base.types import check_choice
from ohlora.errors import InvalidInputError
from ohlora.training.loop.precision import lightning_precision, precision_name


def started_by_fabric_run() -> bool:
    """Whether the processes exist already: `fabric run` made them, and its options count."""
    return os.environ.get("LT_CLI_USED") == "1"


def make_fabric(accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: str = "fp32") -> Fabric:
    """A Fabric of `devices` processes on each of `nodes` machines, not yet launched.

    Below `fabric run`, its own options count instead of these, and the processes run already. Raises InvalidInputError
    for what this machine does not have.
    """
    if devices < 1 or nodes < 1:
        raise InvalidInputError(f"devices and nodes must be 1 or more, got {devices} and {nodes}")
    word = lightning_precision(precision_name(precision))
    try:
        if started_by_fabric_run():
            return Fabric(precision=None if os.environ.get("LT_PRECISION") else word)
        strategy = "ddp" if devices * nodes > 1 else "auto"
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=word)
    except (RuntimeError, ValueError) as error:  # what Lightning raises for a device that is not there
        raise InvalidInputError(
            f"cannot train on {devices} device(s) '{accelerator}' of {nodes} machine(s): {str(error).splitlines()[0]}"
        ) from error


def chosen_device(name: str) -> torch.device:
    """The device "cpu", "cuda" or "auto" (CUDA where there is any). Raises InvalidInputError for others."""
    if check_choice("device", name, ("cpu", "cuda", "auto")) == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("no CUDA device can be used here: choose cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def mean_of(fabric: Fabric, value: Tensor) -> Tensor:
    """The mean of `value` over all processes, the same in each; as it is with one."""
    if fabric.world_size == 1:
        return value
    mean: Tensor = fabric.all_reduce(value.detach().clone(), reduce_op="mean")
    return mean


def gathered(fabric: Fabric, value: Tensor) -> Tensor:
    """[N, ...] of every process -> [processes * N, ...], in the order of `my_share`; as it is with one."""
    if fabric.world_size == 1:
        return value
    parts: Tensor = fabric.all_gather(value.detach())
    return parts.flatten(0, 1)


@torch.no_grad()
def average_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; nothing to do with one.

    Call between backward and the optimiser's step, with the same parameters in every process. One message for all of
    them: the tensors of these networks are many and small.
    """
    if fabric.world_size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    mean = mean_of(fabric, torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def my_share(fabric: Fabric, count: int) -> slice:
    """This process's part of a batch of `count` items. Raises InvalidInputError when it cannot be divided evenly."""
    world = fabric.world_size
    if count % world:
        raise InvalidInputError(
            f"a batch of {count} cannot be divided among {world} processes: use a batch size that is a multiple"
        )
    size = count // world
    return slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
