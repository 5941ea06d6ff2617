"""One documented training step against the reference: losses, gradients, AdamW, what moves, how often it repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training.finetune import gan_steps
from ohlora.training.finetune.draws import DISCRIMINATOR, GENERATOR, Draws
from ohlora.training.finetune.gan_steps import BatchResult, GanSteps
from ohlora.training.finetune.penalty_blur import with_cheap_blur
from ohlora.training.finetune.pictures import Batch
from ohlora.training.finetune.recipes import RECIPES, recipe
from ohlora.training.finetune.repeat_rule import LIMIT, RULES, RepeatRule, repeat
from ohlora.training.finetune.transfer import published_names, start_discriminator, start_generator, trained_names
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.steps import TrainingStoppedError
from ohlora.training.nets.stylegan_layers import Blur
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator, V5DiscriminatorConfig
from ohlora.training.weights import stylegan_keys
from tests.support.finetune_sets import SIZE, WIDTH, short, start_label, tiny_discriminator, tiny_generator
from tests.support.golden_values import rule_images
from tests.support.golden_weights import discriminator_state, generator_state

GRADIENT = 1e-3  # relative to the largest of a tensor (docs/spec/stylegan.md, section 14)
CHANGE = 2e-5  # absolute, where the gradient is above LARGE
LARGE = 1e-6


class GivenLatents(Draws):
    """Draws whose latents come from a list, in the order they are asked for."""

    given: NDArray[np.float32]
    used: list[int]

    def latents(self, use: int, size: int) -> Tensor:
        self.used.append(use)
        return torch.from_numpy(self.given[len(self.used) - 1])


class Recorded(GanSteps):
    """Keeps the gradients of the last update of each network."""

    gradients: dict[str, dict[str, Tensor]]

    def _step(self, name: str, module: nn.Module, loss: Tensor, where: str) -> float:
        value = super()._step(name, module, loss, where)
        self.gradients[name] = {k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None}
        return value


@pytest.mark.slow  # the documented size: half a minute each
@pytest.mark.parametrize("version", ["v1", "v9"])
def test_a_step_is_the_reference_step(golden: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The plain memory order: the other one is faster, and rounds five times as much.
    monkeypatch.setattr(gan_steps, "in_channels_last", lambda module, device: module)
    stored = dict(np.load(golden / f"stylegan/gan_step_{version}.npz"))
    generator = stylegan_keys.generator(version).load(generator_state(version))
    discriminator = stylegan_keys.discriminator(version).load(discriminator_state(version))
    networks: dict[str, tuple[Any, str]] = {"generator": (generator, "G"), "discriminator": (discriminator, "D")}
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, (net, _) in networks.items()}
    fabric = make_fabric("cpu")
    steps = Recorded(recipe(version, mixing=0.0, random_noise=False), fabric, generator, discriminator)
    steps.gradients = {}
    draws = GivenLatents(7, 0, 0, 4, slice(0, 4), fabric.device)
    object.__setattr__(draws, "given", stored["latents"])
    object.__setattr__(draws, "used", used := [])
    batch = Batch(rule_images(int(stored["image_seed"]))[:4], torch.from_numpy(stored["label"]))
    result = steps.train_batch(batch, draws, None, "the test")

    assert used == [DISCRIMINATOR, GENERATOR]
    assert len(used) == stored["latents_used"]
    assert len(result.g_losses) == stored["g_train_count"]
    assert result.d_losses[-1] == pytest.approx(float(stored["d_loss"]), abs=1e-4)
    assert result.g_losses[-1] == pytest.approx(float(stored["g_loss_last"]), abs=1e-4)
    assert float(result.real.mean()) == pytest.approx(float(stored["real_scores_mean"]), abs=1e-4)
    assert float(result.fake.mean()) == pytest.approx(float(stored["fake_scores_mean"]), abs=1e-4)
    assert result.auroc == pytest.approx(float(stored["real_fake_auroc"]))
    np.testing.assert_allclose(generator.w_avg.numpy(), stored["w_avg_after"], atol=1e-5)
    for name, (network, letter) in networks.items():
        names = published_names(network)
        listed = [str(key) for key in stored[f"{letter}_grad_names"]]
        gradients = steps.gradients[name]
        assert {k for k, ours in names.items() if ours in gradients} == set(listed)
        now = network.state_dict()
        for i, key in enumerate(listed):
            gradient, wanted = gradients[names[key]].contiguous().flatten(), stored[f"{letter}_grad_8"][i]
            places = np.arange(8) * max(1, gradient.numel() // 8) % gradient.numel()
            largest = max(float(gradient.abs().max()), 1e-12)
            np.testing.assert_allclose(gradient.numpy()[places], wanted, atol=GRADIENT * largest, err_msg=key)
            norm = float(stored[f"{letter}_grad_norm"][i])
            assert float(gradient.double().norm()) == pytest.approx(norm, rel=GRADIENT, abs=1e-12), key
            moved = (now[names[key]] - before[name][names[key]]).contiguous().flatten().numpy()[places]
            certain = np.abs(wanted) > LARGE
            change = stored[f"{letter}_delta_8"][i]
            np.testing.assert_allclose(moved[certain], change[certain], atol=CHANGE, err_msg=key)
        still = now.keys() - {names[key] for key in listed} - {"w_avg"}
        assert all(torch.equal(now[key], before[name][key]) for key in still)


def test_scripted_losses_give_the_documented_numbers_of_updates(golden: Path) -> None:
    cases = json.loads((golden / "stylegan/repeat_rule_cases.json").read_text())
    assert len(cases) > 50
    for case in cases:
        rule = RULES[RECIPES[case["rule"]].repeat]
        d_losses, g_losses = repeat(
            rule, lambda k, c=case: c["d_losses"][k], lambda k, c=case: c["g_losses"][k], case["last_g_before"]
        )
        assert (len(d_losses), len(g_losses)) == (case["d_train_count"], case["g_train_count"]), case
        assert d_losses[-1] == pytest.approx(case["d_loss"])
        assert g_losses[-1] == pytest.approx(case["g_loss"])


def test_the_limit_ends_every_repetition() -> None:
    losses = repeat(RepeatRule(1.0, 1.0), lambda k: 9.0, lambda k: 9.0, 1.0)
    assert [len(row) for row in losses] == [LIMIT, LIMIT]


def make_steps(version: str, **changes: Any) -> GanSteps:
    chosen = short(version, **changes)
    label, embedding = start_label(version)
    generator = start_generator(chosen, tiny_generator(label, embedding))
    discriminator = start_discriminator(chosen, tiny_discriminator(label))
    return GanSteps(chosen, make_fabric("cpu"), generator, discriminator)


def make_batch(labels: int, count: int = 4, seed: int = 3) -> Batch:
    stream = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIZE, SIZE, generator=stream) * 2 - 1
    return Batch(images, torch.randn(count, labels, generator=stream))


def train(steps: GanSteps, batch: Batch, number: int = 0) -> BatchResult:
    draws = Draws(7, 0, number, len(batch.images), slice(0, len(batch.images)), torch.device("cpu"))
    return steps.train_batch(batch, draws, None, "epoch 0, batch 0")


@pytest.mark.parametrize("version", ["v1", "v4", "v8", "v9"])
def test_only_what_is_trained_moves(version: str) -> None:
    steps = make_steps(version)
    networks = {"generator": steps.generator, "discriminator": steps.discriminator}
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in networks.items()}
    train(steps, make_batch(steps.generator.config.label_size))
    patterns = {
        "generator": steps.recipe.generator_trained,
        "discriminator": steps.recipe.discriminator_trained,
    }
    for name, net in networks.items():
        names = published_names(net)
        trained = {names[key] for key in trained_names(net, patterns[name])}
        moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[name][key])}
        assert moved <= trained | {"w_avg"}
        # Layers that lower levels of detail use get no gradient; all others do.
        assert {key for key in trained - moved if "from_rgb" not in key and "to_rgb" not in key} <= {
            key for key in trained if key.endswith("strength") and not steps.recipe.random_noise
        }
        assert ("w_avg" in moved) == (name == "generator")


def test_the_fakes_need_no_gradient_for_the_discriminators() -> None:
    """docs/spec/stylegan.md, section 13, P9: the published program drew them with a graph of the frozen generator; the
    gradients are the same.
    """
    steps, batch = make_steps("v1", mixing=0.0), make_batch(7)
    draws = Draws(7, 0, 0, 4, slice(0, 4), torch.device("cpu"))
    state = {k: v.clone() for k, v in steps.discriminator.state_dict().items()}
    steps.generator.update_w_avg = lambda *_: None  # type: ignore[method-assign]
    steps.update_discriminator(batch, draws, DISCRIMINATOR, "here")
    found = [p.grad.clone() for p in steps.trained["discriminator"] if p.grad is not None]
    steps.discriminator.load_state_dict(state)
    fake = steps.fakes(batch.labels, draws, DISCRIMINATOR)
    real = batch.images.clone().requires_grad_(True)
    scores = steps.discriminator(real, batch.labels), steps.discriminator(fake, batch.labels)
    loss = nn.functional.softplus(scores[1]).mean() + nn.functional.softplus(-scores[0]).mean()
    (slope,) = torch.autograd.grad(scores[0].sum(), real, create_graph=True)
    (loss + 5.0 * slope.square().sum((1, 2, 3)).mean()).backward()
    for parameter, gradient in zip(steps.trained["discriminator"], found, strict=True):
        assert parameter.grad is not None
        # Its own gradient came on top of the one from before: that is twice the same.
        torch.testing.assert_close(parameter.grad / 2, gradient, rtol=1e-4, atol=1e-6)


def test_an_unused_label_embedding_only_decays() -> None:
    """docs/spec/stylegan.md, section 13, P14: zero labels give label_weight a gradient of exactly
    zero; AdamW still shrinks it.
    """
    steps = make_steps("v8")
    embedding = steps.generator.mapping.embedding
    assert embedding is not None
    before, batch = embedding.detach().clone(), make_batch(7)
    batch.labels.zero_()
    updates = len(train(steps, batch).g_losses)
    torch.testing.assert_close(embedding.detach(), before * (1 - 1e-4 * 0.01) ** updates, rtol=1e-6, atol=0)


def test_conditional_truncation_pulls_towards_the_labels_own_mean() -> None:
    chosen = short("v5", centers=64, random_noise=False)
    generator = start_generator(chosen, tiny_generator(7, 16))
    discriminator = V5Discriminator(V5DiscriminatorConfig(WIDTH))
    steps = GanSteps(chosen, make_fabric("cpu"), generator, discriminator)
    labels = torch.randn(2, 3)
    draws = Draws(7, 0, 0, 2, slice(0, 2), torch.device("cpu"))
    with torch.no_grad():
        found = steps.fakes(labels, draws, 1)
        z, centers = draws.latents(1, 12), draws.centers(1, 64, 12)
        w = generator.mapping(z, labels)
        mean = torch.cat([generator.label_average(labels[i : i + 1], centers[i]) for i in range(2)])
        wanted = generator.synthesis(generator.broadcast(mean + 0.5 * (w - mean)), lod=0.0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert generator.w_avg.shape == (12,)  # P8: the mean of a batch stays out of the state


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_numbers_that_are_not_finite_stop_before_the_weights_are_touched(network: str) -> None:
    steps, batch = make_steps("v1"), make_batch(7)
    net: nn.Module = getattr(steps, network)
    if network == "discriminator":
        batch.images[0, 0, 0, 0] = float("nan")
    else:
        with torch.no_grad():
            next(iter(steps.generator.synthesis.to_rgb[-1].parameters())).fill_(float("nan"))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(
        TrainingStoppedError, match=r"stopped at epoch 0, batch 0: the loss 'discriminator loss' is nan"
    ):
        train(steps, batch)
    for key, value in net.state_dict().items():
        assert key == "w_avg" or torch.equal(value.nan_to_num(), before[key].nan_to_num())


def test_auroc_counts_ties_half() -> None:
    result = BatchResult((1.0,), (1.0,), torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [-1.0]]), torch.empty(0))
    assert result.auroc == pytest.approx(3.5 / 4)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown rule of repeats in recipe v1 'v2'.*choose v1, v5 or v9"):
        make_steps("v1", repeat="v2")


def test_the_blur_has_the_same_derivatives() -> None:
    plain, cheap = Blur(3).double(), with_cheap_blur(Blur(3).double())
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.equal(plain(x), cheap(x))
    assert torch.autograd.gradcheck(cheap, x)
    assert torch.autograd.gradgradcheck(cheap, x)
    slopes = [torch.autograd.grad((blur(x) ** 3).sum(), x, create_graph=True)[0] for blur in (plain, cheap)]
    seconds = [torch.autograd.grad(slope.square().sum(), x)[0] for slope in slopes]
    torch.testing.assert_close(seconds[0], seconds[1])
