"""How often the discriminator and the generator are updated on one batch (docs/spec/stylegan.md, section 8).

A rule only looks at loss values. A loss is that of the evaluation before the step it led to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LIMIT = 4  # updates of one network on one batch

Losses = tuple[float, ...]


@dataclass(frozen=True)
class RepeatRule:
    """The generator is updated until its loss is below generator_factor times the discriminator's.

    discriminator_factor: the discriminator is updated until its loss is below this times the last generator loss of
    the batch before; None = always once.
    """

    discriminator_factor: float | None = None
    generator_factor: float = 2.0


RULES: dict[str, RepeatRule] = {
    "v1": RepeatRule(),  # and v4, v8
    "v5": RepeatRule(discriminator_factor=1.5),
    "v9": RepeatRule(discriminator_factor=2.5),
}


def repeat(
    rule: RepeatRule,
    update_discriminator: Callable[[int], float],
    update_generator: Callable[[int], float],
    generator_before: float | None,
) -> tuple[Losses, Losses]:
    """Make the updates of one batch -> the losses of both networks, in order.

    The functions get 0, 1, ... and return the loss before their step. generator_before: None for the very first batch.
    """
    factor = rule.discriminator_factor
    bound = None if factor is None or generator_before is None else factor * generator_before
    discriminator = _until_below(bound, update_discriminator)
    return discriminator, _until_below(rule.generator_factor * discriminator[-1], update_generator)


def _until_below(bound: float | None, update: Callable[[int], float]) -> Losses:
    losses = [update(0)]
    while bound is not None and len(losses) < LIMIT and not losses[-1] < bound:  # a loss of NaN is not below
        losses.append(update(len(losses)))
    return tuple(losses)
