"""Losses and augmentations of the generator's training against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ohlora.errors import InvalidInputError
from ohlora.training.gan import losses
from ohlora.training.gan.augment import AUGMENTS, augment
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig


def test_gradient_penalty_of_a_quadratic_score() -> None:
    """D(x) = a/2 |x|^2 has the gradient a x, so the penalty is a^2 |x|^2, and its derivative in a is 2 a |x|^2."""
    a = torch.tensor(3.0, requires_grad=True)
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    penalty = losses.gradient_penalty(a / 2 * images.square().sum((1, 2, 3))[:, None], images)
    squares = float(images.detach().square().sum((1, 2, 3)).mean())
    assert float(penalty.detach()) == pytest.approx(9 * squares, rel=1e-5)
    penalty.backward()
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(6 * squares, rel=1e-5)


def test_lazy_penalty_pulls_as_hard_on_average() -> None:
    gamma, every, steps = 10.0, 4, 12
    weights = [losses.lazy_weight(gamma, every) if step % every == 0 else 0.0 for step in range(steps)]
    assert sum(weights) / steps == pytest.approx(gamma / 2)


def test_softplus_losses() -> None:
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [0.0]])

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    expected = (softplus(0.5) + softplus(0.0)) / 2 + (softplus(-2.0) + softplus(1.0)) / 2
    assert float(losses.discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-6)
    assert float(losses.generator_loss(fake)) == pytest.approx((softplus(-0.5) + softplus(0.0)) / 2, rel=1e-6)


def test_pyramid_weighs_coarse_errors_more() -> None:
    """A constant error counts on every level, a checkerboard on the finest alone."""
    target = torch.zeros(1, 3, 64, 64)
    flat = torch.full_like(target, 0.5)
    board = flat * (1 - 2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2))
    assert float(losses.pyramid_l1(flat, target)) == pytest.approx(0.5)
    assert float(losses.pyramid_l1(board, target)) == pytest.approx(0.5 / 4)


def test_features_are_frozen_but_let_gradients_through() -> None:
    net = losses.FeatureNet(3).train()
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    image = torch.rand(2, 3, 32, 32).requires_grad_(True)
    maps = net(image)
    assert [m.shape[1:] for m in maps] == [(16, 16, 16), (24, 8, 8), (40, 4, 4)]
    other = [m.detach() for m in net(torch.rand(2, 3, 32, 32))]
    distance = losses.feature_distance(maps, other)
    assert 0 < float(distance.detach()) <= 4
    distance.backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert float(losses.feature_distance(other, other)) == 0


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_augmentation_keeps_shape_and_passes_gradients(name: str) -> None:
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    y = augment(x, [name], torch.Generator().manual_seed(3))
    again = augment(x, [name], torch.Generator().manual_seed(3))
    assert y.shape == x.shape
    assert torch.equal(y, again)
    assert not torch.equal(y, x)
    y.square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0


def test_translation_moves_whole_pictures() -> None:
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    y = augment(x, ["translation"], torch.Generator().manual_seed(5))
    for before, after in zip(x, y, strict=True):
        found = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(
                after[:, max(-dy, 0) : 16 - max(dy, 0), max(-dx, 0) : 16 - max(dx, 0)],
                before[:, max(dy, 0) : 16 + min(dy, 0), max(dx, 0) : 16 + min(dx, 0)],
            )
        ]
        assert len(found) == 1


def test_cutout_blanks_at_most_a_quarter() -> None:
    y = augment(torch.ones(16, 1, 32, 32), ["cutout"], torch.Generator().manual_seed(6))
    blank = (y == 0).float().mean((1, 2, 3))
    assert float(blank.max()) <= 0.26
    assert float(blank.min()) > 0.03


def test_unknown_augmentation() -> None:
    with pytest.raises(InvalidInputError, match="'swirl'"):
        augment(torch.zeros(1, 3, 8, 8), ["swirl"], torch.Generator())


def test_second_derivative_of_the_discriminator() -> None:
    """The penalty's derivative in one weight against a finite difference, through blur and batch statistics."""
    torch.manual_seed(0)
    net = Discriminator(DiscriminatorConfig(resolution=16, group=2, channel_base=64, channel_max=8)).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    weight = net.blocks[0].down.weight

    def penalty() -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(net(x, lod=0.0).sum(), x, create_graph=True)
        assert float(losses.gradient_penalty(net(x, lod=0.0), x).detach()) == pytest.approx(
            float(gradient.detach().square().sum((1, 2, 3)).mean()), rel=1e-4
        )
        return gradient.square().sum((1, 2, 3)).mean()

    penalty().backward()
    assert weight.grad is not None
    exact, step = float(weight.grad[1, 2, 0, 1]), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[1, 2, 0, 1] += sign * step
        values.append(float(penalty().detach()))
        with torch.no_grad():
            weight[1, 2, 0, 1] -= sign * step
    assert exact != 0
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(exact, rel=1e-3)
