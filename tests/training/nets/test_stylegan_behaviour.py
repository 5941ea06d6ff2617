"""Behaviour of the StyleGAN modules that needs no reference data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig
from ohlora.training.nets.stylegan_layers import DownConv, UpConv, scaled

SMALL = GeneratorConfig(resolution=32, z_size=16, w_size=16, channel_base=256, channel_max=16)


@pytest.fixture(autouse=True)
def seeded_without_gradients() -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("flipped", [False, True])
def test_up_convolution_is_what_it_replaces(flipped: bool) -> None:
    layer = UpConv(3, 5, flipped=flipped)
    x = torch.randn(2, 3, 7, 7)
    weight = scaled(layer.weight, layer.weight_gain)
    plain = F.conv2d(F.interpolate(x, scale_factor=2), weight if flipped else weight.flip(2, 3), padding=1)
    torch.testing.assert_close(layer(x), layer.blur(plain), rtol=0, atol=1e-5)


def test_down_convolution_is_what_it_replaces() -> None:
    layer = DownConv(3, 5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 8)
    plain = F.conv2d(layer.blur(x), scaled(layer.weight, layer.weight_gain), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), F.avg_pool2d(plain, 2), rtol=0, atol=1e-5)


def test_evaluation_is_deterministic_and_rows_are_independent() -> None:
    model = Generator(SMALL).eval()
    z = torch.randn(3, 16)
    image = model(z)
    assert image.shape == (3, 3, 32, 32)
    assert torch.equal(image, model(z))
    # Not bit for bit: other batch sizes take other kernels, and instance norm enlarges the rounding.
    torch.testing.assert_close(image[1:2], model(z[1:2]), rtol=0, atol=1e-4)


def test_random_choices_follow_the_seed_and_are_made_in_training_only() -> None:
    model = Generator(SMALL)
    for layer in model.synthesis.layers:
        torch.nn.init.ones_(layer.offset.strength)
    z = torch.randn(2, 16)

    def make(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model.synthesis(model.training_latents(z, mixing=0.9), random_noise=True)

    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))
    assert not torch.equal(make(1), model(z))
    assert torch.equal(model.train()(z), model(z))


def test_mixing_keeps_the_first_layer_and_changes_the_last() -> None:
    model = Generator(SMALL)
    z = torch.randn(2, 16)
    w = model.mapping(z)
    for seed in range(20):
        torch.manual_seed(seed)
        wp = model.training_latents(z, mixing=1.0)
        assert torch.equal(wp[:, 0], w)
        assert not torch.equal(wp[:, -1], w)


def test_wrong_inputs_are_named() -> None:
    model = Generator(SMALL)
    labelled = Generator(GeneratorConfig(resolution=8, z_size=8, w_size=8, channel_max=4, label_size=3))
    w = torch.zeros(1, 16)
    for call, message in (
        (lambda: model(torch.zeros(2, 15)), r"z must have shape \[N, 16\], got \[2, 15\]"),
        (lambda: model(torch.zeros(1, 16), torch.zeros(1, 3)), "takes no label"),
        (lambda: labelled(torch.zeros(1, 8)), r"needs a label \[N, 3\]"),
        (lambda: labelled(torch.zeros(1, 8), torch.zeros(1, 7)), "label must have shape"),
        (lambda: model.truncate(torch.zeros(1, 8)), "w must have shape"),
        (lambda: model.truncate(w, 0.5, 99), r"layers must be in \[0, 8\], got 99"),
        (lambda: model.synthesis(model.broadcast(w), lod=3.5), r"lod must be in \[0, 3\]"),
        (lambda: model.mapping.hidden(torch.zeros(1, 16)), "only split mappings"),
        (lambda: GeneratorConfig(resolution=100), "power of two"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()


def test_discriminator_refuses_batches_it_cannot_group() -> None:
    model = Discriminator(DiscriminatorConfig(resolution=8, group=4, channel_max=4, label_size=3))
    images, label = torch.zeros(6, 3, 8, 8), torch.zeros(6, 3)
    assert model(images[:3], label[:3]).shape == (3, 1)
    with pytest.raises(InvalidInputError, match="6 images cannot be cut into groups of 4"):
        model(images, label)
    with pytest.raises(InvalidInputError, match="needs a label"):
        model(images[:4])
    with pytest.raises(InvalidInputError, match="image must have shape"):
        model(torch.zeros(1, 3, 16, 16), label[:1])


def test_everything_alive_is_trainable() -> None:
    model = Generator(GeneratorConfig(resolution=16, z_size=8, w_size=8, channel_max=8, split_size=12))
    judge = Discriminator(DiscriminatorConfig(resolution=16, channel_max=8))
    with torch.enable_grad():
        judge(model(torch.randn(2, 8))).sum().backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == {f"synthesis.to_rgb.{k}.{leaf}" for k in (0, 1) for leaf in ("weight", "bias")}
    without = {name for name, value in judge.named_parameters() if value.grad is None}
    assert without == {f"blocks.{b}.from_rgb.{leaf}" for b in (1, 2) for leaf in ("weight", "bias")}
