"""Train one classifier per fold: gender, quality, age or glass (docs/spec/cnn.md, sections 4 and 6).

OUT/models/NAME_{fold}.pt             published layout, NAME as documented
OUT/models/NAME_{fold}.safetensors    the same as our own file
OUT/log/train_log_{p}.csv             every attempt
OUT/log/epoch_detail_{p}_{fold}.csv   every epoch of the kept attempt
OUT/training_{p}.json                 which folds are done; OUT/resume_{p}.pt, the attempt under way
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from torch import nn

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.io.numbered_images import numbered_images
from ohlora.training import checkpoints
from ohlora.training.cnn.ensemble import MODELS
from ohlora.training.cnn.folds import Split, make_folds
from ohlora.training.cnn.logs import write_epochs, write_train_log
from ohlora.training.cnn.loop import Attempt, CnnRun, Examples, Report, save_network
from ohlora.training.cnn.objectives import Classification
from ohlora.training.cnn.pictures import load_pictures, of_numbers
from ohlora.training.cnn.recipes import KEEP_BEST, RANDOM, ClassifierRecipe, classifier_recipe
from ohlora.training.data.labels import read_labels
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.states import load_tensors, save_tensors
from ohlora.training.nets.score_cnns import ClassifierCnn, ClassifierConfig
from ohlora.training.weights.state_dicts import shapes_of

LOGS = "log"


@dataclass(frozen=True)
class ClassifierResult:
    """What was trained. models: .safetensors by fold. min_val_loss, best_epoch, success: of the kept attempts.

    attempts: made in each fold, failed ones included. pictures: with a label of this attribute. seconds: of training,
    over all calls.
    """

    attribute: str
    folder: Path
    models: tuple[Path, ...]
    min_val_loss: tuple[float, ...]
    best_epoch: tuple[int, ...]
    success: tuple[bool, ...]
    attempts: tuple[int, ...]
    pictures: int
    seconds: float


def train_classifier(
    attribute: str,
    images: Path,
    labels: Path,
    out: Path,
    settings: ClassifierRecipe | None = None,
    *,
    start_from: Path | None = None,
    resume: bool = True,
    fabric: Fabric | None = None,
    report: Report = lambda row: None,
    note: Callable[[str], None] = lambda text: None,
) -> ClassifierResult:
    """Cross-validate a classifier of `attribute` on the labelled pictures of folder `images`, in folder `out`.

    The same call resumes where a stopped one ended: finished folds are skipped, an interrupted one continues after
    its last epoch, to the same weights.

    settings: default is the documented v3 recipe. start_from: weights to begin with, which the recipes with start
    "v1-model" need; with a start of "random" none are taken. fabric: a launched one, default one process. report:
    gets a row per epoch, with "fold" and "attempt". Raises InvalidInputError for labels that do not match the pictures,
    a class with fewer members than folds, or another run's folder; CheckpointError for start weights that do not fit;
    OhloraError for a loss that is no number and for a fold without success.
    """
    recipe = settings or classifier_recipe("v3", attribute)
    if recipe.attribute != attribute:
        raise InvalidInputError(f"the settings are for '{recipe.attribute}', not for '{attribute}'")
    table = read_labels(labels)
    values = table.of(attribute)
    paths = of_numbers(numbered_images(Path(images)), table.numbers, "labels", Path(images))
    splits = make_folds(attribute, values, recipe.folds, recipe.split, recipe.seed)
    make = _network_maker(recipe, start_from)
    fabric = fabric or make_fabric(precision=recipe.precision)
    parts = {
        "labels": hashlib.sha256(values.tobytes()).hexdigest()[:16],
        "start_from": None if recipe.start == RANDOM or start_from is None else file_sha256(start_from),
    }
    run = CnnRun(attribute, Path(out), recipe, paths, parts, fabric, resume)
    folds = _Folds(run, recipe)
    if folds.pending:
        with run:
            for below in (MODELS, LOGS) if run.writes else ():
                remove_leftovers(make_folder(run.out / below))
            folds.write()
            examples = Examples(load_pictures(paths, run.out, fabric, note), values.astype(np.float32)[:, None])
            for fold in folds.pending:
                folds.train(fold, splits[fold], make, examples, report)
    return folds.result(len(paths))


def _network_maker(recipe: ClassifierRecipe, start_from: Path | None) -> Callable[[], nn.Module]:
    config = ClassifierConfig(recipe.attribute, recipe.width)
    if recipe.start == RANDOM:
        if start_from is not None:
            raise InvalidInputError(
                f"the recipe starts from random weights: leave {start_from} out, or set start to v1-model"
            )
        return lambda: ClassifierCnn(config)
    if start_from is None:
        raise InvalidInputError(
            f"the {recipe.version} classifier for {recipe.attribute} starts from a v1 model: name its weights "
            f"(--start-from {recipe.attribute}_model_0.pt), or start from random ones (--start random)"
        )
    weights = checkpoints.load_as(ClassifierCnn, f"cnn-{recipe.attribute}", start_from)
    if shapes_of(weights.state_dict()) != shapes_of(ClassifierCnn(config).state_dict()):
        raise InvalidInputError(
            f"{start_from} has width {weights.config.width:g}, the recipe {recipe.width:g}: use --width "
            f"{weights.config.width:g}"
        )
    return lambda: copy.deepcopy(weights)


class _Folds:
    """The folds of one classifier: the attempts of each, and in `kept` which of them its model is from."""

    def __init__(self, run: CnnRun, recipe: ClassifierRecipe) -> None:
        self.run, self.recipe, self.name = run, recipe, recipe.attribute
        earlier = run.recorded(lambda done: (done["attempts"], {int(f): int(n) for f, n in done["kept"].items()}))
        self.attempts: list[dict[str, Any]]
        self.kept: dict[int, int]
        self.attempts, self.kept = earlier or ([], {})

    @property
    def pending(self) -> list[int]:
        """Folds without a model."""
        return [
            fold
            for fold in range(self.recipe.folds)
            if fold not in self.kept or not all(path.is_file() for path in self._files(fold))
        ]

    def train(self, fold: int, split: Split, make: Callable[[], nn.Module], examples: Examples, report: Report) -> None:
        """Attempts until one succeeds; keeps its weights and logs."""
        recipe, run = self.recipe, self.run
        if fold in self.kept or not self._best(fold).is_file():  # what was trained is gone: again, to the same weights
            self.kept.pop(fold, None)
            self.attempts = [row for row in self.attempts if row["fold"] != fold]
        losses = [row["losses"][row["best_epoch"]] for row in self._of(fold)]

        def attempt(number: int) -> float:
            purpose = (recipe.attribute, "fold", fold, "attempt", number)
            objective = Classification(recipe.log_threshold)
            made = Attempt(make, examples, split, objective, recipe, purpose=purpose, folder=run)
            made.run(lambda row: report({"fold": fold, "attempt": number, **row}))
            loss, state = made.state.best, made.state
            if run.writes and loss < min(losses, default=float("inf")):  # the best so far, until the fold is done
                save_tensors(self._best(fold), {"state": made.best, "rows": made.figures})
            about = {"fold": fold, "success": loss <= recipe.threshold, "losses": made.losses}
            self.attempts.append({**about, "best_epoch": state.best_epoch, "seconds": state.seconds})
            self.write()
            run.forget()
            return loss

        best = until_success(recipe, fold, losses, attempt)
        if run.writes:
            kept = load_tensors(self._best(fold))
            network = ClassifierCnn(ClassifierConfig(self.name, recipe.width))
            network.load_state_dict(kept["state"])
            save_network(network.eval(), *self._files(fold), f"cnn-{self.name}")
            write_epochs(run.out / LOGS / f"epoch_detail_{self.name}_{fold}.csv", kept["rows"])
        self.kept[fold] = best
        self.write()
        if run.writes:
            self._best(fold).unlink(missing_ok=True)
        run.fabric.barrier()

    def result(self, pictures: int) -> ClassifierResult:
        folds = range(self.recipe.folds)
        kept = [self._of(fold)[self.kept[fold]] for fold in folds]
        return ClassifierResult(
            attribute=self.name,
            folder=self.run.out / MODELS,
            models=tuple(self._files(fold)[1] for fold in folds),
            min_val_loss=tuple(row["losses"][row["best_epoch"]] for row in kept),
            best_epoch=tuple(row["best_epoch"] for row in kept),
            success=tuple(row["success"] for row in kept),
            attempts=tuple(len(self._of(fold)) for fold in folds),
            pictures=pictures,
            seconds=sum(row["seconds"] for row in self.attempts),
        )

    def write(self) -> None:
        self.attempts.sort(key=lambda row: row["fold"])  # stable: attempts of a fold stay in order
        self.run.write_record(attempts=self.attempts, kept=self.kept)
        if self.run.writes and self.attempts:
            write_train_log(self.run.out / LOGS / f"train_log_{self.name}.csv", self.attempts)

    def _of(self, fold: int) -> list[dict[str, Any]]:
        return [row for row in self.attempts if row["fold"] == fold]

    def _files(self, fold: int) -> tuple[Path, Path]:
        """Published and own file of a fold's model."""
        name = self.run.out / MODELS / self.recipe.model_name(fold)
        return name.with_suffix(".pt"), name.with_suffix(".safetensors")

    def _best(self, fold: int) -> Path:
        return self.run.out / f"best_{self.name}_{fold}.pt"


def until_success(recipe: ClassifierRecipe, fold: int, losses: list[float], attempt: Callable[[int], float]) -> int:
    """Train a fold until its loss is low enough, at most so many times -> which attempt to keep.

    losses: smallest validation losses of the attempts made so far; those of new ones are added. attempt: makes attempt
    0, 1, ... and returns its loss. Success is a loss of at most `recipe.threshold`. When no attempt succeeds, the best
    one is kept ("keep-best") or OhloraError raised ("error").
    """
    while not any(loss <= recipe.threshold for loss in losses) and len(losses) < recipe.max_attempts:
        losses.append(attempt(len(losses)))
    best = losses.index(min(losses))
    if losses[best] > recipe.threshold and recipe.on_failure != KEEP_BEST:
        raise OhloraError(
            f"{recipe.attribute}, fold {fold}: the smallest validation loss of {len(losses)} "
            f"attempt{'s' if len(losses) != 1 else ''} is {losses[best]:.4f}, success is {recipe.threshold:g} or less. "
            "Label more pictures, or run again with more --max-attempts, a higher --threshold or --on-failure keep-best"
        )
    return best
