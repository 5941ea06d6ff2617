"""One training step: networks, optimisers and losses of the current phase (the loop around it is in `loop.py`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training import checkpoints
from ohlora.training.gan.augment import augment
from ohlora.training.gan.config import GanConfig, Phase
from ohlora.training.gan.fast import compiled, draw_fading, in_channels_last
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
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_layers import AdaIN

WARM_STEPS = 50  # of every phase: fresh Adam statistics make the first steps too long
FEATURE_STAGES = 4

M = TypeVar("M", Generator, Discriminator)


class NotFiniteError(OhloraError):
    """A loss or gradient became NaN or infinite; the weights before that step are still good."""


@dataclass
class Batch:
    """real: [N,3,R,R] in [-1,1]; z [N, z_size]; paired: real[i] is the target of z[i]."""

    real: Tensor
    z: Tensor
    paired: bool


class Steps:
    """Generator, average, discriminator and optimisers. `enter` readies them for a phase, `step` trains once."""

    generator: Generator
    smooth: Generator
    average: WeightAverage

    def __init__(self, config: GanConfig, fabric: Fabric, latents: int) -> None:
        self.config, self.fabric, self.device = config, fabric, fabric.device
        self.discriminator: Discriminator | None = None
        self.generator_optimizer: torch.optim.Adam | None = None
        self.discriminator_optimizer: torch.optim.Adam | None = None
        self.phase: Phase = config.phases[0]
        self.before = 0  # resolution of the phase before
        latents = latents if config.linear_latents < 0 else config.linear_latents
        self.readout: Tensor | None = None
        if latents > 0:
            self.readout = readout_matrix(latents, config.w_size, config.seed).to(self.device)
        self._features: Any = None

    # Networks

    def enter(self, index: int, restored: dict[str, Any] | None = None) -> None:
        """Ready the networks for phase `index`: grown from the phase before, as initialised, or as `state` left them.

        Raises InvalidInputError when the restored state is that of other networks.
        """
        phases = self.config.phases
        self.phase, self.before = phases[index], phases[index - 1].resolution if index else 0
        torch.manual_seed(self.config.seed * 1009 + index)
        if restored is not None:
            self._restore(restored)
        else:
            if index == 0:
                self._make_generator(self._initial())
            elif self.phase.resolution != self.before:
                self._make_generator(self.generator, self.smooth)
            if self.phase.adversarial:
                self._make_discriminator()
        self._compile()

    def _initial(self) -> Generator | None:
        """The generator to start from, if any."""
        path, resolution = self.config.start_from, self.phase.resolution
        if path is None:
            return None
        start = checkpoints.load("stylegan", path)
        assert isinstance(start, Generator)
        return cut(start, resolution) if start.config.resolution > resolution else start

    def _placed(self, module: M) -> M:
        return in_channels_last(module, self.device)

    def _make_generator(self, old: Generator | None, old_smooth: Generator | None = None) -> None:
        config, shape = self.config, self.config.generator(self.phase.resolution)
        generator, smooth = self._placed(Generator(shape)), self._placed(Generator(shape))
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
        self.generator_optimizer = torch.optim.Adam(
            generator.parameters(), lr=self.phase.learning_rate, betas=config.betas
        )

    def _make_discriminator(self, resolution: int | None = None) -> None:
        resolution, old = resolution or self.phase.resolution, self.discriminator
        if old is not None and old.config.resolution == resolution:
            return
        self.discriminator = self._placed(Discriminator(self.config.discriminator(resolution))).train()
        if old is not None:
            grow_discriminator(old, self.discriminator)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=self.phase.discriminator_rate, betas=self.config.discriminator_betas
        )

    def _compile(self) -> None:
        torch.compiler.reset()  # one phase's graphs are of no use to the next
        wanted, noise, phase = self.config.compile, self.config.random_noise, self.phase
        synthesis = self.generator.synthesis
        self._synthesis = compiled(lambda wp: synthesis(wp, lod=0.0, random_noise=noise), wanted, self.device)
        self._synthesis_fading = compiled(lambda wp, x: draw_fading(synthesis, wp, x, noise), wanted, self.device)
        if phase.perceptual and self._features is None:
            # It is not compiled, nor is the discriminator: their backward is then 1.3 to 1.7 times slower on a CPU.
            self._features = in_channels_last(FeatureNet(FEATURE_STAGES), self.device)

    # Steps

    def lod(self, progress: float) -> float:
        """Level of detail at `progress` of the phase: 0 but for the fading in of a fresh block."""
        return fading_level(self.before, self.phase.resolution, progress / self.phase.fade if self.phase.fade else 1.0)

    def step(self, number: int, phase_step: int, progress: float, batch: Batch, since_growth: int) -> dict[str, Tensor]:
        """Train once; `progress` is how far the phase is, 0 .. 1. Returns the parts of the losses, detached.

        Raises NotFiniteError before any weight is touched by what is not finite.
        """
        config, phase, size = self.config, self.phase, len(batch.z)
        torch.manual_seed((config.seed * 1_000_003 + number) % 2**63)
        self._set_rates(phase_step, progress)
        lod = self.lod(progress)
        wp = self.generator.training_latents(batch.z, mixing=config.mixing, lod=lod)
        with self.fabric.autocast():
            fake = self._draw(wp, lod)
        parts: dict[str, Tensor] = {}
        if phase.adversarial:
            parts.update(self._train_discriminator(number, batch.real, fake.detach().float(), lod))
        parts.update(self._train_generator(batch, fake, wp, lod))
        self.average.update(size, since_growth + size)
        return parts

    def _draw(self, wp: Tensor, lod: float) -> Tensor:
        if lod == 0:
            return self._synthesis(wp)
        if lod <= 1:
            return self._synthesis_fading(wp, torch.tensor(1.0 - lod, device=self.device))
        return self.generator.synthesis(wp, lod=lod, random_noise=self.config.random_noise)

    def _set_rates(self, phase_step: int, progress: float) -> None:
        phase = self.phase
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        factor = min(1.0, (phase_step + 1) / WARM_STEPS) * (phase.final_rate + (1 - phase.final_rate) * cosine)
        for optimizer, rate in (
            (self.generator_optimizer, phase.learning_rate),
            (self.discriminator_optimizer, phase.discriminator_rate),
        ):
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor

    def _score(self, images: Tensor, lod: float) -> Tensor:
        assert self.discriminator is not None
        images = augment(images.float(), self.config.augment, torch.default_generator)
        with self.fabric.autocast():
            return self.discriminator(images, lod=lod)

    def _train_discriminator(self, number: int, real: Tensor, fake: Tensor, lod: float) -> dict[str, Tensor]:
        assert self.discriminator is not None
        assert self.discriminator_optimizer is not None
        config = self.config
        self.discriminator_optimizer.zero_grad()
        scores = self._score(real, lod), self._score(fake, lod)
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
            penalty = gradient_penalty(self.discriminator(seen, lod=lod), images)
            self.fabric.backward(penalty * lazy_weight(config.r1_gamma, config.r1_every))
            parts["penalty"] = penalty.detach()
        self._apply(self.discriminator, self.discriminator_optimizer, parts)
        return parts

    def _train_generator(self, batch: Batch, fake: Tensor, wp: Tensor, lod: float) -> dict[str, Tensor]:
        assert self.generator_optimizer is not None
        phase, parts, total = self.phase, {}, torch.zeros((), device=self.device)
        if phase.regresses and not batch.paired:
            raise InvalidInputError("pixel and perceptual losses need a source with a target per latent")
        if phase.pixel:
            parts["pixel"] = pyramid_l1(fake, batch.real)
            total = total + phase.pixel * parts["pixel"]
        if phase.perceptual:
            with self.fabric.autocast():
                part = max(1, round(len(fake) * self.config.perceptual_part))
                with torch.no_grad():
                    wanted = [x.detach() for x in self._features(batch.real[:part])]
                shown = self._features(fake[:part])
            parts["perceptual"] = feature_distance(shown, wanted)
            total = total + phase.perceptual * parts["perceptual"]
        if phase.adversarial and self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            parts["generator"] = generator_loss(self._score(fake, lod))
            total = total + phase.adversarial * parts["generator"]
        if self.readout is not None and self.config.readout:
            parts["readout"] = readout_loss(self.generator.mapping, batch.z, wp[:, 0], self.readout)
            total = total + self.config.readout * parts["readout"]
        self.generator_optimizer.zero_grad()
        self.fabric.backward(total)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
        self._apply(self.generator, self.generator_optimizer, parts)
        return {name: value.detach() for name, value in parts.items()}

    def _apply(self, module: nn.Module, optimizer: torch.optim.Adam, parts: dict[str, Tensor]) -> None:
        """Step, unless a loss or the gradients' norm is not finite."""
        for name, value in parts.items():
            if not torch.isfinite(value):
                raise NotFiniteError(f"the loss '{name}' is {float(value.detach())}")
        limit = self.config.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
        if not torch.isfinite(norm):
            raise NotFiniteError(f"the gradients of the {type(module).__name__.lower()} have norm {float(norm)}")
        optimizer.step()

    # State

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of tensors and plain values only."""
        assert self.generator_optimizer is not None
        state: dict[str, Any] = {
            "generator": self.generator.state_dict(),
            "smooth": self.smooth.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_resolution": 0,
        }
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            state["discriminator_resolution"] = self.discriminator.config.resolution
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self._make_generator(None)
            assert self.generator_optimizer is not None
            self.generator.load_state_dict(state["generator"])
            self.smooth.load_state_dict(state["smooth"])
            self.generator_optimizer.load_state_dict(state["generator_optimizer"])
            if state["discriminator_resolution"]:
                self.discriminator = None
                self._make_discriminator(state["discriminator_resolution"])
                assert self.discriminator is not None
                assert self.discriminator_optimizer is not None
                self.discriminator.load_state_dict(state["discriminator"])
                self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InvalidInputError(f"the checkpoint is of other networks: {str(error).splitlines()[0]}") from error
