"""Train the property CNN and the hairstyle CNN on scores of pictures; assemble the merged one
(docs/spec/cnn.md, sections 7, 9 and 10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric

from ohlora.base.atomic import make_folder
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import ScoreTable, read_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn.folds import split_once
from ohlora.training.cnn.logs import write_epochs, write_validation_log
from ohlora.training.cnn.loop import Attempt, CnnRun, Examples, Report, save_network
from ohlora.training.cnn.objectives import VALIDATION_SHOWN, Regression
from ohlora.training.cnn.pictures import first_of, load_pictures, of_numbers
from ohlora.training.cnn.recipes import ScoreCnnRecipe
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.nets.score_cnns import HairstyleCnn, MergedCnn, PropertyCnn
from ohlora.training.weights.score_cnns_keys import make

MERGED_FILE = "ohlora_v3_merged_property_cnn.pth"


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
    resumes after the last epoch of a stopped one, to the same weights, and returns at once when it is done.

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
    parts = {"scores": hashlib.sha256(complete.values.tobytes()).hexdigest()[:16]}
    run = CnnRun(recipe.name, out, recipe, paths, parts, fabric, resume)
    published = out / recipe.weights_file
    model = published.with_suffix(".safetensors")
    done: dict[str, Any] | None = run.recorded(lambda content: content["result"])
    if done is None or not (model.is_file() and published.is_file()):
        with run:
            run.write_record(result=None)
            if without_row:
                note(f"{without_row} of {len(found)} pictures have no row in {scores}: not used")
            if dropped:
                note(f"{dropped} pictures have an empty cell in {scores}: dropped")
            targets = complete.values.astype(np.float32)
            attempt = Attempt(
                lambda: make(recipe.name, recipe.width),
                Examples(load_pictures(paths, out, fabric, note), targets),
                split,
                Regression(recipe.columns, recipe.excluded, recipe.excluded_log_name),
                recipe,
                purpose=(recipe.name,),
                folder=run,
            )
            network, state = attempt.run(report), attempt.state
            done = {
                "loss": state.best,
                "best_epoch": state.best_epoch,
                "epochs": state.epoch,
                "figures": attempt.figures[state.best_epoch],
                "seconds": round(state.seconds, 2),
            }
            if run.writes:
                shown = split.validation[:VALIDATION_SHOWN]
                pictures, outputs = list(paths.values()), [row["outputs"] for row in state.log]
                write_epochs(out / recipe.log_file, attempt.figures, decimals=4)
                write_validation_log(
                    out / recipe.validation_log_file,
                    outputs,
                    recipe.columns,
                    [pictures[row] for row in shown],
                    targets[shown],
                )
                save_network(network, published, model, f"cnn-{recipe.name}")
            run.write_record(result=done)
            run.forget()
            fabric.barrier()
    done |= {"pictures": len(complete), "dropped": dropped, "without_row": without_row}
    return ScoreCnnResult(name=recipe.name, model=model, published=published, **done)


def merge_cnns(properties: Path, hairstyle: Path, out: Path) -> Path:
    """The eight-output CNN from the two checkpoints: OUT/ohlora_v3_merged_property_cnn.pth and .safetensors.

    out: a folder, or the file itself where the name ends in .safetensors or .pth; the other layout lies beside it.
    Returns the .safetensors. Raises CheckpointError when one is of another kind, OutputError.
    """
    first = checkpoints.load_as(PropertyCnn, "cnn-property", properties)
    second = checkpoints.load_as(HairstyleCnn, "cnn-hairstyle", hairstyle)
    out = Path(out)
    published = out.with_suffix(".pth") if out.suffix in (".safetensors", ".pth") else out / MERGED_FILE
    make_folder(published.parent)
    model = published.with_suffix(".safetensors")
    save_network(MergedCnn(first, second), published, model, "cnn-merged")
    return model


def _complete(table: ScoreTable, path: Path, recipe: ScoreCnnRecipe) -> ScoreTable:
    """The rows without an empty cell. Raises InvalidInputError naming the others where they are not to be dropped."""
    whole = ~np.isnan(table.values).any(1)
    if whole.all():
        return table
    missing = table.numbers[~whole]
    if recipe.missing == "error":
        raise InvalidInputError(
            f"{len(missing)} of {len(table)} pictures have an empty cell in {path}: number {first_of(missing)}. Score "
            "them again, or train without them (--missing drop)"
        )
    if not whole.any():
        raise InvalidInputError(f"every row of {path} has an empty cell: there is nothing to train on")
    return table.rows(table.numbers[whole])
