"""Networks, optimiser and one step of FineTune-v3 (docs/spec/stylegan.md, section 9.3); the loop
around it is in `cvae.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.finetune.cvae_losses import (
    LossWeights,
    cvae_loss,
    gender_picture,
    property_scores,
    require_scored,
    set_scorer_mode,
)
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import MADE_BY, FineTuneInputs
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.run_folder import require_finite
from ohlora.training.finetune.transfer import start_generator, train_only, trained_parameters
from ohlora.training.gan.fast import in_channels_last
from ohlora.training.loop.distributed import average_gradients, gathered, mean_of
from ohlora.training.nets.cvae_encoder import REDUCTION, CvaeEncoder, EncoderConfig, draw_latent
from ohlora.training.nets.score_cnns import ClassifierCnn, PropertyCnn
from ohlora.training.nets.stylegan import CONFIGS, GeneratorConfig

ENCODER_DRAW = 13  # beside those of `transfer`
ENCODE = 300  # use of a batch's random numbers, beside those of `draws`


def encoder_config(generator: GeneratorConfig) -> EncoderConfig:
    """The documented encoder for the documented generator; for a smaller one, as much smaller in width and pictures."""
    resolution = max(REDUCTION, min(generator.resolution, EncoderConfig.resolution))
    width = min(1.0, generator.channel_base / CONFIGS["original"].channel_base)
    return EncoderConfig(resolution, generator.z_size, generator.label_size, width)


def rate_factor(epoch: int, half_period: int) -> float:
    """Cosine schedule stepped once an epoch: 1 at epoch 0, 0 after `half_period` epochs, 1 again after as many more.

    0 as half_period: constant.
    """
    return (1 + math.cos(math.pi * epoch / half_period)) / 2 if half_period else 1.0


def require_plain(recipe: Recipe) -> None:
    """Raises InvalidInputError for what only the GAN recipes have: mixing, random noise, truncation."""
    for name, plain in (("mixing", 0.0), ("random_noise", False), ("psi", 1.0), ("conditional_truncation", False)):
        if getattr(recipe, name) != plain:
            raise InvalidInputError(
                f"recipe {recipe.version} trains on what the property CNN says of plain pictures: {name} must be "
                f"{plain}, got {getattr(recipe, name)}"
            )


def load_property_cnn(inputs: FineTuneInputs) -> PropertyCnn:
    """The frozen scorer. Raises CheckpointError, InvalidInputError when there is none."""
    if inputs.property_cnn is None:
        raise InvalidInputError(f"a property CNN is needed: --property-cnn (made by {MADE_BY['property_cnn'][1]})")
    module = checkpoints.load("cnn-property", inputs.property_cnn).requires_grad_(False)
    assert isinstance(module, PropertyCnn)
    return module


def load_gender_cnn(inputs: FineTuneInputs) -> ClassifierCnn | None:
    """The frozen gender CNN, None when there is none. Raises CheckpointError."""
    if inputs.gender_cnn is None:
        return None
    module = checkpoints.load("cnn-gender", inputs.gender_cnn).requires_grad_(False)
    assert isinstance(module, ClassifierCnn)
    return module


class CvaeSteps:
    """Encoder and generator with their optimiser, and the frozen scorers. `step` trains once."""

    def __init__(self, recipe: Recipe, inputs: FineTuneInputs, fabric: Fabric) -> None:
        require_scored(recipe)
        require_plain(recipe)
        self.recipe, self.fabric, self.device = recipe, fabric, fabric.device
        start = inputs.load_generator(recipe.smooth_start)
        self.generator = in_channels_last(start_generator(recipe, start), self.device).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed * 1009 + ENCODER_DRAW)
            encoder = CvaeEncoder(encoder_config(self.generator.config))
        self.encoder = in_channels_last(encoder, self.device).train()
        self.property_cnn = in_channels_last(load_property_cnn(inputs), self.device)
        gender = load_gender_cnn(inputs)
        self.gender_cnn = None if gender is None else in_channels_last(gender, self.device)
        self.trained = trained_parameters(self.generator, recipe.generator_trained)
        train_only(self.generator, self.trained)
        self.weights = LossWeights(recipe.gender_weight, recipe.mean_weight, recipe.log_variance_weight)
        self.rates = (recipe.learning_rate, recipe.encoder_rate)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.trained, "lr": recipe.learning_rate},
                {"params": list(self.encoder.parameters()), "lr": recipe.encoder_rate},
            ],
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )

    def set_epoch(self, epoch: int) -> float:
        """Set the rates of an epoch; returns their factor."""
        factor = rate_factor(epoch, self.recipe.cosine)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return factor

    def step(self, image: Tensor, label: Tensor, draws: Draws, where: str) -> dict[str, Tensor]:
        """One update -> the columns of the log, and "mean" and "log_variance" [z_size] of the batch's first picture.

        image [n,3,R,R], label [n,L]: this process's share of the batch. Raises TrainingStoppedError, with the weights
        of before, when a loss or gradient is not finite; `where` names the batch in its message.
        """
        recipe, generator = self.recipe, self.generator
        set_scorer_mode(recipe, self.property_cnn, self.gender_cnn)
        draws.start_dropout(ENCODE)
        with self.fabric.autocast():
            mean, log_variance = self.encoder(image, label)
            z = draw_latent(mean, log_variance, draws.latents(ENCODE, mean.shape[1]))
            w = generator.mapping(z, label)
            made = generator.synthesis(generator.broadcast(w), lod=0.0)
            scores = property_scores(self.property_cnn, made, recipe.properties, recipe.scored)
            gender = None
            if self.gender_cnn is not None and recipe.gender_weight:
                gender = self.gender_cnn(gender_picture(made, recipe.gender_input)).float()
        losses = cvae_loss(
            scores.float(), label, gender, mean.float(), log_variance.float(), self.weights,
            properties=recipe.properties, scored=recipe.scored,
        )  # fmt: skip
        self.optimizer.zero_grad()
        self.fabric.backward(losses["total_loss"])
        average_gradients(self.fabric, [*self.trained, *self.encoder.parameters()])
        logged = self._averaged(losses)
        require_finite(where, logged, {"generator": self.generator, "encoder": self.encoder})
        self.optimizer.step()
        if recipe.w_avg_decay < 1.0:  # after the step, so that one that fails leaves nothing changed
            generator.update_w_avg(mean_of(self.fabric, w.detach().float().mean(0))[None], recipe.w_avg_decay)
        first = {"mean": mean, "log_variance": log_variance}
        return logged | {key: gathered(self.fabric, value.detach()[:1].float())[0] for key, value in first.items()}

    def _averaged(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        values = mean_of(self.fabric, torch.stack([value.detach().float() for value in losses.values()]))
        return dict(zip(losses, values.unbind(), strict=True))

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of tensors and plain values only."""
        return {
            "generator": self.generator.state_dict(),
            "encoder": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises InvalidInputError when it is that of other networks."""
        try:
            self.generator.load_state_dict(state["generator"])
            self.encoder.load_state_dict(state["encoder"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InvalidInputError(f"the checkpoint is of other networks: {str(error).splitlines()[0]}") from error
