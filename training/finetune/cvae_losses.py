"""Losses of FineTune-v2 and v3, and the numbers that v3 logs (docs/spec/stylegan.md, sections 9.2 and 9.3).

There is no KL divergence: the mean squares of mean and log variance hold the latents near N(0, 1) instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.finetune.recipes import PROPERTIES, Recipe
from ohlora.training.nets.score_cnns import PROPERTY_PARTS, PropertyCnn, at_cnn_size

# Names in the log, in the order of PROPERTIES.
TYPES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "back_mean", "back_std")
LOSSES = ("total_loss", "mse", "gender_loss", "mu_loss", "logvar_loss")
COLUMNS = (*LOSSES, *(f"{name}_mse" for name in TYPES), *(f"{name}_abs" for name in TYPES))
LOGGED = dict(zip(PROPERTIES, TYPES, strict=True))


def part_of(name: str) -> str:
    """The part of the property CNN that gives a property."""
    return "background" if name.startswith("background") else name


def property_scores(cnn: PropertyCnn, image: Tensor, properties: Sequence[str], scored: Sequence[str]) -> Tensor:
    """image [N,3,R,R] in [-1,1] -> scores [N, len(properties)]; gradients through those of `scored` only.

    Eyes, mouth and pose are a thirteenth of the CNN's work: the others are computed for the log, without gradients.
    """
    at_size = at_cnn_size(image)
    wanted, needed = ({part_of(name) for name in names} for names in (properties, scored))
    columns: dict[str, Tensor] = {}
    for part in (part for part in PROPERTY_PARTS if part in wanted):
        with torch.set_grad_enabled(torch.is_grad_enabled() and part in needed):
            made = cnn.only(at_size, (part,))
        names = [name for name in PROPERTIES if part_of(name) == part]
        columns |= dict(zip(names, made.unbind(1), strict=True))
    return torch.stack([columns[name] for name in properties], 1)


def scored_loss(scores: Tensor, label: Tensor, properties: Sequence[str], scored: Sequence[str]) -> Tensor:
    """Mean of the squared errors of the `scored` ones; scores and label [N, len(properties)]."""
    chosen = [list(properties).index(name) for name in scored]
    return F.mse_loss(scores[:, chosen], label[:, chosen])


def require_scored(recipe: Recipe) -> None:
    """Raises InvalidInputError when the recipe's loss asks for nothing, or for what its label does not hold."""
    foreign = [name for name in recipe.scored if name not in recipe.properties]
    if foreign or not recipe.scored:
        raise InvalidInputError(
            f"recipe {recipe.version}: scored must be some of its properties {', '.join(recipe.properties)}, got "
            f"{', '.join(recipe.scored) or 'none'}"
        )


def gender_picture(image: Tensor, value_range: str) -> Tensor:
    """What the gender CNN is given of a generated picture in [-1,1].

    "unit": [0,1], as it was trained; "signed": as it is, which is what the published v3 was trained with
    (docs/spec/stylegan.md, section 13, P11).
    """
    return at_cnn_size((image + 1) / 2 if value_range == "unit" else image)


def cvae_loss(
    recipe: Recipe, scores: Tensor, label: Tensor, gender: Tensor | None, mean: Tensor, log_variance: Tensor
) -> dict[str, Tensor]:
    """The columns of the log, of which "total_loss" is what is minimised; weights and properties are the recipe's.

    scores, label [N, len(properties)]; gender [N,1]: probability of a woman, None leaves the term out (0); mean,
    log_variance [N, z_size].
    """
    parts = {
        "mse": scored_loss(scores, label, recipe.properties, recipe.scored),
        "gender_loss": torch.zeros_like(mean[0, 0]) if gender is None else (gender - 1).square().mean(),
        "mu_loss": mean.square().mean(),
        "logvar_loss": log_variance.square().mean(),
    }
    total = (
        parts["mse"]
        + recipe.gender_weight * parts["gender_loss"]
        + recipe.mean_weight * parts["mu_loss"]
        + recipe.log_variance_weight * parts["logvar_loss"]
    )
    errors = (scores - label).detach()
    logged = {
        f"{LOGGED[name]}_{what}": value
        for what, values in (("mse", errors.square().mean(0)), ("abs", errors.abs().mean(0)))
        for name, value in zip(recipe.properties, values.unbind(), strict=True)
    }
    return {"total_loss": total, **parts, **logged}
