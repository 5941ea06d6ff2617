"""Distillation losses over soft labels (docs/spec/segmentation.md, section 6). All are sums over batch and pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def mse(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of (p - q)^2, p = sigmoid(logits)."""
    return F.mse_loss(torch.sigmoid(logits), label, reduction="sum")


def soft_bce(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of -(q log p + (1-q) log(1-p)), logs clamped at -100 as documented: log p is the logit itself down there."""
    return F.binary_cross_entropy_with_logits(logits.clamp(-LOG_LIMIT, LOG_LIMIT), label, reduction="sum")


def kl(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of q (log q - log p), 0 where q = 0. Has no (1-q) term: p = 1 everywhere minimises it (documented)."""
    return F.kl_div(F.logsigmoid(logits), label, reduction="sum")


LOG_LIMIT = 100.0
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"soft_bce": soft_bce, "mse": mse, "kl": kl}
