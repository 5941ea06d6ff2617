"""Loss and Dice against examples worked out by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from ohlora.training.hairzoo.losses import batch_dice, bce_dice, soft_dice  # noqa: E402 - needs torch

# Four pixels with p = 3/4, 1/4, 1/2, 1/2 and labels 1, 0, 1, 0.
LOGITS = torch.tensor([math.log(3), -math.log(3), 0.0, 0.0]).reshape(1, 1, 2, 2)
LABEL = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)


def test_documented_loss() -> None:
    bce = (2 * math.log(4 / 3) + 2 * math.log(2)) / 4
    # mean(p t) = 1.25 / 4, mean p = mean t = 1/2: Dice part 1 - (0.625 + 1) / (1 + 1)
    assert float(bce_dice(LOGITS, LABEL)) == pytest.approx(0.9 * bce + 0.1 * 0.1875)


def test_plain_dice_loss() -> None:
    # sum(p t) = 1.25, sum p = sum t = 2
    assert float(soft_dice(LOGITS, LABEL)) == pytest.approx(1 - 3.5 / 5)


def test_the_dice_part_is_weak() -> None:
    """All wrong: the documented loss changes by at most 0.1, the plain one by nearly 1."""
    wrong, label = torch.full((1, 1, 8, 8), -20.0), torch.ones(1, 1, 8, 8)
    assert float(bce_dice(wrong, label)) == pytest.approx(0.9 * 20 + 0.1 * 0.5, rel=1e-4)
    assert float(soft_dice(wrong, label)) == pytest.approx(1 - 1 / 65, rel=1e-4)


def test_batch_dice() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 0.1]).reshape(1, 1, 2, 2)  # exactly 0 is not hair
    assert batch_dice(logits, torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)) == pytest.approx(2 / 4)
    assert batch_dice(logits, torch.zeros(1, 1, 2, 2)) == 0
    # One value over the whole batch, not a mean over pictures.
    logits = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).reshape(2, 1, 1, 2)
    label = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    assert batch_dice(logits, label) == pytest.approx(2 * 2 / 6)


def test_batch_dice_of_soft_labels_goes_by_half() -> None:
    logits, label = torch.ones(1, 1, 1, 3), torch.tensor([0.5, 0.49, 0.9]).reshape(1, 1, 1, 3)
    assert batch_dice(logits, label) == pytest.approx(4 / 5)
