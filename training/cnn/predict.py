"""Score pictures with trained classifiers, and join the predictions with the hand labels
(docs/spec/cnn.md, sections 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import ScoreTable, read_score_table, write_score_table
from ohlora.training.cnn.ensemble import Ensemble
from ohlora.training.cnn.inference import infer
from ohlora.training.cnn.pictures import of_numbers
from ohlora.training.data.labels import read_labels
from ohlora.training.nets.score_cnns import ATTRIBUTES

# Documented names by the attributes in them.
MERGED_FILES = {
    ("gender", "quality"): "all_image_quality_and_gender.csv",
    ATTRIBUTES: "scores_all_15k.csv",
}
OTHER_MERGED_FILE = "scores_all.csv"


@dataclass(frozen=True)
class PredictResult:
    """table: {attribute}.csv. pictures: rows in it. failed: number of a picture -> why it could not be scored."""

    attribute: str
    table: Path
    pictures: int
    failed: dict[int, str]


def predict(
    attribute: str,
    images: Path,
    models: Path,
    out: Path,
    *,
    labels: Path | None = None,
    accelerator: str = "auto",
    precision: str = "fp32",
    advance: Callable[[int], None] = lambda count: None,
) -> PredictResult:
    """Score the pictures of folder `images` with all models of `attribute` in folder `models`.

    Writes OUT/{attribute}.csv: img_no, img_path, property_{attribute}_final_score (mean of the models, taken before
    rounding), score_model_0 ..., 4 decimals. labels: a label table whose pictures are left out, as documented. The
    same call goes on where a stopped one ended (OUT/{attribute}.state.npz). Raises InvalidInputError, CheckpointError,
    OutputError; a picture that cannot be read is reported instead.
    """
    paths = numbered_images(Path(images))
    if labels is not None:
        known = {int(number) for number in read_labels(labels).numbers}
        paths = {number: path for number, path in paths.items() if number not in known}
        if not paths:
            raise InvalidInputError(f"every picture in {images} has a label in {labels}: there is nothing to predict")
    ensemble = Ensemble.load(models, attribute, accelerator=accelerator, precision=precision)
    remove_leftovers(make_folder(out))
    columns = [f"score_model_{k}" for k in range(len(ensemble.networks))]
    state = Path(out) / f"{attribute}.state.npz"
    scores, failed = infer(paths, ensemble.score, columns, state, ensemble.identity, advance=advance)
    values = np.hstack([scores.values.mean(1, keepdims=True), scores.values])
    table = ScoreTable(scores.numbers, (final_column(attribute), *columns), values, scores.paths)
    path = Path(out) / f"{attribute}.csv"
    write_score_table(path, table, index=False)
    return PredictResult(attribute, path, len(table), failed)


def final_column(attribute: str) -> str:
    return f"property_{attribute}_final_score"


def merge(images: Path, predictions: Mapping[str, Path], out: Path, *, labels: Path | None = None) -> Path:
    """One table of all pictures: the hand label where there is one, the predicted score elsewhere.

    predictions: attribute -> its table of `predict`. out: the file, or a folder for the documented name
    (all_image_quality_and_gender.csv or scores_all_15k.csv). Columns: index, img_no, img_path, {attribute}_score. A
    picture without a score of some attribute has an empty cell. Raises InvalidInputError for tables of other pictures
    or attributes, OutputError.
    """
    attributes = tuple(name for name in ATTRIBUTES if name in predictions)
    unknown = sorted(predictions.keys() - set(attributes))
    if unknown or not attributes:
        raise InvalidInputError(
            f"cannot merge scores of '{', '.join(unknown)}': attributes are {', '.join(ATTRIBUTES)}"
        )
    paths = numbered_images(Path(images))
    numbers = np.array(list(paths), np.int64)  # rising
    values = np.full((len(paths), len(attributes)), np.nan)
    hand = None if labels is None else read_labels(labels)
    for column, attribute in enumerate(attributes):
        table = read_score_table(predictions[attribute], (final_column(attribute),))
        of_numbers(paths, table.numbers, f"rows of {predictions[attribute]}", Path(images))
        values[np.searchsorted(numbers, table.numbers), column] = table.values[:, 0]
        if hand is not None:
            of_numbers(paths, hand.numbers, "labels", Path(images))
            values[np.searchsorted(numbers, hand.numbers), column] = hand.of(attribute)
    columns = tuple(f"{attribute}_score" for attribute in attributes)
    path = Path(out)
    if path.suffix not in (".csv", ".gz"):
        path = make_folder(path) / MERGED_FILES.get(attributes, OTHER_MERGED_FILE)
    write_score_table(path, ScoreTable(numbers, columns, values, tuple(map(str, paths.values()))))
    return path
