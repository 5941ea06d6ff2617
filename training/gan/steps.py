"""One training step: networks, optimizers and losses of the current phase (the loop around it is in `loop.py`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.gan.augment import augment
from ohlora.training.gan.config import GanConfig, Phase
from ohlora.training.gan.fast import compiled, in_channels_last
from ohlora.training.gan.growing import WeightAverage, cut, fading_level, grow_discriminator, grow_generator
from ohlora.training.gan.losses import (
    FeatureNet,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
    lazy_weight,
    pyramid_l1,
)
from ohlora.training.gan.mapping_fit import make_linear, readout_loss, readout_matrix
from ohlora.training.loop.states import Parts, load_states, states_of
from ohlora.training.loop.steps import require_finite
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_layers import AdaIN

WARM_STEPS = 50  # of every phase: fresh Adam statistics make the first steps too long
FEATURE_STAGES = 4


@dataclass
class Batch:
    """real: [N,3,R,R] in [-1,1]; z [N, z_size]; paired: real[i] is the target of z[i]."""

    real: Tensor
    z: Tensor
    paired: bool


@dataclass
class Adversary:
    """The discriminator with its optimizer."""

    network: Discriminator
    optimizer: torch.optim.Adam


class Steps:
    """Generator, average, discriminator and optimizers. `enter` readies them for a phase, `step` trains once."""

    generator: Generator
    smooth: Generator
    average: WeightAverage
    optimizer: torch.optim.Adam  # of the generator

    def __init__(self, config: GanConfig, fabric: Fabric, latents: int) -> None:
        self.config, self.fabric, self.device = config, fabric, fabric.device
        self.adversary: Adversary | None = None
        self.phase: Phase = config.phases[0]
        self.before = 0  # resolution of the phase before
        latents = latents if config.linear_latents < 0 else config.linear_latents
        self.readout: Tensor | None = None
        if latents > 0:
            self.readout = readout_matrix(latents, config.w_size, config.seed).to(self.device)
        self._features: FeatureNet | None = None

    # Networks

    def enter(self, index: int, restored: dict[str, Any] | None = None) -> None:
        """Ready the networks for phase `index`: grown from the phase before, as initialised, or as `state` left them.

        Raises InvalidInputError when the restored state is that of other networks.
        """
        phases = self.config.phases
        self.phase, self.before = phases[index], phases[index - 1].resolution if index else 0
        torch.manual_seed(self.config.seed * 1009 + index)
        if restored is not None:
            self._make_generator(None)
            if resolution := restored["discriminator_resolution"]:
                self._make_discriminator(resolution)
            load_states(self.parts, restored)
        else:
            if index == 0:
                self._make_generator(self._initial())
            elif self.phase.resolution != self.before:
                self._make_generator(self.generator, self.smooth)
            if self.phase.adversarial:
                self._make_discriminator(self.phase.resolution)
        self._compile()

    def _initial(self) -> Generator | None:
        """The generator to start from, if any."""
        path, resolution = self.config.start_from, self.phase.resolution
        if path is None:
            return None
        start = checkpoints.load_as(Generator, "stylegan", path)
        return cut(start, resolution) if start.config.resolution > resolution else start

    def _make_generator(self, old: Generator | None, old_smooth: Generator | None = None) -> None:
        config, shape = self.config, self.config.generator(self.phase.resolution)
        generator, smooth = (in_channels_last(Generator(shape), self.device) for _ in range(2))
        with torch.no_grad():
            for part in generator.synthesis.modules():
                if isinstance(part, AdaIN):
                    part.affine.weight.mul_(config.style_init)
        if old is not None:
            grow_generator(old, generator)
        elif self.readout is not None:
            make_linear(generator.mapping, self.readout)
        self.average = WeightAverage(generator, smooth, config.ema_kimg * 1000, config.ema_ramp)
        if old_smooth is not None:
            grow_generator(old_smooth, smooth)
        self.generator, self.smooth = generator.train(), smooth.eval()
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=self.phase.learning_rate, betas=config.betas)

    def _make_discriminator(self, resolution: int) -> None:
        old = None if self.adversary is None else self.adversary.network
        if old is not None and old.config.resolution == resolution:
            return
        network = in_channels_last(Discriminator(self.config.discriminator(resolution)), self.device).train()
        if old is not None:
            grow_discriminator(old, network)
        rate, betas = self.phase.discriminator_rate, self.config.discriminator_betas
        self.adversary = Adversary(network, torch.optim.Adam(network.parameters(), lr=rate, betas=betas))

    def _compile(self) -> None:
        torch.compiler.reset()  # one phase's graphs are of no use to the next
        wanted, noise, phase = self.config.compile, self.config.random_noise, self.phase
        synthesis = self.generator.synthesis
        self._synthesis = compiled(lambda wp: synthesis(wp, lod=0.0, random_noise=noise), wanted, self.device)
        self._synthesis_fading = compiled(
            lambda wp, share: synthesis(wp, lod=0.5, random_noise=noise, share=share), wanted, self.device
        )
        if phase.perceptual and self._features is None:
            # It is not compiled, nor is the discriminator: their backward is then 1.3 to 1.7 times slower on a CPU.
            self._features = in_channels_last(FeatureNet(FEATURE_STAGES), self.device)

    # Steps

    def lod(self, progress: float) -> float:
        """Level of detail at `progress` of the phase: 0 but for the fading in of a fresh block."""
        return fading_level(self.before, self.phase.resolution, progress / self.phase.fade if self.phase.fade else 1.0)

    def step(self, number: int, phase_step: int, progress: float, batch: Batch, since_growth: int) -> dict[str, Tensor]:
        """Train once; `progress` is how far the phase is, 0 .. 1. Returns the parts of the losses, detached.

        Raises TrainingStoppedError before any weight is touched by what is not finite.
        """
        config, phase, size = self.config, self.phase, len(batch.z)
        torch.manual_seed((config.seed * 1_000_003 + number) % 2**63)
        self._set_rates(phase_step, progress)
        lod = self.lod(progress)
        wp = self.generator.training_latents(batch.z, mixing=config.mixing, lod=lod)
        with self.fabric.autocast():
            fake = self._draw(wp, lod)
        parts: dict[str, Tensor] = {}
        adversary = self.adversary if phase.adversarial else None
        if adversary is not None:
            parts.update(self._train_discriminator(adversary, number, batch.real, fake.detach().float(), lod))
        parts.update(self._train_generator(adversary, number, batch, fake, wp, lod))
        self.average.update(size, since_growth + size)
        return parts

    def _draw(self, wp: Tensor, lod: float) -> Tensor:
        image: Tensor
        if lod == 0:
            image = self._synthesis(wp)
        elif lod <= 1:
            image = self._synthesis_fading(wp, torch.tensor(1.0 - lod, device=self.device))
        else:
            image = self.generator.synthesis(wp, lod=lod, random_noise=self.config.random_noise)
        return image

    def _set_rates(self, phase_step: int, progress: float) -> None:
        phase = self.phase
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        factor = min(1.0, (phase_step + 1) / WARM_STEPS) * (phase.final_rate + (1 - phase.final_rate) * cosine)
        optimizers = [(self.optimizer, phase.learning_rate)]
        if self.adversary is not None:
            optimizers.append((self.adversary.optimizer, phase.discriminator_rate))
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def _score(self, network: Discriminator, images: Tensor, lod: float) -> Tensor:
        images = augment(images.float(), self.config.augment, torch.default_generator)
        with self.fabric.autocast():
            scores: Tensor = network(images, lod=lod)
        return scores

    def _train_discriminator(
        self, adversary: Adversary, number: int, real: Tensor, fake: Tensor, lod: float
    ) -> dict[str, Tensor]:
        config, network = self.config, adversary.network
        adversary.optimizer.zero_grad()
        scores = self._score(network, real, lod), self._score(network, fake, lod)
        loss = discriminator_loss(*scores)
        self.fabric.backward(loss)
        parts = {
            "discriminator": loss.detach(),
            "real_score": scores[0].detach().float().mean(),
            "fake_score": scores[1].detach().float().mean(),
        }
        if config.r1_gamma and number % config.r1_every == 0:
            # The plain module in float32: compiled graphs have no second derivative.
            images = real.detach().float().requires_grad_(True)
            seen = augment(images, config.augment, torch.default_generator)
            penalty = gradient_penalty(network(seen, lod=lod), images)
            self.fabric.backward(penalty * lazy_weight(config.r1_gamma, config.r1_every))
            parts["penalty"] = penalty.detach()
        self._apply(network, adversary.optimizer, parts, number)
        return parts

    def _train_generator(
        self, adversary: Adversary | None, number: int, batch: Batch, fake: Tensor, wp: Tensor, lod: float
    ) -> dict[str, Tensor]:
        phase, parts, total = self.phase, {}, torch.zeros((), device=self.device)
        if phase.regresses and not batch.paired:
            raise InvalidInputError("pixel and perceptual losses need a source with a target per latent")
        if phase.pixel:
            parts["pixel"] = pyramid_l1(fake, batch.real)
            total = total + phase.pixel * parts["pixel"]
        if phase.perceptual and self._features is not None:
            with self.fabric.autocast():
                part = max(1, round(len(fake) * self.config.perceptual_part))
                with torch.no_grad():
                    wanted = [x.detach() for x in self._features(batch.real[:part])]
                shown = self._features(fake[:part])
            parts["perceptual"] = feature_distance(shown, wanted)
            total = total + phase.perceptual * parts["perceptual"]
        if adversary is not None:
            adversary.network.requires_grad_(False)
            parts["generator"] = generator_loss(self._score(adversary.network, fake, lod))
            total = total + phase.adversarial * parts["generator"]
        if self.readout is not None and self.config.readout:
            parts["readout"] = readout_loss(self.generator.mapping, batch.z, wp[:, 0], self.readout)
            total = total + self.config.readout * parts["readout"]
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        if adversary is not None:
            adversary.network.requires_grad_(True)
        self._apply(self.generator, self.optimizer, parts, number)
        return {name: value.detach() for name, value in parts.items()}

    def _apply(self, module: nn.Module, optimizer: torch.optim.Adam, parts: dict[str, Tensor], number: int) -> None:
        """Step, unless a loss or the gradients' norm is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.clip_norm or math.inf)
        require_finite(f"step {number}", parts, {type(module).__name__.lower(): norm})
        optimizer.step()

    # State

    @property
    def parts(self) -> Parts:
        """What is saved."""
        parts: dict[str, Any] = {
            "generator": self.generator, "smooth": self.smooth, "generator_optimizer": self.optimizer,
        }  # fmt: skip
        if self.adversary is not None:
            parts |= {
                "discriminator": self.adversary.network,
                "discriminator_optimizer": self.adversary.optimizer,
            }
        return parts

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of tensors and plain values only."""
        resolution = 0 if self.adversary is None else self.adversary.network.config.resolution
        return {**states_of(self.parts), "discriminator_resolution": resolution}
