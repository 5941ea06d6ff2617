"""What a GAN fine-tuning run leaves to look at: the documented logs, picture dumps and test pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ohlora.base.recipe import pick
from ohlora.base.types import Rgb
from ohlora.training.cnn.ensemble import RESULT_FILE, Monitor
from ohlora.training.finetune.gan_steps import BatchResult
from ohlora.training.finetune.recipes import EXPRESSIONS, Recipe
from ohlora.training.finetune.repeat_rule import RULES
from ohlora.training.finetune.trial_pictures import (
    BEFORE,
    FIGURES,
    PLANS,
    SCORED_IN_FILE,
    SCORED_IN_LOG,
    Drawn,
    draw,
    obeyed,
    through_jpeg,
    write_pictures,
    write_real_fake,
)
from ohlora.training.loop.logs import CsvLog, write_table
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.nets.score_cnns import ATTRIBUTES, PropertyCnn
from ohlora.training.nets.stylegan import Generator

LOG_FILES = {"v4": "train_log_v4.csv"}  # train_log.csv for the others
ERROR_FILE = "train_log_v4_errors.csv"
COLUMNS = (
    "epoch", "idx", "d_loss", "g_loss", "g_train_count", "real_scores_mean", "fake_scores_mean", "real_fake_auroc",
)  # fmt: skip
TESTS = "inference_test_during_finetuning"
TEST_FOLDERS = {"v4": f"{TESTS}_v4"}
LABEL_COLUMNS = ("image_no", *(f"{name}_{what}" for what in ("label", "cnn_score") for name in EXPRESSIONS))


class GanWatch:
    """Writes rows and pictures of a run. Only the first of several processes has one that writes."""

    def __init__(self, recipe: Recipe, folder: RunFolder, cnn: PropertyCnn | None, classifiers: Monitor | None) -> None:
        self.recipe, self.out, self.writes = recipe, folder.out, folder.writes
        self.plan = pick(PLANS, recipe.test, f"test of recipe {recipe.version}")
        self.cnn, self.classifiers = cnn, classifiers
        columns = list(COLUMNS)
        if RULES[recipe.repeat].discriminator_factor is not None:
            columns.append("d_train_count")
        if self.plan.scored == SCORED_IN_LOG:
            columns += FIGURES
        if self.plan.classified:
            columns += [f"mean_{name}_score" for name in ATTRIBUTES]
        self.log = folder.table(LOG_FILES.get(recipe.version, "train_log.csv"), columns)
        self.errors: CsvLog | None = None
        if self.plan.scored == SCORED_IN_FILE and cnn is not None:
            self.errors = folder.table(ERROR_FILE, ("epoch", "batch_idx", *FIGURES))

    def wanted(self, epoch: int, batch: int) -> bool:
        """Whether this batch is logged and tested."""
        recipe = self.recipe
        every = recipe.log_every if epoch else recipe.log_every_first_epoch or recipe.log_every
        return (not epoch and batch < recipe.log_first) or batch % every == 0

    def before(self, generator: Generator) -> None:
        """The pictures before training."""
        if self.writes:
            drawn = draw(generator, self.recipe, BEFORE)
            write_pictures(self.out / "inference_test_before_finetuning", drawn.images, self.recipe.dump)

    def record(
        self, epoch: int, batch: int, result: BatchResult, generator: Generator, real: Rgb, fake: Rgb
    ) -> dict[str, Any]:
        """Dump, test and log one batch -> its row."""
        row: dict[str, Any] = {
            "epoch": epoch, "idx": batch, "d_loss": result.d_losses[-1], "g_loss": result.g_losses[-1],
            "g_train_count": len(result.g_losses), "real_scores_mean": float(result.real.mean()),
            "fake_scores_mean": float(result.fake.mean()), "real_fake_auroc": result.auroc,
            "d_train_count": len(result.d_losses),
        }  # fmt: skip
        if not self.writes:
            return row
        write_real_fake(self.out / "inference_test_real_fake", real, fake, self.recipe.dump)
        folder = self.out / TEST_FOLDERS.get(self.recipe.version, TESTS) / f"epoch_{epoch:04d}_idx_{batch:04d}"
        drawn = draw(generator, self.recipe, self.plan)
        write_pictures(folder, drawn.images, self.recipe.dump)
        row |= self._scored(drawn, folder) | self._classified(drawn, folder)
        self.log.append({name: row.get(name) for name in self.log.columns})
        if self.errors is not None:
            self.errors.append({**row, "batch_idx": batch})
        return row

    def after(self, generator: Generator) -> None:
        """Pictures at the end: one set for every psi of the plan's sweep."""
        for psi in self.plan.sweep if self.writes else ():
            folder = self.out / "inference_test_after_finetuning" / f"psi_{psi:.2f}"
            drawn = draw(generator, self.recipe, self.plan, psi)
            write_pictures(folder, drawn.images, self.recipe.dump)
            self._scored(drawn, folder)

    def _scored(self, drawn: Drawn, folder: Path) -> dict[str, float]:
        if not self.plan.scored or self.cnn is None:
            return {}
        measured = obeyed(drawn, self.recipe.properties, self.cnn)
        if self.plan.scored == SCORED_IN_LOG:
            rows = zip(measured.labels[0], measured.scores[0], strict=True)
            cells = ((i, i, *label, *scores) for i, (label, scores) in enumerate(rows))
            write_table(self._beside(folder, "label_info.csv"), ("", *LABEL_COLUMNS), cells)
        return dict(zip(FIGURES, map(float, (*measured.correlation[0], *measured.mae[0])), strict=True))

    def _classified(self, drawn: Drawn, folder: Path) -> dict[str, float]:
        if not self.plan.classified or self.classifiers is None:
            return {}
        scores = self.classifiers.score(through_jpeg(drawn.images))
        self.classifiers.write(self._beside(folder, RESULT_FILE), scores)
        return {f"mean_{name}_score": mean for name, mean in self.classifiers.means(scores).items()}

    def _beside(self, folder: Path, name: str) -> Path:
        """FOLDER/NAME beside single files, FOLDER_NAME beside a grid."""
        return folder / name if self.recipe.dump == "files" else folder.with_name(f"{folder.name}_{name}")
