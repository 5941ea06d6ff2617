"""FineTune-v3: a conditional VAE of a fresh encoder and the generator, judged by frozen CNNs
(docs/spec/stylegan.md, section 9.3; docs/finetune-conditional.md).

A picture and its scores are encoded to a latent; from it and the same scores the generator draws a picture, and the
property CNN says whether it has those scores. Nothing asks for the same picture again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ohlora.training import checkpoints
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.pictures import Batch, Batches, Pictures, open_pictures
from ohlora.training.finetune.property_test import gender_picture, label_columns
from ohlora.training.finetune.property_test_files import Scorers, epoch_test
from ohlora.training.finetune.published import generator_file, write_published
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.scored import LOGGED, ScoredTraining, property_scores, scored_loss
from ohlora.training.finetune.training import Report
from ohlora.training.gan.fast import in_channels_last
from ohlora.training.loop.distributed import gathered
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.streams import seeded
from ohlora.training.nets.cvae_encoder import REDUCTION, CvaeEncoder, EncoderConfig, draw_latent
from ohlora.training.nets.score_cnns import ClassifierCnn
from ohlora.training.nets.stylegan import CONFIGS, GeneratorConfig

LOSSES = ("total_loss", "mse", "gender_loss", "mu_loss", "logvar_loss")
COLUMNS = (*LOSSES, *(f"{name}_{what}" for what in ("mse", "abs") for name in LOGGED.values()))
LOGGED_EPOCHS = 10  # single batches are logged in the first epochs only
MEAN_ROW = "-"
ENCODER_DRAW = 13  # beside those of `transfer`
ENCODE = 300  # use of a batch's random numbers, beside those of `draws`


def encoder_config(generator: GeneratorConfig) -> EncoderConfig:
    """The documented encoder for the documented generator; for a smaller one, as much smaller in width and pictures."""
    resolution = max(REDUCTION, min(generator.resolution, EncoderConfig.resolution))
    width = min(1.0, generator.channel_base / CONFIGS["original"].channel_base)
    return EncoderConfig(resolution, generator.z_size, generator.label_size, width)


class CvaeTraining(ScoredTraining):
    """Encoder and generator, and the frozen scorers.

    Writes generator.safetensors and encoder.safetensors with the documented .pth of both (the epoch of the lowest
    loss; it is not the one that obeys best), the .pth of every epoch of which a latent passed the test, the test
    folders and train_log_v3.csv.
    """

    columns = COLUMNS
    pictures: Pictures
    batches: Batches

    def __init__(self, recipe: Recipe, inputs: FineTuneInputs, folder: RunFolder, report: Report) -> None:
        super().__init__(recipe, inputs, folder, report, passed={}, losses={}, test={})
        config = self.generator.config
        label_columns(config.label_size)  # refuses what the test after an epoch could not judge
        with seeded(recipe.seed * 1009 + ENCODER_DRAW):
            encoder = CvaeEncoder(encoder_config(config))
        self.encoder = in_channels_last(encoder, self.device).train()
        self.gender_cnn: ClassifierCnn | None = None
        if inputs.gender_cnn is not None:
            cnn = checkpoints.load_as(ClassifierCnn, "cnn-gender", inputs.gender_cnn)
            self.gender_cnn = in_channels_last(cnn.requires_grad_(False), self.device)
        self.networks = {"generator": self.generator, "encoder": self.encoder}
        self.optimize((self.trained, recipe.learning_rate), (list(self.encoder.parameters()), recipe.encoder_rate))
        self.parts = {**self.networks, "optimizer": self.optimizer}
        self.pictures = open_pictures(recipe, inputs)
        self.batches = Batches.of(recipe, self.pictures.count, self.fabric)
        self.at |= {name: torch.zeros(0, config.z_size) for name in ("means", "log_variances")}

    def begin(self, *, fresh: bool) -> None:
        self.log = self.folder.table(f"train_log_{self.recipe.version}.csv", ("epoch", "batch_idx", *COLUMNS))

    def batch(self) -> None:
        at, recipe = self.at, self.recipe
        epoch, number = at["epoch"], at["batch"]
        self.set_rates()
        made = self.update(*self.take(self.pictures, self.batches), f"epoch {epoch}, batch {number}")
        for name, key in (("means", "mean"), ("log_variances", "log_variance")):
            at[name] = torch.cat([at[name], made[key].cpu()[None]])[-recipe.test_kept :]
        # A label of fewer properties leaves columns empty.
        values = {name: float(made[name]) if name in made else math.nan for name in COLUMNS}
        self.add(values)
        if epoch < LOGGED_EPOCHS and (number % recipe.log_every == 0 or (not epoch and number < recipe.log_first)):
            self.log.append({"epoch": epoch, "batch_idx": number, **values})
            self.report({"event": "row", "epoch": epoch, "batch": number, "batches": len(self.batches),
                         **{name: values[name] for name in LOSSES}})  # fmt: skip

    def update(self, batch: Batch, draws: Draws, where: str) -> dict[str, Tensor]:
        """One update -> the columns of the log, and "mean" and "log_variance" [z_size] of the batch's first picture.

        Raises TrainingStoppedError, with the weights of before, when a loss or gradient is not finite; `where` names
        the batch in its message.
        """
        recipe, generator, label = self.recipe, self.generator, batch.labels
        self.set_scorer_mode(self.property_cnn, self.gender_cnn)
        draws.start_dropout(ENCODE)
        with self.fabric.autocast():
            mean, log_variance = self.encoder(batch.images, label)
            z = draw_latent(mean, log_variance, draws.latents(ENCODE, mean.shape[1]))
            w = generator.mapping(z, label)
            made = generator.synthesis(generator.broadcast(w), lod=0.0)
            scores = property_scores(self.property_cnn, made, recipe.properties, recipe.scored)
            gender = None
            if self.gender_cnn is not None and recipe.gender_weight:
                gender = self.gender_cnn(gender_picture(made, recipe.gender_input)).float()
        losses = cvae_loss(recipe, scores.float(), label, gender, mean.float(), log_variance.float())
        logged = self.apply(losses["total_loss"], w, losses, where)
        first = {"mean": mean, "log_variance": log_variance}
        return logged | {key: gathered(self.fabric, value.detach()[:1].float())[0] for key, value in first.items()}

    def epoch_ends(self) -> dict[str, Any]:
        at, epoch, rate = self.at, self.at["epoch"], self.images_per_second()
        means = self.keep_best()
        self.log.append({"epoch": epoch, "batch_idx": MEAN_ROW, **means})
        if self.folder.writes:
            self._test()
        self.fabric.barrier()
        at["losses"] = {name: None if math.isnan(value) else value for name, value in means.items()}
        return {
            "epoch": epoch, **{name: means[name] for name in LOSSES},
            **{f"{name}_corr": figures["correlation"] for name, figures in at["test"].items()},
            "passed": len(at["passed"].get(str(epoch), ())), "images_per_second": rate,
        }  # fmt: skip

    def _test(self) -> None:
        """The test after an epoch and, when a latent passes, the networks that made it."""
        at, epoch, out, recipe = self.at, self.at["epoch"], self.folder.out, self.recipe
        networks = Scorers(self.generator, self.property_cnn, self.gender_cnn, recipe.gender_input)
        measured, passed = epoch_test(out, recipe, epoch, networks, at["means"], at["log_variances"])
        at["test"] = measured.summary()
        if passed:
            at["passed"][str(epoch)] = passed
            for part, network in (("gen", self.generator), ("enc", self.encoder)):
                write_published(out / generator_file(recipe.version, f"ckpt_{epoch:04d}_{part}"), network)

    def write_networks(self) -> None:
        super().write_networks()
        out = self.folder.out
        checkpoints.save(self.encoder, out / "encoder.safetensors", "cvae-encoder-v3")
        write_published(out / generator_file(self.recipe.version, "encoder"), self.encoder)

    def summary(self, stopped: bool) -> dict[str, Any]:
        return {
            **super().summary(stopped),
            "pictures": self.pictures.count,
            "losses": self.at["losses"],
            "conditioning": self.at["test"] or None,
            "passed": self.at["passed"],
            "encoder": str(self.folder.out / "encoder.safetensors"),
        }


def cvae_loss(
    recipe: Recipe, scores: Tensor, label: Tensor, gender: Tensor | None, mean: Tensor, log_variance: Tensor
) -> dict[str, Tensor]:
    """The columns of the log, of which "total_loss" is what is minimised; weights and properties are the recipe's.

    There is no KL divergence: the mean squares of mean and log variance hold the latents near N(0, 1) instead.

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
