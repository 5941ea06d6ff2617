"""How often the discriminator and the generator are updated on one batch (docs/spec/stylegan.md, section 8).

A rule only looks at loss values. A loss is that of the evaluation before the step it led to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LIMIT = 4  # updates of one network on one batch


@dataclass(frozen=True)
class RepeatRule:
    """The generator is updated until its loss is below generator_factor times the discriminator's.

    discriminator_factor: the discriminator is updated until its loss is below this times the last generator loss of
    the batch before; None = always once.
    """

    discriminator_factor: float | None = None
    generator_factor: float = 2.0
    limit: int = LIMIT


RULES: dict[str, RepeatRule] = {
    "v1": RepeatRule(),  # and v4, v8
    "v5": RepeatRule(discriminator_factor=1.5),
    "v9": RepeatRule(discriminator_factor=2.5),
}


@dataclass(frozen=True)
class Repeats:
    """The losses of the updates made on one batch, in order."""

    discriminator: tuple[float, ...]
    generator: tuple[float, ...]


def discriminator_again(rule: RepeatRule, made: int, loss: float, generator_before: float | None) -> bool:
    """Whether to update the discriminator once more. generator_before: None for the very first batch."""
    if rule.discriminator_factor is None or generator_before is None or made >= rule.limit:
        return False
    return not loss < rule.discriminator_factor * generator_before


def generator_again(rule: RepeatRule, made: int, loss: float, discriminator: float) -> bool:
    """Whether to update the generator once more. discriminator: last loss of it on this batch."""
    return made < rule.limit and not loss < rule.generator_factor * discriminator


def repeat(
    rule: RepeatRule,
    update_discriminator: Callable[[int], float],
    update_generator: Callable[[int], float],
    generator_before: float | None,
) -> Repeats:
    """Make the updates of one batch: the functions get 0, 1, ... and return the loss before their step."""
    discriminator = [update_discriminator(0)]
    while discriminator_again(rule, len(discriminator), discriminator[-1], generator_before):
        discriminator.append(update_discriminator(len(discriminator)))
    generator = [update_generator(0)]
    while generator_again(rule, len(generator), generator[-1], discriminator[-1]):
        generator.append(update_generator(len(generator)))
    return Repeats(tuple(discriminator), tuple(generator))
