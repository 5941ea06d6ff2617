"""Batch norms folded into the convolutions before them (networks that have such a pair: BiSeNet, the portrait reader).

Pairs are found in the traced graph, not by name: a norm is folded only where its one input is a convolution whose one
user is that norm, and both are called once. That makes the fold exact wherever it is done.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import fx, nn

from ohlora.errors import InvalidInputError
from ohlora.export.rewrites.student import affine_of

Network = TypeVar("Network", bound=nn.Module)


def norm_pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of (convolution, batch norm after it) that can be folded.

    Raises InvalidInputError for what cannot be traced.
    """
    try:
        traced = fx.Tracer().trace(module)
    except (TypeError, ValueError, RuntimeError) as error:  # control flow that depends on values: TraceError and more
        raise InvalidInputError(
            f"a {type(module).__name__} cannot be traced ({str(error).splitlines()[0]}): its batch norms are not folded"
        ) from error
    calls = Counter(str(node.target) for node in traced.nodes if node.op == "call_module")
    for node in traced.nodes:
        if node.op != "call_module" or not isinstance(module.get_submodule(str(node.target)), nn.BatchNorm2d):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        names = str(source.target), str(node.target)
        if isinstance(module.get_submodule(names[0]), nn.Conv2d) and all(calls[name] == 1 for name in names):
            yield names


@torch.no_grad()
def fold_batch_norms(module: Network) -> Network:
    """Every batch norm after a convolution that nothing else reads sits in that convolution.

    Folded in float64 and rounded once to the module's precision; `module` is left as it is. Raises InvalidInputError
    for a module that cannot be traced, CheckpointError for a norm without running statistics.
    """
    result = copy.deepcopy(module).eval()
    for conv_name, norm_name in list(norm_pairs(result)):
        conv = cast(nn.Conv2d, result.get_submodule(conv_name))
        scale, shift = affine_of(cast(nn.BatchNorm2d, result.get_submodule(norm_name)))
        bias = 0.0 if conv.bias is None else conv.bias.double()
        kind = conv.weight.dtype
        conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
        conv.bias = nn.Parameter((bias * scale + shift).to(kind), requires_grad=False)
        result.set_submodule(norm_name, nn.Identity())
    return result
