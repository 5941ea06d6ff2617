"""Train one classifier per fold: gender, quality, age or glass (docs/spec/cnn.md, sections 4 and 6).

OUT/models/NAME_{fold}.pt             published layout, NAME as documented
OUT/models/NAME_{fold}.safetensors    the same as our own file
OUT/log/train_log_{p}.csv             every attempt
OUT/log/epoch_detail_{p}_{fold}.csv   every epoch of the kept attempt
OUT/training_{p}.json                 which folds are done; OUT/resume_{p}.pt, the attempt under way
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from torch import nn

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.training import checkpoints
from ohlora.training.cnn.folds import Split, make_folds
from ohlora.training.cnn.logs import write_epoch_detail, write_train_log
from ohlora.training.cnn.loop import Attempt, Examples, Report, Trainer, load_tensors, save_tensors
from ohlora.training.cnn.objectives import Classification
from ohlora.training.cnn.pictures import fingerprint, load_pictures, of_numbers
from ohlora.training.cnn.recipes import RANDOM, ClassifierRecipe, classifier_recipe
from ohlora.training.cnn.retry import until_success
from ohlora.training.data.labels import read_labels
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.nets.score_cnns import ClassifierCnn, ClassifierConfig
from ohlora.training.weights.published import published_state

MODELS, LOGS = "models", "log"


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

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**values, "folder": str(self.folder), "models": [str(path) for path in self.models]}


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

    The same call goes on where a stopped one ended: finished folds are skipped, an interrupted one continues after
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
    folds = make_folds(attribute, values, recipe.folds, recipe.split, recipe.seed)
    make = _network_maker(recipe, start_from)
    fabric = fabric or make_fabric(precision=recipe.precision)
    identity = {
        "recipe": recipe.identity(),
        "pictures": fingerprint(paths),
        "labels": hashlib.sha256(values.tobytes()).hexdigest()[:16],
        "start_from": None if recipe.start == RANDOM or start_from is None else file_sha256(start_from),
        "processes": fabric.world_size,
    }
    run = _Run(recipe, Path(out), identity, fabric, resume)
    if run.pending:
        pictures = load_pictures(paths, Path(out), fabric, note)
        examples = Examples(pictures, values.astype(np.float32)[:, None])
        for fold in run.pending:
            run.train_fold(fold, folds[fold], make, examples, report)
    return run.result(len(paths))


def _network_maker(recipe: ClassifierRecipe, start_from: Path | None) -> Callable[[], nn.Module]:
    if recipe.start == RANDOM:
        if start_from is not None:
            raise InvalidInputError(
                f"the recipe starts from random weights: leave {start_from} out, or set start to v1-model"
            )
        return lambda: ClassifierCnn(ClassifierConfig(recipe.attribute, recipe.width))
    if start_from is None:
        raise InvalidInputError(
            f"the {recipe.version} classifier for {recipe.attribute} starts from a v1 model: name its weights "
            f"(--start-from {recipe.attribute}_model_0.pt), or start from random ones (--start random)"
        )
    weights = checkpoints.load(f"cnn-{recipe.attribute}", start_from)
    assert isinstance(weights, ClassifierCnn)
    config = ClassifierConfig(recipe.attribute, recipe.width)
    wanted, found = (
        {key: tuple(value.shape) for key, value in module.state_dict().items()}
        for module in (ClassifierCnn(config), weights)
    )
    if wanted != found:
        raise InvalidInputError(
            f"{start_from} has width {weights.config.width:g}, the recipe {recipe.width:g}: use --width "
            f"{weights.config.width:g}"
        )

    def make() -> nn.Module:
        network = ClassifierCnn(config)
        network.load_state_dict(weights.state_dict())
        return network

    return make


class _Run:
    """Folder and state of one classifier's folds."""

    def __init__(
        self, recipe: ClassifierRecipe, out: Path, identity: Mapping[str, Any], fabric: Fabric, resume: bool
    ) -> None:
        self.recipe, self.out, self.fabric = recipe, out, fabric
        name = recipe.attribute
        self.record, self.resume_file = out / f"training_{name}.json", out / f"resume_{name}.pt"
        self.identity = json.loads(json.dumps(identity))
        self.key = json.dumps(identity, sort_keys=True)
        self.attempts: list[dict[str, Any]] = []
        self.kept: dict[int, int] = {}  # fold -> which of its attempts
        if resume and self.record.is_file():
            self._read()
        if fabric.is_global_zero:
            for folder in (out, out / MODELS, out / LOGS):
                remove_leftovers(make_folder(folder))
            if not resume:
                for stale in (self.record, self.resume_file, *(self._best(fold) for fold in range(recipe.folds))):
                    stale.unlink(missing_ok=True)
            self._write()
        fabric.barrier()

    @property
    def pending(self) -> list[int]:
        return [fold for fold in range(self.recipe.folds) if fold not in self.kept or not self._there(fold)]

    def train_fold(
        self, fold: int, split: Split, make: Callable[[], nn.Module], examples: Examples, report: Report
    ) -> None:
        """Attempts until one succeeds; keeps its weights and logs."""
        recipe = self.recipe
        if fold in self.kept or not self._best(fold).is_file():  # what was trained is gone: again, to the same weights
            self.kept.pop(fold, None)
            self.attempts = [row for row in self.attempts if row["fold"] != fold]
        earlier = [row["losses"][row["best_epoch"]] for row in self._of(fold)]

        def attempt(number: int) -> float:
            trainer = Trainer(
                make,
                examples,
                split,
                Classification(recipe.log_threshold),
                recipe,
                purpose=(recipe.attribute, "fold", fold, "attempt", number),
                resume_file=self.resume_file,
                identity=self.key,
                fabric=self.fabric,
            )
            _, done = trainer.run(lambda row: report({"fold": fold, "attempt": number, **row}))
            if done.best_loss < min(earlier, default=float("inf")):
                self._keep(fold, done)
            earlier.append(done.best_loss)
            self.attempts.append(
                {
                    "fold": fold,
                    "success": done.best_loss <= recipe.threshold,
                    "losses": done.losses,
                    "best_epoch": done.best_epoch,
                    "seconds": done.seconds,
                }
            )
            self._write()
            trainer.forget()
            return done.best_loss

        best, _ = until_success(recipe, fold, tuple(earlier), attempt)
        self._finish(fold, best)

    def result(self, pictures: int) -> ClassifierResult:
        recipe = self.recipe
        kept = [self._of(fold)[self.kept[fold]] for fold in range(recipe.folds)]
        return ClassifierResult(
            attribute=recipe.attribute,
            folder=self.out / MODELS,
            models=tuple(self._model(fold) for fold in range(recipe.folds)),
            min_val_loss=tuple(row["losses"][row["best_epoch"]] for row in kept),
            best_epoch=tuple(row["best_epoch"] for row in kept),
            success=tuple(row["success"] for row in kept),
            attempts=tuple(len(self._of(fold)) for fold in range(recipe.folds)),
            pictures=pictures,
            seconds=sum(row["seconds"] for row in self.attempts),
        )

    def _of(self, fold: int) -> list[dict[str, Any]]:
        return [row for row in self.attempts if row["fold"] == fold]

    def _model(self, fold: int) -> Path:
        return self.out / MODELS / f"{self.recipe.model_name(fold)}.safetensors"

    def _there(self, fold: int) -> bool:
        return self._model(fold).is_file() and self._model(fold).with_suffix(".pt").is_file()

    def _best(self, fold: int) -> Path:
        return self.out / f"best_{self.recipe.attribute}_{fold}.pt"

    def _keep(self, fold: int, attempt: Attempt) -> None:
        """The best attempt of a fold so far, until the fold is done."""
        if self.fabric.is_global_zero:
            save_tensors(self._best(fold), {"state": attempt.best_state, "rows": attempt.rows})

    def _finish(self, fold: int, best: int) -> None:
        if self.fabric.is_global_zero:
            recipe, kept = self.recipe, load_tensors(self._best(fold))
            network = ClassifierCnn(ClassifierConfig(recipe.attribute, recipe.width))
            network.load_state_dict(kept["state"])
            save_tensors(self._model(fold).with_suffix(".pt"), published_state(network.eval()))
            checkpoints.save(network, self._model(fold), f"cnn-{recipe.attribute}")
            write_epoch_detail(self.out / LOGS / f"epoch_detail_{recipe.attribute}_{fold}.csv", kept["rows"])
        self.kept[fold] = best
        self._write()
        if self.fabric.is_global_zero:
            self._best(fold).unlink(missing_ok=True)
        self.fabric.barrier()

    def _write(self) -> None:
        self.attempts.sort(key=lambda row: row["fold"])  # stable: attempts of a fold stay in order
        if not self.fabric.is_global_zero:
            return
        content = {"identity": self.identity, "attempts": self.attempts, "kept": self.kept}
        write_bytes(self.record, (json.dumps(content) + "\n").encode())
        if self.attempts:
            write_train_log(self.out / LOGS / f"train_log_{self.recipe.attribute}.csv", self.attempts)

    def _read(self) -> None:
        try:
            content = json.loads(self.record.read_text())
            found = content["identity"]
            self.attempts = content["attempts"]
            self.kept = {int(fold): int(place) for fold, place in content["kept"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"{self.record} is damaged: delete it, or pass --restart") from error
        if found != self.identity:
            raise InvalidInputError(
                f"{self.out} holds a training for {self.recipe.attribute} with other "
                f"{', '.join(_different(found, self.identity))}: choose another --out, or pass --restart"
            )


def _different(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what differs; of the recipe its fields."""
    names = []
    for key in wanted:
        if found.get(key) == wanted[key]:
            continue
        before = found.get(key)
        if key == "recipe" and isinstance(before, dict):
            names += sorted(k for k in before.keys() | wanted[key].keys() if before.get(k) != wanted[key].get(k))
        else:
            names.append(key)
    return names
