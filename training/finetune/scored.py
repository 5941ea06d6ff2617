"""What FineTune-v2 and v3 share: the property CNN judges what the generator draws
(docs/spec/stylegan.md, sections 9.2 and 9.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.finetune.inputs import FineTuneInputs, load_generator
from ohlora.training.finetune.published import save_networks
from ohlora.training.finetune.recipes import PROPERTIES, Recipe
from ohlora.training.finetune.training import Report, Training
from ohlora.training.finetune.transfer import start_generator, train_only, trained_parameters, trained_report
from ohlora.training.gan.fast import in_channels_last
from ohlora.training.loop.distributed import average_gradients, mean_of
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.steps import gradient_norm, require_finite
from ohlora.training.nets.score_cnns import PROPERTY_PARTS, PropertyCnn, at_cnn_size

LOGGED = {name: name.replace("background", "back") for name in PROPERTIES}  # names in the logs
PLAIN = {"mixing": 0.0, "random_noise": False, "psi": 1.0, "conditional_truncation": False}


def rate_factor(epoch: int, half_period: int) -> float:
    """Cosine schedule stepped once an epoch: 1 at epoch 0, 0 after `half_period` epochs, 1 again after as many more.

    0 as half_period: constant.
    """
    return (1 + math.cos(math.pi * epoch / half_period)) / 2 if half_period else 1.0


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
    """Raises InvalidInputError when the recipe's loss asks for nothing, or for what its label does not hold; and for
    what only the GAN recipes have: mixing, random noise, truncation.
    """
    if not recipe.scored or not set(recipe.scored) <= set(recipe.properties):
        raise InvalidInputError(
            f"recipe {recipe.version}: scored must be some of its properties {', '.join(recipe.properties)}, got "
            f"{', '.join(recipe.scored) or 'none'}"
        )
    for name, plain in PLAIN.items():
        if getattr(recipe, name) != plain:
            raise InvalidInputError(
                f"recipe {recipe.version} trains on what the property CNN says of plain pictures: {name} must be "
                f"{plain}, got {getattr(recipe, name)}"
            )


class ScoredTraining(Training):
    """A generator and what is trained with it, one optimizer, the frozen property CNN.

    An epoch's losses are summed up in at["sums"], in the order of `columns`, the total first; the networks of the epoch
    with the lowest mean are written.
    """

    columns: tuple[str, ...]
    networks: Mapping[str, nn.Module]  # whose gradients are looked at

    def __init__(self, recipe: Recipe, inputs: FineTuneInputs, folder: RunFolder, report: Report, **at: Any) -> None:
        require_scored(recipe)
        super().__init__(recipe, folder, report, best_epoch=-1, best_loss=math.inf, finished=False, **at)
        self.inputs, self.device = inputs, folder.fabric.device
        generator = start_generator(recipe, load_generator(inputs.generator, smooth=recipe.smooth_start))
        self.generator = in_channels_last(generator, self.device).train()
        self.trained = trained_parameters(self.generator, recipe.generator_trained)
        train_only(self.generator, self.trained)
        cnn = checkpoints.load_as(PropertyCnn, "cnn-property", inputs.path("property_cnn"))
        self.property_cnn = in_channels_last(cnn.requires_grad_(False), self.device)

    def optimize(self, *groups: tuple[Sequence[nn.Parameter], float]) -> None:
        """Make the optimizer of (parameters, learning rate) groups."""
        self.rates = [rate for _, rate in groups]
        self.parameters = [parameter for parameters, _ in groups for parameter in parameters]
        self.optimizer = torch.optim.AdamW(
            [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
        )

    def set_rates(self) -> float:
        """Set the rates of the epoch; returns their factor."""
        factor = rate_factor(self.at["epoch"], self.recipe.cosine)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return factor

    def set_scorer_mode(self, *scorers: nn.Module | None) -> None:
        """Evaluation mode, or with their dropout on as the published program had them
        (docs/spec/stylegan.md, section 13, P10).
        """
        for scorer in filter(None, scorers):
            scorer.train(self.recipe.scorers_train_mode)

    def apply(self, loss: Tensor, w: Tensor, logged: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """One step of the optimizer, and of w_avg towards w [N, w_size] -> `logged`, averaged over the processes.

        Raises TrainingStoppedError, with nothing changed, when one of them or a gradient is not finite.
        """
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        average_gradients(self.fabric, self.parameters)
        values = mean_of(self.fabric, torch.stack([value.detach().float() for value in logged.values()]))
        means = dict(zip(logged, values.unbind(), strict=True))
        require_finite(where, means, {name: gradient_norm(net.parameters()) for name, net in self.networks.items()})
        self.optimizer.step()
        if self.recipe.w_avg_decay < 1.0:
            mean = mean_of(self.fabric, w.detach().float().mean(0))
            self.generator.update_w_avg(mean[None], self.recipe.w_avg_decay)
        return means

    def add(self, values: Mapping[str, float]) -> None:
        """Take a batch's values into the epoch's sums."""
        sums = self.at.get("sums") or [0.0] * len(self.columns)
        self.at["sums"] = [total + values[name] for name, total in zip(self.columns, sums, strict=True)]

    def keep_best(self) -> dict[str, float]:
        """Close the epoch's sums -> its means; writes the networks when it is the best one so far."""
        recipe, at = self.recipe, self.at
        means = {name: total / len(self.batches) for name, total in zip(self.columns, at["sums"], strict=True)}
        loss = means[self.columns[0]]
        if loss < at["best_loss"]:
            at.update(best_epoch=at["epoch"], best_loss=loss)
            if self.folder.writes:
                self.write_networks()
        waited = at["epoch"] - at["best_epoch"] >= recipe.patience
        at.update(sums=[], finished=bool(recipe.patience and at["epoch"] >= recipe.min_epochs and waited))
        return means

    def write_networks(self) -> None:
        save_networks(self.folder.out, self.recipe.version, self.generator)

    def write(self) -> None:
        if self.at["best_epoch"] < 0:  # there shall be weights to look at, whenever it was stopped
            self.write_networks()

    def finished(self) -> bool:
        return self.at["finished"] or super().finished()

    def summary(self, stopped: bool) -> dict[str, Any]:
        return {
            "recipe": self.recipe.identity(),
            "inputs": self.inputs.describe(),
            **super().summary(stopped),
            "best_epoch": self.at["best_epoch"],
            "best_loss": self.at["best_loss"] if self.at["best_epoch"] >= 0 else None,
            "trained": trained_report((self.generator, self.recipe.generator_trained)),
        }
