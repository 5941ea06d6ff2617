"""Score pictures with trained classifiers, and join the predictions with the hand labels
(docs/spec/cnn.md, sections 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    count = len(ensemble.networks)
    state = Path(out) / f"{attribute}.state.npz"
    done = infer(paths, ensemble.score, count, state, ensemble.identity, advance=advance)
    columns = (final_column(attribute), *(f"score_model_{k}" for k in range(count)))
    mean = done.values.mean(1, keepdims=True) if len(done.values) else np.empty((0, 1))
    table = ScoreTable(
        done.numbers, columns, np.hstack([mean, done.values]), tuple(str(paths[int(n)]) for n in done.numbers)
    )
    path = Path(out) / f"{attribute}.csv"
    write_score_table(path, table, index=False)
    return PredictResult(attribute, path, len(table), done.failed)


def final_column(attribute: str) -> str:
    return f"property_{attribute}_final_score"


def merge(
    images: Path,
    predictions: Mapping[str, Path],
    out: Path,
    *,
    labels: Path | None = None,
) -> Path:
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
    place = {number: row for row, number in enumerate(paths)}
    values = np.full((len(paths), len(attributes)), np.nan)
    for column, attribute in enumerate(attributes):
        table = read_score_table(predictions[attribute], (final_column(attribute),))
        of_numbers(paths, table.numbers, f"rows of {predictions[attribute]}", Path(images))
        values[[place[int(number)] for number in table.numbers], column] = table.values[:, 0]
    if labels is not None:
        hand = read_labels(labels)
        of_numbers(paths, hand.numbers, "labels", Path(images))
        rows = [place[int(number)] for number in hand.numbers]
        for column, attribute in enumerate(attributes):
            values[rows, column] = hand.of(attribute)
    table = ScoreTable(
        np.array(list(paths), np.int64),
        tuple(f"{attribute}_score" for attribute in attributes),
        values,
        tuple(map(str, paths.values())),
    )
    path = Path(out)
    if path.suffix not in (".csv", ".gz"):
        path = make_folder(path) / merged_file(attributes)
    write_score_table(path, table)
    return path


def merged_file(attributes: Sequence[str]) -> str:
    """The documented file name of a merged table of these attributes."""
    return MERGED_FILES.get(tuple(attributes), OTHER_MERGED_FILE)
