"""Updates of discriminator and generator on one batch (docs/spec/stylegan.md, sections 8 and 13). The
loop is in `gan_loop.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.base.recipe import pick
from ohlora.training.finetune.draws import DISCRIMINATOR, GENERATOR, Draws
from ohlora.training.finetune.penalty_blur import with_cheap_blur
from ohlora.training.finetune.pictures import Batch
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.repeat_rule import RULES, repeat
from ohlora.training.finetune.transfer import AnyDiscriminator, train_only, trained_parameters
from ohlora.training.gan.fast import in_channels_last
from ohlora.training.gan.losses import discriminator_loss, generator_loss, gradient_penalty
from ohlora.training.loop.distributed import average_gradients, gathered, mean_of
from ohlora.training.loop.states import Parts
from ohlora.training.loop.steps import gradient_norm, require_finite
from ohlora.training.nets.stylegan import Generator


@dataclass(frozen=True)
class BatchResult:
    """What happened on one batch.

    d_losses, g_losses: of every update, before its step, with the penalty; the means over all processes.
    real, fake: scores [N,1] of the last discriminator update, all processes. fakes: pictures of the last generator
    update, this process.
    """

    d_losses: tuple[float, ...]
    g_losses: tuple[float, ...]
    real: Tensor
    fake: Tensor
    fakes: Tensor

    @property
    def auroc(self) -> float:
        """Chance that a real picture's score is above a generated one's; ties count half."""
        wins = (self.real.view(-1, 1) > self.fake.view(1, -1)).double()
        ties = (self.real.view(-1, 1) == self.fake.view(1, -1)).double()
        return float((wins + 0.5 * ties).mean())


class GanSteps:
    """The two networks and their optimisers, on the device of `fabric`."""

    def __init__(self, recipe: Recipe, fabric: Fabric, generator: Generator, discriminator: AnyDiscriminator) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.rule = pick(RULES, recipe.repeat, f"rule of repeats in recipe {recipe.version}")
        self.generator = in_channels_last(generator, fabric.device).train()
        self.discriminator = in_channels_last(discriminator, fabric.device).train(recipe.dropout)
        with_cheap_blur(self.discriminator)
        self.trained = {
            "generator": trained_parameters(self.generator, recipe.generator_trained),
            "discriminator": trained_parameters(self.discriminator, recipe.discriminator_trained),
        }
        # Over all parameters, as documented: AdamW passes over those that never get a gradient.
        self.optimizers = {
            name: torch.optim.AdamW(module.parameters(), rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
            for name, module, rate in (
                ("generator", self.generator, recipe.learning_rate),
                ("discriminator", self.discriminator, recipe.discriminator_rate),
            )
        }
        self.parts: Parts = {
            "generator": self.generator, "discriminator": self.discriminator, "optimizers": self.optimizers,
        }  # fmt: skip

    def train_batch(self, batch: Batch, draws: Draws, generator_before: float | None, where: str) -> BatchResult:
        """All updates on one batch. generator_before: last generator loss of the batch before, if any.

        Raises TrainingStoppedError when a loss or gradient is not finite, before the weights are touched by it; `where`
        names the batch in its message.
        """
        kept: dict[str, Tensor] = {}

        def discriminator_update(k: int) -> float:
            loss, kept["real"], kept["fake"] = self.update_discriminator(batch, draws, DISCRIMINATOR + k, where)
            return loss

        def generator_update(k: int) -> float:
            loss, kept["fakes"] = self.update_generator(batch, draws, GENERATOR + k, where)
            return loss

        losses = repeat(self.rule, discriminator_update, generator_update, generator_before)
        scores = gathered(self.fabric, kept["real"]), gathered(self.fabric, kept["fake"])
        return BatchResult(*losses, *scores, kept["fakes"])

    # Pictures

    def fakes(self, labels: Tensor, draws: Draws, use: int) -> Tensor:
        """Generated pictures of `labels`, with the recipe's mixing, truncation and noise; moves w_avg."""
        recipe, generator = self.recipe, self.generator
        z = draws.latents(use, generator.config.z_size)
        w = generator.mapping(z, labels)
        if recipe.w_avg_decay < 1:
            generator.update_w_avg(mean_of(self.fabric, w.detach().mean(0))[None], recipe.w_avg_decay)
        wp = generator.broadcast(w)
        if (mixing := draws.mixing(use, recipe.mixing, generator.config)) is not None:
            second, cut = mixing
            wp = generator.mix(w, generator.mapping(second, labels), cut)
        if recipe.psi < 1 and generator.config.conditional_truncation:
            average = self._label_average(labels, draws.centers(use, recipe.centers, generator.config.z_size))
            wp = torch.lerp(generator.broadcast(average), wp, recipe.psi)
        elif recipe.psi < 1:
            wp = generator.truncate(wp, recipe.psi, generator.config.layers)
        noise = draws.noise(use, generator.config) if recipe.random_noise else None
        with self.fabric.autocast():
            images: Tensor = generator.synthesis(wp, lod=0.0, noise=noise)
        return images.float()

    def _label_average(self, labels: Tensor, centers: Tensor) -> Tensor:
        """Mean w [N, w_size] of centers [N, K, z_size] under each label, all in one pass."""
        count, samples = centers.shape[:2]
        rows = labels.repeat_interleave(samples, 0)
        w: Tensor = self.generator.mapping(centers.flatten(0, 1), rows)
        return torch.unflatten(w, 0, (count, samples)).mean(1)

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        net: nn.Module = self.discriminator
        # The level of detail is stored in a tensor; asking for it would wait for the device.
        scores: Tensor = net(images, labels, lod=0.0) if hasattr(net, "lod") else net(images, labels)
        return scores

    # Updates

    def update_discriminator(self, batch: Batch, draws: Draws, use: int, where: str) -> tuple[float, Tensor, Tensor]:
        """One step -> (loss with penalty, real scores, fake scores)."""
        recipe = self.recipe
        with torch.no_grad():  # documented as frozen, not detached: the gradients are the same (P9)
            fake = self.fakes(batch.labels, draws, use)
        train_only(self.generator, ())
        train_only(self.discriminator, self.trained["discriminator"])
        draws.start_dropout(use)
        # The penalty needs second derivatives, in full precision; the loss shares its pass over the real pictures.
        images = batch.images.detach().requires_grad_(recipe.r1_gamma > 0)
        real_scores = self._scores(images, batch.labels)
        with self.fabric.autocast():
            fake_scores = self._scores(fake, batch.labels)
        loss = discriminator_loss(real_scores, fake_scores)
        if recipe.r1_gamma > 0:
            loss = loss + recipe.r1_gamma / 2 * gradient_penalty(real_scores, images)
        value = self._step("discriminator", self.discriminator, loss, where)
        return value, real_scores.detach().float(), fake_scores.detach().float()

    def update_generator(self, batch: Batch, draws: Draws, use: int, where: str) -> tuple[float, Tensor]:
        """One step -> (loss, the pictures it was taken of)."""
        train_only(self.discriminator, ())
        train_only(self.generator, self.trained["generator"])
        draws.start_dropout(use)
        fake = self.fakes(batch.labels, draws, use)
        with self.fabric.autocast():
            loss = generator_loss(self._scores(fake, batch.labels))
        return self._step("generator", self.generator, loss, where), fake.detach()

    def _step(self, name: str, module: nn.Module, loss: Tensor, where: str) -> float:
        mean = mean_of(self.fabric, loss.detach())
        require_finite(where, {f"{name} loss": mean})
        self.optimizers[name].zero_grad()
        # Only towards what is trained: the way to the real pictures, and through frozen layers, costs as much again.
        torch.autograd.backward(loss, inputs=self.trained[name])
        average_gradients(self.fabric, self.trained[name])
        require_finite(where, {}, {name: gradient_norm(module.parameters())})
        self.optimizers[name].step()
        return float(mean)
