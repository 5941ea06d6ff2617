"""Recipes of the generator's training. A recipe is data: one `GanConfig` with its phases, one entry of PRESETS."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ohlora.base.recipe import changed, check, meaning, path_text, pick, read_changes, setting
from ohlora.errors import InvalidInputError
from ohlora.training.loop.precision import precision_name

if TYPE_CHECKING:
    from ohlora.training.nets.stylegan import GeneratorConfig
    from ohlora.training.nets.stylegan_discriminator import DiscriminatorConfig

Augmentation = Literal["color", "translation", "cutout", "flip"]


@dataclass(frozen=True)
class Phase:
    """One stretch of training at one resolution.

    kimg: length in thousand training pictures; with a time limit, `share` is its part of the limit instead
        (relative to the other phases, 0 = by kimg).
    pixel, perceptual, adversarial: weights of the generator's losses; 0 leaves the part out. The first two need a
        source with a target per latent.
    fade: part of the phase over which the finest block fades in, when the phase is finer than the one before.
    learning_rate, discriminator_rate: Adam; final_rate: where the cosine ends, as a part of the start.
    """

    resolution: int = field(metadata=meaning())
    kimg: float = field(metadata=meaning(above=0))
    batch_size: int = setting(32, low=1)
    pixel: float = setting(0.0, low=0)
    perceptual: float = setting(0.0, low=0)
    adversarial: float = setting(0.0, low=0)
    fade: float = setting(0.0, low=0, high=1)
    learning_rate: float = setting(2e-3, above=0)
    discriminator_rate: float = setting(2e-3)
    final_rate: float = setting(1.0)
    share: float = setting(0.0)

    def __post_init__(self) -> None:
        check(self, "phase: ")
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise InvalidInputError(f"Phase.resolution must be a power of two from 8 on, got {self.resolution}")
        if not self.weights:
            raise InvalidInputError(f"phase {self}: one of the loss weights must be more than 0")

    @property
    def weights(self) -> float:
        return self.pixel + self.perceptual + self.adversarial

    @property
    def regresses(self) -> bool:
        return self.pixel > 0 or self.perceptual > 0


def parse_phases(text: str) -> tuple[Phase, ...]:
    """ "64:100,128:200:pixel=1:adversarial=0.1" -> phases. Raises InvalidInputError for what is not understood.

    RESOLUTION:KIMG, then NAME=NUMBER for any other field of `Phase`. Without a loss weight, adversarial is 1.
    """
    phases = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+):([^:=]+)((?::\w+=[^:]+)*)\s*", part)
        if match is None:
            raise InvalidInputError(
                f"phase '{part}' is not understood: write RESOLUTION:KIMG or RESOLUTION:KIMG:NAME=NUMBER"
            )
        entries = [f"resolution={match[1]}", f"kimg={match[2]}", *filter(None, match[3].split(":"))]
        values = read_changes(Phase, entries, f"phase '{part}': ")
        if not any(values.get(name) for name in ("pixel", "perceptual", "adversarial")):
            values["adversarial"] = 1.0
        phases.append(Phase(**values))
    return tuple(phases)


@dataclass(frozen=True)
class GanConfig:
    """A recipe. source: "portraits" (a target per latent) or "folder" (pictures only)."""

    phases: tuple[Phase, ...] = field(
        metadata=meaning("RESOLUTION:KIMG[:NAME=NUMBER...],... instead of the recipe's.", read=parse_phases)
    )
    source: Literal["portraits", "folder"] = setting("portraits")
    images: int = setting(20_000, "Portraits to render and train on.", low=2)
    first_seed: int = setting(1_000_000, "Of the portraits; the seeds below are kept for judging.", low=0)
    z_size: int = setting(512, "Numbers of a latent.", low=1)
    w_size: int = setting(512, "Numbers of a mapped latent.", low=1)
    channel_base: int = setting(4096, "Width: channels at r pixels = this / r ...", low=1)
    channel_max: int = setting(192, "... and at most this.", low=1)
    mapping_layers: int = setting(8, "Layers of the mapping network.", low=1)
    linear_latents: int = setting(
        0,
        "Build the mapping so that w is exactly linear in the first so many latents; -1: all the source knows.",
        low=-1,
    )
    readout: float = setting(0.0, "Weight of the loss that keeps it linear.", low=0)
    teach_steps: int = setting(
        0, "Steps of fitting the mapping to what the source knows of its pictures, before anything else.", low=0
    )
    # Small, every latent starts from nearly the same picture: a regression then learns 3 times as fast, and without
    # inventing colours for unseen latents.
    style_init: float = setting(1.0, "Factor on the initial weights that turn w into styles.", low=0)
    perceptual_part: float = setting(
        1.0, "Part of each batch that the perceptual loss looks at; it costs as much as the rest.", low=0, high=1
    )
    discriminator_base: int = setting(0, "The discriminator's width, see --channel-base; 0: the generator's.", low=0)
    group: int = setting(8, "Pictures of the minibatch standard deviation.", low=1)
    betas: tuple[float, float] = setting((0.0, 0.99), "Of the generator's Adam.", low=0, below=1)
    discriminator_betas: tuple[float, float] = setting((0.0, 0.99), "Of the discriminator's Adam.", low=0, below=1)
    r1_gamma: float = setting(10.0, "Gradient penalty on real pictures.", low=0)
    r1_every: int = setting(16, "Steps from one penalty to the next.", low=1)
    ema_kimg: float = setting(10.0, "Half-life of the weight average, in thousand pictures ...", low=0)
    ema_ramp: float = setting(0.05, "... but at most this part of those that the phase has seen.", low=0)
    mixing: float = setting(0.0, "Probability of style mixing.", low=0, high=1)
    random_noise: bool = setting(False, "Fresh noise in every picture.")
    augment: tuple[Augmentation, ...] = setting((), "color, translation, cutout, flip: comma-separated.")
    clip_norm: float = setting(0.0, "Of the gradient; 0 = off.", low=0)
    precision: str = setting("fp32", "fp32 or bf16.", read=precision_name)
    compile: bool = setting(True, "Fused loops; on a CPU this needs g++.")
    start_from: str | None = setting(None, "Go on from a generator's .safetensors.", read=path_text)
    seed: int = setting(7, "Of everything drawn at random.", low=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision))
        check(self)
        if not self.phases:
            raise InvalidInputError("a recipe needs at least one phase")
        if any(a.resolution > b.resolution for a, b in zip(self.phases, self.phases[1:], strict=False)):
            raise InvalidInputError(
                "the phases' resolutions must not fall: " + ", ".join(str(p.resolution) for p in self.phases)
            )
        for phase in self.phases:
            if phase.adversarial and phase.batch_size % min(self.group, phase.batch_size):
                raise InvalidInputError(
                    f"batches of {phase.batch_size} pictures cannot be cut into groups of {self.group} for the "
                    f"minibatch standard deviation: use a multiple of {self.group}"
                )
        if self.source == "folder" and any(p.regresses for p in self.phases):
            raise InvalidInputError(
                "pixel and perceptual losses need a target per latent: a folder of pictures has none"
            )

    @property
    def resolution(self) -> int:
        return self.phases[-1].resolution

    def generator(self, resolution: int) -> GeneratorConfig:
        from ohlora.training.nets.stylegan import GeneratorConfig  # PyTorch, which options do without

        return GeneratorConfig(
            resolution=resolution,
            z_size=self.z_size,
            w_size=self.w_size,
            mapping_layers=self.mapping_layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            mixing=self.mixing,
        )

    def discriminator(self, resolution: int) -> DiscriminatorConfig:
        from ohlora.training.nets.stylegan_discriminator import DiscriminatorConfig

        return DiscriminatorConfig(
            resolution=resolution,
            group=self.group,
            channel_base=self.discriminator_base or self.channel_base,
            channel_max=self.channel_max,
        )

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one that began it: all but the means of computing."""
        fields = asdict(self)
        for free in ("precision", "compile"):
            del fields[free]
        return fields


