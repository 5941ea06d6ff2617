"""Growing, averaging, the linear mapping, and the faster forms against the modules they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.gan.growing import WeightAverage, cut, fading_level, grow_discriminator, grow_generator
from ohlora.training.gan.mapping_fit import make_linear, readout_fit, readout_loss, readout_matrix
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig

SHAPE = GeneratorConfig(
    resolution=32, z_size=48, w_size=40, mapping_layers=4, channel_base=256, channel_max=16, fused_from=16
)


def generator(resolution: int = 32, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    net = Generator(replace(SHAPE, resolution=resolution))
    for layer in net.synthesis.layers:
        torch.nn.init.normal_(layer.offset.strength)
        torch.nn.init.normal_(layer.offset.bias)
    return net.eval()


def discriminator(resolution: int = 32, seed: int = 0) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(DiscriminatorConfig(resolution=resolution, group=2, channel_base=256, channel_max=16)).eval()


@torch.no_grad()
def test_grown_generator_begins_with_the_old_picture() -> None:
    old, new = generator(16), generator(32, seed=1)
    grow_generator(old, new)
    z = torch.randn(3, SHAPE.z_size)
    wanted = F.interpolate(old(z, lod=0.0), scale_factor=2, mode="nearest")
    torch.testing.assert_close(new(z, lod=1.0), wanted)
    assert not torch.allclose(new(z, lod=0.0), wanted, atol=0.1)


@torch.no_grad()
def test_grown_discriminator_begins_with_the_old_score() -> None:
    old, new = discriminator(16), discriminator(32, seed=1)
    grow_discriminator(old, new)
    image = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(new(F.interpolate(image, scale_factor=2, mode="nearest"), lod=1.0), old(image, lod=0.0))


@torch.no_grad()
def test_cut_generator_draws_its_own_level() -> None:
    fine = generator(32)
    coarse = cut(fine, 16)
    assert coarse.config.resolution == 16
    z = torch.randn(2, SHAPE.z_size)
    torch.testing.assert_close(F.interpolate(coarse(z, lod=0.0), scale_factor=2, mode="nearest"), fine(z, lod=1.0))
    with pytest.raises(InvalidInputError, match="cannot cut a generator of 32 pixels to 64"):
        cut(fine, 64)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fading_form_is_the_modules_level(share: float) -> None:
    g = generator()
    wp = g.broadcast(g.mapping(torch.randn(4, SHAPE.z_size)))
    picture = g.synthesis(wp, lod=1 - share)
    torch.testing.assert_close(g.synthesis(wp, lod=0.5, share=torch.tensor(share)), picture)


def test_fading_level() -> None:
    assert fading_level(0, 32, 0.0) == 0.0  # nothing to fade from
    assert fading_level(32, 32, 0.0) == 0.0
    assert fading_level(32, 64, 0.25) == pytest.approx(0.75)
    assert fading_level(16, 64, 0.5) == pytest.approx(1.0)
    assert fading_level(32, 64, 1.0) == 0.0


def test_weight_average_half_life_and_ramp() -> None:
    module, average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ema = WeightAverage(module, average, half_life=1000, ramp=0.05)
    assert ema.decay(batch=100, seen=10**6) == pytest.approx(0.5**0.1)
    assert ema.decay(batch=100, seen=2000) == pytest.approx(0.5)  # half-life 5 % of 2,000
    before = average.weight.clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    ema.update(batch=100, seen=2000)
    torch.testing.assert_close(average.weight, before + 0.5)


def test_early_average_follows_the_weights() -> None:
    """Without a ramp the average would still hold nine tenths of the initial weights here."""
    module, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    module.weight.data.zero_()
    ema = WeightAverage(module, average, half_life=10_000, ramp=0.05)
    module.weight.data.fill_(1.0)
    for step in range(1, 21):
        ema.update(batch=64, seen=64 * step)
    assert float(average.weight) > 0.9


def test_linear_mapping_is_exact_on_fresh_latents() -> None:
    net = generator()
    readout = readout_matrix(9, SHAPE.w_size, seed=3)
    assert readout_fit(net, readout)["r2_mean"] < 0.5
    make_linear(net.mapping, readout)
    fit = readout_fit(net, readout)
    assert fit["r2_min"] > 0.99999
    assert fit["outside_share"] < 1e-6
    z = torch.randn(500, SHAPE.z_size)
    w = net.mapping(z)
    assert float(readout_loss(net.mapping, z, w, readout).detach()) < 1e-9
    assert float(w.detach().square().mean()) == pytest.approx(1.0, abs=0.15)


@torch.no_grad()
def test_a_latent_is_a_straight_step_in_w() -> None:
    net = generator()
    readout = readout_matrix(9, SHAPE.w_size, seed=3)
    make_linear(net.mapping, readout)
    u = net.mapping.normalized(torch.randn(1, SHAPE.z_size))
    moved = u.clone()
    moved[0, 4] += 0.5
    w, w_moved = (net.mapping.dense[0](x) for x in (u, moved))
    for layer in list(net.mapping.dense)[1:]:
        w, w_moved = layer(w), layer(w_moved)
    torch.testing.assert_close(w_moved - w, 0.5 * readout[4:5] / readout[4].square().sum(), rtol=1e-3, atol=1e-4)


def test_linear_mapping_needs_an_even_number_of_layers() -> None:
    net = Generator(replace(SHAPE, mapping_layers=5))
    with pytest.raises(InvalidInputError, match="even number of mapping_layers"):
        make_linear(net.mapping, readout_matrix(4, SHAPE.w_size, 0))
    with pytest.raises(InvalidInputError, match="do not fit"):
        readout_matrix(50, SHAPE.w_size, 0)


def test_growing_refuses_another_family() -> None:
    torch.manual_seed(0)
    other = Generator(replace(SHAPE, resolution=16, channel_max=12))
    with pytest.raises(InvalidInputError, match="other shapes"):
        grow_generator(other, generator(32))
    with pytest.raises(InvalidInputError, match="cut it first"):
        grow_generator(generator(32), generator(16))
