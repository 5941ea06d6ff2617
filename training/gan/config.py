"""Recipes of the generator's training. A recipe is data: one `GanConfig` with its phases, one entry of PRESETS."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from ohlora.errors import InvalidInputError
from ohlora.training.loop.precision import precision_name
from ohlora.training.nets.stylegan import GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import DiscriminatorConfig

SOURCES = ("portraits", "folder")
AUGMENTATIONS = ("color", "translation", "cutout", "flip")


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

    resolution: int
    kimg: float
    batch_size: int = 32
    pixel: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    fade: float = 0.0
    learning_rate: float = 2e-3
    discriminator_rate: float = 2e-3
    final_rate: float = 1.0
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise InvalidInputError(f"Phase.resolution must be a power of two from 8 on, got {self.resolution}")
        if self.batch_size < 1 or not self.kimg > 0 or self.learning_rate <= 0 or not 0 <= self.fade <= 1:
            raise InvalidInputError(
                f"phase {self}: batch_size >= 1, kimg > 0, learning_rate > 0 and 0 <= fade <= 1 needed"
            )
        if min(self.pixel, self.perceptual, self.adversarial) < 0 or not self.weights:
            raise InvalidInputError(f"phase {self}: loss weights must be 0 or more, and one of them more than 0")

    @property
    def weights(self) -> float:
        return self.pixel + self.perceptual + self.adversarial

    @property
    def regresses(self) -> bool:
        return self.pixel > 0 or self.perceptual > 0


@dataclass(frozen=True)
class GanConfig:
    """A recipe.

    source: "portraits" (a target per latent) or "folder" (pictures only); images: how many portraits are rendered,
        from seed `first_seed` on, which keeps the seeds below for judging.
    linear_latents: > 0 builds the mapping so that w is exactly linear in the first so many latents
        (`mapping_fit.py`), -1 takes the source's number; readout: weight of the loss that keeps it so.
    teach_steps: steps of fitting the mapping to what the source knows of its pictures, before anything else; 0 = none.
    style_init: factor on the initial weights that turn w into styles. Small, every latent starts from nearly the same
        picture: a regression then learns 3 times as fast, and without inventing colours for unseen latents.
    perceptual_part: part of each batch that the perceptual loss looks at; it costs as much as the rest of a step.
    discriminator_base: the discriminator's channel_base, 0 = that of the generator.
    ema_kimg: half-life of the weight average, but at most `ema_ramp` of the pictures the phase has seen.
    r1_gamma, r1_every: gradient penalty on real pictures and the number of steps from one to the next.
    """

    phases: tuple[Phase, ...]
    source: str = "portraits"
    images: int = 20_000
    first_seed: int = 1_000_000
    z_size: int = 512
    w_size: int = 512
    channel_base: int = 4096
    channel_max: int = 192
    mapping_layers: int = 8
    linear_latents: int = 0
    readout: float = 0.0
    teach_steps: int = 0
    style_init: float = 1.0
    perceptual_part: float = 1.0
    discriminator_base: int = 0
    group: int = 8
    betas: tuple[float, float] = (0.0, 0.99)
    discriminator_betas: tuple[float, float] = (0.0, 0.99)
    r1_gamma: float = 10.0
    r1_every: int = 16
    ema_kimg: float = 10.0
    ema_ramp: float = 0.05
    mixing: float = 0.0
    random_noise: bool = False
    augment: tuple[str, ...] = ()
    clip_norm: float = 0.0  # 0 = off
    precision: str = "bf16"
    compile: bool = True
    start_from: str | None = None  # a generator's .safetensors to go on from
    seed: int = 7

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidInputError("a recipe needs at least one phase")
        if any(a.resolution > b.resolution for a, b in zip(self.phases, self.phases[1:], strict=False)):
            raise InvalidInputError(
                "the phases' resolutions must not fall: " + ", ".join(str(p.resolution) for p in self.phases)
            )
        if self.source not in SOURCES:
            raise InvalidInputError(f"unknown source '{self.source}': choose {' or '.join(SOURCES)}")
        object.__setattr__(self, "precision", precision_name(self.precision))
        if unknown := sorted(set(self.augment) - set(AUGMENTATIONS)):
            raise InvalidInputError(f"unknown augmentation '{unknown[0]}': choose from {', '.join(AUGMENTATIONS)}")
        if self.r1_every < 1 or self.images < 2 or self.seed < 0 or self.group < 1:
            raise InvalidInputError("a recipe needs r1_every >= 1, images >= 2, seed >= 0 and group >= 1")
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
        precision="fp32",
        group=4,
    ),
}


def preset(name: str, **changes: Any) -> GanConfig:
    """A named recipe with some fields changed. Raises InvalidInputError naming the known recipes."""
    if name not in PRESETS:
        raise InvalidInputError(f"unknown recipe '{name}': choose {' or '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)


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


def parse_phases(text: str) -> tuple[Phase, ...]:
    """ "64:100,128:200:pixel=1:adversarial=0.1" -> phases. Raises InvalidInputError for what is not understood.

    RESOLUTION:KIMG, then NAME=NUMBER for any other field of `Phase`. Without a loss weight, adversarial is 1.
    """
    phases = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+):([\d.]+)((?::\w+=[\d.e+-]+)*)\s*", part)
        if match is None:
            raise InvalidInputError(
                f"phase '{part}' is not understood: write RESOLUTION:KIMG or RESOLUTION:KIMG:NAME=NUMBER"
            )
        fields: dict[str, Any] = {}
        for entry in filter(None, match[3].split(":")):
            name, value = entry.split("=")
            if name not in Phase.__dataclass_fields__:
                raise InvalidInputError(
                    f"phase '{part}': unknown '{name}'; known: {', '.join(Phase.__dataclass_fields__)}"
                )
            try:
                fields[name] = int(value) if name == "batch_size" else float(value)
            except ValueError as error:
                raise InvalidInputError(f"phase '{part}': '{value}' is no number for {name}") from error
        if not any(fields.get(name) for name in ("pixel", "perceptual", "adversarial")):
            fields["adversarial"] = 1.0
        try:
            kimg = float(match[2])
        except ValueError as error:
            raise InvalidInputError(f"phase '{part}': '{match[2]}' is no number of thousand pictures") from error
        phases.append(Phase(int(match[1]), kimg, **fields))
    return tuple(phases)