# Regression: a pixel target per latent teaches place and colour many times faster than a discriminator can. Targets
# have no noise, so small batches and many steps learn more from a CPU's minutes than large batches. Most of the time
# belongs to the perceptual phase: eyes, lips and strands appear there, and most of them while its rate falls.
_PORTRAITS = (
    Phase(32, 100, 16, pixel=1.0, learning_rate=3e-3, share=0.06),
    Phase(64, 150, 8, pixel=1.0, fade=0.05, learning_rate=3e-3, share=0.18),
    Phase(128, 40, 4, pixel=1.0, fade=0.05, learning_rate=2.5e-3, share=0.10),
    Phase(128, 160, 8, pixel=1.0, perceptual=0.6, learning_rate=2e-3, final_rate=0.02, share=0.66),
    Phase(256, 100, 4, pixel=1.0, perceptual=0.6, fade=0.05, learning_rate=1.5e-3, final_rate=0.03, share=0.60),
)

_STYLEGAN = tuple(
    Phase(
        size, kimg, batch, adversarial=1.0, fade=0.0 if size == 8 else 0.5, learning_rate=rate, discriminator_rate=rate
    )
    for size, kimg, batch, rate in (
        (8, 600, 64, 1e-3),
        (16, 1200, 64, 1e-3),
        (32, 1200, 32, 1e-3),
        (64, 1200, 32, 1e-3),
        (128, 1200, 16, 1.5e-3),
        (256, 6000, 16, 2e-3),
    )
)

