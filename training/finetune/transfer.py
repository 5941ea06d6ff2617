"""From the start weights to the networks of a version: what is kept, what is redrawn, what is trained.

(See docs/spec/stylegan.md, section 7.3.) Works for networks of any size: only what the label adds
is taken from the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.loop.streams import seeded
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator, from_property_cnn
from ohlora.training.weights.published import layout_of

AnyDiscriminator = Discriminator | V5Discriminator
Network = Generator | Discriminator | V5Discriminator
N = TypeVar("N", Generator, Discriminator)

GENERATOR_DRAW, DISCRIMINATOR_DRAW = 11, 12  # two streams of one seed
GENERATOR_FIELDS = ("label_size", "embedding_size", "split_size", "conditional_truncation", "mixing")  # the recipe's
SHOWN = 4


def published_names(module: Network) -> dict[str, str]:
    """Published name -> name in `module.state_dict()`, of parameters and buffers."""
    return dict(layout_of(module).names)


def named_tensors(module: Network) -> dict[str, Tensor]:
    """The module's own tensors by their published names."""
    state = module.state_dict()
    return {theirs: state[ours] for theirs, ours in published_names(module).items()}


def select(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Those of `names` that a pattern of `recipes` means, in their order. A pattern may mean none of them."""
    chosen: set[str] = set()
    for pattern in patterns:
        cut = re.fullmatch(r"(.+)\[(-?\d*):(-?\d*)\](\..+)?", pattern)
        if cut is None:
            prefixes = [pattern]
        else:
            found = {m[1] for name in names if (m := re.match(rf"{re.escape(cut[1])}(\d+)(?:\.|$)", name))}
            numbers = sorted(map(int, found))[slice(*(int(part) if part else None for part in (cut[2], cut[3])))]
            prefixes = [f"{cut[1]}{number}{cut[4] or ''}" for number in numbers]
        for prefix in prefixes:
            chosen.update(name for name in names if prefix in ("*", name) or name.startswith(f"{prefix}."))
    return [name for name in names if name in chosen]


def trained_names(module: Network, patterns: Sequence[str]) -> list[str]:
    """Published names of the parameters that `patterns` mean.

    Raises InvalidInputError for a pattern that means none.
    """
    parameters = {name for name, _ in module.named_parameters()}
    names = [theirs for theirs, ours in published_names(module).items() if ours in parameters]
    for pattern in patterns:
        if not select([pattern], names):
            raise InvalidInputError(
                f"pattern '{pattern}' of what is trained means no tensor of the {kind_of(module)}: they are named like "
                + ", ".join(names[:: max(1, len(names) // SHOWN)][:SHOWN])
            )
    return select(patterns, names)


def trained_parameters(module: Network, patterns: Sequence[str]) -> list[nn.Parameter]:
    """The parameters that `patterns` mean (`trained_names`)."""
    names, parameters = published_names(module), dict(module.named_parameters())
    return [parameters[names[name]] for name in trained_names(module, patterns)]


def kind_of(module: Network) -> str:
    return "generator" if isinstance(module, Generator) else "discriminator"


def start_generator(recipe: Recipe, start: Generator) -> Generator:
    """The recipe's generator with the weights of `start`, fresh ones where the recipe says so.

    The fresh weights depend on recipe.seed and the shapes only. Raises InvalidInputError where `start` lacks something
    that the recipe does not redraw, naming the version it must be of.
    """
    return _started(recipe, start, Generator, GENERATOR_FIELDS, GENERATOR_DRAW)


def start_discriminator(recipe: Recipe, start: Discriminator) -> Discriminator:
    """The recipe's discriminator with the weights of `start`, as in `start_generator`."""
    return _started(recipe, start, Discriminator, ("label_size", "group"), DISCRIMINATOR_DRAW)


def _started(recipe: Recipe, start: N, network: type[N], fields: Sequence[str], draw: int) -> N:
    config = replace(start.config, **{name: getattr(recipe, name) for name in fields})
    with seeded(recipe.seed * 1009 + draw):
        target = network(config)
    return _carry_over(recipe, start, target)


def property_discriminator(recipe: Recipe, cnn: PropertyCnn) -> V5Discriminator:
    """v5: the discriminator made of the property CNN's branches; the layers above them are drawn by recipe.seed.

    Raises InvalidInputError when the recipe's label is not eyes, mouth, pose, or it keeps layers that the CNN has not.
    """
    with seeded(recipe.seed * 1009 + DISCRIMINATOR_DRAW):
        module = from_property_cnn(cnn)
    if recipe.properties != tuple(module.parts):
        raise InvalidInputError(
            f"a property-cnn discriminator has the label {', '.join(module.parts)}: set properties so"
        )
    fresh = select(("fc1", "fc_final"), list(published_names(module)))
    if set(select(recipe.discriminator_redrawn, list(published_names(module)))) != set(fresh):
        raise InvalidInputError(
            "of a property-cnn discriminator exactly fc1 and fc_final are redrawn, discriminator_redrawn is "
            + ", ".join(recipe.discriminator_redrawn)
        )
    return module


@torch.no_grad()
def _carry_over(recipe: Recipe, start: N, target: N) -> N:
    """Copy what both have into `target`. Raises InvalidInputError for a difference that is not redrawn."""
    field = f"{kind_of(start)}_redrawn"
    redrawn: tuple[str, ...] = getattr(recipe, field)
    old, new = named_tensors(start), named_tensors(target)
    names = sorted(old.keys() | new.keys(), key=_natural)
    fresh = set(select(redrawn, names))
    wrong: dict[str, str] = {}
    for name in names:
        if name in fresh:
            continue
        if name not in new:
            wrong[name] = "one tensor too many"
        elif name not in old:
            wrong[name] = "missing"
        elif old[name].shape != new[name].shape:
            wrong[name] = f"{list(old[name].shape)}, not {list(new[name].shape)}"
        else:
            new[name].copy_(old[name])
    if wrong:
        shown = "; ".join(f"{name} is {what}" for name, what in list(wrong.items())[:SHOWN])
        raise InvalidInputError(
            f"recipe {recipe.version} starts from the {kind_of(start)} of '{recipe.starts_from}', this one is another: "
            f"{shown}. Take the right start weights, or have these redrawn: --set {field}="
            f"{','.join([*redrawn, *wrong])}"
        )
    return target


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def train_only(module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Let gradients reach `parameters` and nothing else of `module`; frozen ones keep no gradient."""
    module.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def trained_report(*networks: tuple[Network, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Numbers of trained and of all parameters, by the kind of network, for the summary."""
    return {
        kind_of(module): {
            "trained": sum(p.numel() for p in trained_parameters(module, patterns)),
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        for module, patterns in networks
    }
