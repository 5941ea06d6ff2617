"""Loss and Dice of the zoo (docs/spec/segmentation.md, section 8). Logits and labels [B,1,S,S], labels in [0,1]."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

BCE_SHARE = 0.9
SMOOTH = 1.0
EPSILON = 1e-9


def bce_dice(logits: Tensor, label: Tensor) -> Tensor:
    """0.9 * BCE + 0.1 * (1 - (2 mean(p t) + 1) / (mean p + mean t + 1)), p = sigmoid(logits).

    The smoothing constant is large against means: the Dice part is between 0 and 2/3 and pulls weakly. That is how it
    is documented.
    """
    p = logits.sigmoid()
    dice = (2 * (p * label).mean() + SMOOTH) / (p.mean() + label.mean() + SMOOTH)
    return BCE_SHARE * F.binary_cross_entropy_with_logits(logits, label) + (1 - BCE_SHARE) * (1 - dice)


def soft_dice(logits: Tensor, label: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1), over the whole batch."""
    p = logits.sigmoid()
    return 1 - (2 * (p * label).sum() + SMOOTH) / (p.sum() + label.sum() + SMOOTH)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bce-dice": bce_dice, "dice": soft_dice}


def batch_dice(logits: Tensor, label: Tensor) -> float:
    """2 sum(b t) / (sum b + sum t + 1e-9) over the batch, b = logit > 0; 0 where neither has hair, as documented.

    Labels are hair from 0.5 on, which changes nothing for the documented masks of 0 and 1.
    """
    b, t = logits > 0, label >= 0.5
    # Counted as integers: a float32 sum of 0/1 is no longer exact beyond 2^24 pixels.
    return 2 * int((b & t).sum()) / (int(b.sum()) + int(t.sum()) + EPSILON)