PRESETS: dict[str, GanConfig] = {
    "portraits": GanConfig(
        _PORTRAITS,
        channel_base=3072,
        linear_latents=-1,
        readout=1.0,
        style_init=0.2,
        perceptual_part=0.5,
        discriminator_base=2048,
        betas=(0.9, 0.99),
    ),
    "stylegan": GanConfig(
        _STYLEGAN,
        source="folder",
        channel_base=16384,
        channel_max=512,
        mixing=0.9,
        random_noise=True,
        group=4,
    ),
}


def preset(name: str, **changes: Any) -> GanConfig:
    """A named recipe with some fields changed. Raises InvalidInputError naming the known recipes."""
    return changed(pick(PRESETS, name, "recipe"), changes)


def at_resolution(config: GanConfig, resolution: int) -> GanConfig:
    """The recipe cut to the phases up to `resolution`. Raises InvalidInputError when no phase ends there."""
    phases = tuple(phase for phase in config.phases if phase.resolution <= resolution)
    if not phases or phases[-1].resolution != resolution:
        known = ", ".join(str(r) for r in sorted({phase.resolution for phase in config.phases}))
        raise InvalidInputError(
            f"--resolution {resolution}: the recipe has phases at {known} pixels; or write --phases"
        )
    return replace(config, phases=phases)


def scaled(config: GanConfig, kimg: float | None = None, batch_size: int | None = None) -> GanConfig:
    """The recipe with `kimg` thousand pictures in all, divided as before, and one batch size for all phases."""
    phases = config.phases
    if kimg is not None:
        factor = kimg / sum(phase.kimg for phase in phases)
        phases = tuple(replace(phase, kimg=phase.kimg * factor) for phase in phases)
    if batch_size is not None:
        phases = tuple(replace(phase, batch_size=batch_size) for phase in phases)
    return replace(config, phases=phases)


def time_shares(config: GanConfig) -> tuple[float, ...]:
    """The part of a time limit that each phase gets; they add up to 1."""
    lengths = [phase.share or 0.0 for phase in config.phases]
    if not all(lengths):
        lengths = [phase.kimg for phase in config.phases]
    return tuple(length / sum(lengths) for length in lengths)
