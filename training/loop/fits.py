"""Small trainings in one go, on rows that are held in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ohlora.training.loop.steps import require_finite


def fit_rows(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    epochs: int,
    batch_size: int,
    rate: float,
    report: Callable[[int, float], None],
    weight_decay: float = 1e-3,
) -> None:
    """AdamW with one cycle of the learning rate up to `rate`; the network ends in evaluation mode.

    loss: of the rows with these numbers [batch], of `count`, which every epoch orders anew; what is left of a batch is
    not used. Parameters that need no gradient stay. report: gets the epoch, from 1, and its mean loss.
    Raises TrainingStoppedError when that is not finite.
    """
    steps = max(1, count // batch_size)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        order, total = torch.randperm(count), 0.0
        for step in range(steps):
            found = loss(order[step * batch_size : (step + 1) * batch_size])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(found)
            optimizer.step()
            schedule.step()
            total += float(found.detach())
        require_finite(f"epoch {epoch + 1}", {"training": total})
        report(epoch + 1, total / steps)
    network.eval()
