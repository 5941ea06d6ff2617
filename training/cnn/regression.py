"""Train the property CNN and the hairstyle CNN on scores of pictures; assemble the merged one
(docs/spec/cnn.md, sections 7, 9 and 10).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from torch import nn

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import ScoreTable, read_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn.folds import split_once
from ohlora.training.cnn.logs import write_score_log, write_validation_log
from ohlora.training.cnn.loop import Examples, Report, Trainer, save_tensors
from ohlora.training.cnn.objectives import VALIDATION_SHOWN, Regression
from ohlora.training.cnn.pictures import fingerprint, load_pictures, of_numbers
from ohlora.training.cnn.recipes import ScoreCnnRecipe, score_cnn_recipe
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.nets.score_cnns import HairstyleCnn, MergedCnn, PropertyCnn
from ohlora.training.weights.published import published_state
from ohlora.training.weights.score_cnns_keys import ScoreCnn, make

MERGED_FILE = "ohlora_v3_merged_property_cnn.pth"
SHOWN = 5
RESULT, RESUME = "training_{}.json", "resume_{}.pt"


@dataclass(frozen=True)
class ScoreCnnResult:
    """What was trained. model: .safetensors; published: the same in the published layout.

    loss: the validation loss that chose the best epoch. figures: all of that epoch's log row. pictures: used;
    dropped: without a score; without_row: pictures of the folder that the table does not know.
    """

    name: str
    model: Path
    published: Path
    loss: float
    best_epoch: int
    epochs: int
    figures: dict[str, float | None]
    pictures: int
    dropped: int
    without_row: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "model": str(self.model), "published": str(self.published)}


def train_property_cnn(
    images: Path, scores: Path, out: Path, settings: ScoreCnnRecipe | None = None, **options: Any
) -> ScoreCnnResult:
    """The seven-output CNN: `train_score_cnn` with the documented recipe."""
    return train_score_cnn(images, scores, out, settings or score_cnn_recipe("property"), **options)


def train_hairstyle_cnn(
    images: Path, scores: Path, out: Path, settings: ScoreCnnRecipe | None = None, **options: Any
) -> ScoreCnnResult:
    """The hairstyle CNN: `train_score_cnn` with the documented recipe."""
    return train_score_cnn(images, scores, out, settings or score_cnn_recipe("hairstyle"), **options)


def train_score_cnn(
    images: Path,
    scores: Path,
    out: Path,
    recipe: ScoreCnnRecipe,
    *,
    resume: bool = True,
    fabric: Fabric | None = None,
    report: Report = lambda row: None,
    note: Callable[[str], None] = lambda text: None,
) -> ScoreCnnResult:
    """Train on the pictures of folder `images` that the score table `scores` has a row for, in folder `out`.

    Writes the documented weights file and logs, the weights as .safetensors, and training_NAME.json. The same call
    goes on after the last epoch of a stopped one, to the same weights, and returns at once when it is done.

    fabric: a launched one, default one process. report: gets a row per epoch. Raises InvalidInputError for scores of
    other pictures, for empty cells (unless recipe.missing is "drop"), and for another run's folder; OhloraError for a
    loss that is no number.
    """
    out, folder = Path(out), Path(images)
    table = read_score_table(scores, recipe.columns)
    found = numbered_images(folder)
    of_numbers(found, table.numbers, f"rows of {scores}", folder)
    complete = _complete(table, scores, recipe)
    dropped, without_row = len(table) - len(complete), len(found) - len(table)
    paths = of_numbers(found, complete.numbers, f"rows of {scores}", folder)
    split = split_once(recipe.name, len(complete), recipe.train_share, recipe.seed)
    fabric = fabric or make_fabric(precision=recipe.precision)
    identity = {
        "recipe": recipe.identity(),
        "pictures": fingerprint(paths),
        "scores": hashlib.sha256(complete.values.tobytes()).hexdigest()[:16],
        "processes": fabric.world_size,
    }
    record = out / RESULT.format(recipe.name)
    model = out / Path(recipe.weights_file).with_suffix(".safetensors").name
    done = _read_result(record, identity, resume)
    published = out / recipe.weights_file
    if done is None or not (model.is_file() and published.is_file()):
        if fabric.is_global_zero:
            remove_leftovers(make_folder(out))
            if not resume:
                for stale in (record, out / RESUME.format(recipe.name)):
                    stale.unlink(missing_ok=True)
            write_bytes(record, (json.dumps({"identity": identity, "result": None}) + "\n").encode())
        fabric.barrier()
        if without_row:
            note(f"{without_row} of {len(found)} pictures have no row in {scores}: not used")
        if dropped:
            note(f"{dropped} pictures have an empty cell in {scores}: dropped")
        trainer = Trainer(
            lambda: make(recipe.name, recipe.width),
            Examples(load_pictures(paths, out, fabric, note), complete.values.astype(np.float32)),
            split,
            Regression(recipe.columns, recipe.excluded, recipe.excluded_log_name),
            recipe,
            purpose=(recipe.name,),
            resume_file=out / RESUME.format(recipe.name),
            identity=json.dumps(identity, sort_keys=True),
            fabric=fabric,
        )
        network, attempt = trainer.run(report)
        done = {
            "loss": attempt.best_loss,
            "best_epoch": attempt.best_epoch,
            "epochs": len(attempt.losses),
            "figures": attempt.rows[attempt.best_epoch],
            "seconds": round(attempt.seconds, 2),
        }
        if fabric.is_global_zero:
            shown = split.validation[:VALIDATION_SHOWN]
            files = list(paths.values())
            write_score_log(out / recipe.log_file, attempt)
            write_validation_log(
                out / recipe.validation_log_file,
                attempt,
                recipe.columns,
                [files[row] for row in shown],
                complete.values[shown].astype(np.float32),
            )
            save_network(network, published, model, f"cnn-{recipe.name}")
            write_bytes(record, (json.dumps({"identity": identity, "result": done}) + "\n").encode())
        trainer.forget()
        fabric.barrier()
    return ScoreCnnResult(
        name=recipe.name,
        model=model,
        published=published,
        pictures=len(complete),
        dropped=dropped,
        without_row=without_row,
        **done,
    )


def merge_cnns(properties: Path, hairstyle: Path, out: Path) -> Path:
    """The eight-output CNN from the two checkpoints: OUT/ohlora_v3_merged_property_cnn.pth and .safetensors.

    Returns the .safetensors. Raises CheckpointError when one is of another kind, OutputError.
    """
    first, second = checkpoints.load("cnn-property", properties), checkpoints.load("cnn-hairstyle", hairstyle)
    assert isinstance(first, PropertyCnn)
    assert isinstance(second, HairstyleCnn)
    published = make_folder(out) / MERGED_FILE
    model = published.with_suffix(".safetensors")
    save_network(MergedCnn(first, second), published, model, "cnn-merged")
    return model


def save_network(network: nn.Module, published: Path, own: Path, kind: str) -> None:
    """A score CNN in the published layout and as our own file."""
    assert isinstance(network, ScoreCnn)
    state = {key: value.detach().cpu().contiguous() for key, value in published_state(network).items()}
    save_tensors(published, state)
    checkpoints.save(network, own, kind)


def _complete(table: ScoreTable, path: Path, recipe: ScoreCnnRecipe) -> ScoreTable:
    """The rows without an empty cell. Raises InvalidInputError naming the others where they are not to be dropped."""
    whole = ~np.isnan(table.values).any(1)
    if whole.all():
        return table
    missing = table.numbers[~whole]
    if recipe.missing == "error":
        shown = ", ".join(map(str, missing[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
        raise InvalidInputError(
            f"{len(missing)} of {len(table)} pictures have an empty cell in {path}: number {shown}. Score them again, "
            "or train without them (--missing drop)"
        )
    if not whole.any():
        raise InvalidInputError(f"every row of {path} has an empty cell: there is nothing to train on")
    return table.rows(table.numbers[whole])


def _read_result(record: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """What a finished call recorded. Raises InvalidInputError when the folder is another run's."""
    if not resume or not record.is_file():
        return None
    try:
        content = json.loads(record.read_text())
        found, result = content["identity"], content["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{record} is damaged: delete it, or pass --restart") from error
    wanted = json.loads(json.dumps(identity))
    if found != wanted:
        names = [key for key in wanted if key != "recipe" and found.get(key) != wanted[key]]
        names += [key for key, value in wanted["recipe"].items() if found.get("recipe", {}).get(key) != value]
        raise InvalidInputError(
            f"{record.parent} holds a training with other {', '.join(names)}: choose another --out, or pass --restart"
        )
    assert result is None or isinstance(result, dict)
    return result
