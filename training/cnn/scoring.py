"""Score the pictures of a folder with trained score CNNs; join the scores with hand labels, or compare them with the
scores that were learned (docs/spec/cnn.md, sections 5 to 7).
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.base.recipe import pick
from ohlora.bundle.files import file_sha256
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, read_score_table, write_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn.ensemble import Ensemble
from ohlora.training.cnn.loop import EVALUATION_BATCH
from ohlora.training.cnn.objectives import correlation
from ohlora.training.cnn.pictures import Images, fingerprint, network_input, of_numbers, read_all, read_picture
from ohlora.training.cnn.recipes import HAIRSTYLE_COLUMNS
from ohlora.training.data.labels import read_labels
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import write_table
from ohlora.training.loop.precision import lightning_precision
from ohlora.training.nets.score_cnns import ATTRIBUTES

SAVE_SECONDS = 30.0  # of networks at work, then what is done so far is saved
# Documented names by the attributes in them.
MERGED_FILES = {
    ("gender", "quality"): "all_image_quality_and_gender.csv",
    ATTRIBUTES: "scores_all_15k.csv",
}
OTHER_MERGED_FILE = "scores_all.csv"
# Columns and documented file by the kind of CNN.
KINDS = {
    "property": (PROPERTY_COLUMNS, "all_scores_v2_cnn.csv"),
    "hairstyle": (HAIRSTYLE_COLUMNS, "all_scores_ohlora_v3_cnn.csv"),
    "merged": ((*PROPERTY_COLUMNS, *HAIRSTYLE_COLUMNS), "all_scores_merged_cnn.csv"),
}
COMPARISON = "compare/all_scores_v2_vs_cnn.csv"


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
    columns, path = [f"score_model_{k}" for k in range(len(ensemble.networks))], Path(out) / f"{attribute}.csv"
    scores, failed = infer(paths, ensemble.score, columns, path, ensemble.identity, advance)
    values = np.hstack([scores.values.mean(1, keepdims=True), scores.values])
    table = ScoreTable(scores.numbers, (final_column(attribute), *columns), values, scores.paths)
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


@dataclass(frozen=True)
class RescoreResult:
    """table: the scores. comparison, correlations: against the scores given, by column; None and empty without any.

    failed: number of a picture -> why it could not be scored.
    """

    table: Path
    pictures: int
    comparison: Path | None
    correlations: dict[str, float | None]
    failed: dict[int, str]


def rescore(
    images: Path,
    model: Path,
    out: Path,
    *,
    kind: str = "property",
    scores: Path | None = None,
    accelerator: str = "auto",
    precision: str = "fp32",
    advance: Callable[[int], None] = lambda count: None,
) -> RescoreResult:
    """Score all pictures of folder `images` with the CNN `model` of `kind`: property (7 scores), hairstyle or merged.

    Writes OUT/all_scores_v2_cnn.csv (img_no, img_path, scores; no index, 4 decimals, by number) and with `scores`,
    the table it was trained on, OUT/compare/all_scores_v2_vs_cnn.csv of the pictures that are in both. Other kinds
    have a name of their own. Evaluation mode, so without the dropout noise of the published file. The same call
    resumes after a stop. Raises InvalidInputError, CheckpointError, OutputError.
    """
    columns, file = pick(KINDS, kind, "kind of score CNN")
    path, paths = Path(out) / file, numbered_images(Path(images))
    known = None if scores is None else read_score_table(scores, columns)
    fabric = make_fabric(accelerator, precision=precision)
    network = checkpoints.load(f"cnn-{kind}", model).to(memory_format=torch.channels_last).to(fabric.device)

    @torch.inference_mode()
    def score(pictures: Images) -> NDArray[np.float64]:
        with fabric.autocast():
            output: torch.Tensor = network(network_input(pictures, fabric.device, signed=True))
        return output.double().cpu().numpy()

    identity = f"{lightning_precision(precision)} {file_sha256(model)}"
    table, failed = infer(paths, score, columns, path, identity, advance)
    write_score_table(path, table, index=False)
    if known is None:
        return RescoreResult(path, len(table), None, {}, failed)
    both = np.intersect1d(known.numbers, table.numbers)
    comparison, correlations = Path(out) / COMPARISON, {}
    make_folder(comparison.parent)
    before, after = known.rows(both), table.rows(both)
    write_comparison(comparison, before, after)
    for c, column in enumerate(columns):
        whole = ~np.isnan(before.values[:, c])
        correlations[column] = correlation(before.values[whole, c], after.values[whole, c])
    return RescoreResult(path, len(table), comparison, correlations, failed)


def write_comparison(path: Path, before: ScoreTable, after: ScoreTable) -> None:
    """img_no, img_path, then {p}_v2, {p}_v2_cnn, {p}_diff (absolute) of each score; the same pictures in both."""
    names = [column.removesuffix("_score") for column in after.columns]
    # As documented the difference is that of the rounded scores.
    first, second = np.round(before.values, 4), np.round(after.values, 4)
    cells = np.stack([first, second, np.abs(first - second)], axis=2).reshape(len(after), -1)
    rows = ([*start, *line] for *start, line in zip(after.numbers.tolist(), after.paths, cells, strict=True))
    write_table(
        path, ["img_no", "img_path", *(f"{n}_{part}" for n in names for part in ("v2", "v2_cnn", "diff"))], rows
    )


def infer(
    paths: Mapping[int, Path],
    score: Callable[[Images], NDArray[np.float64]],
    columns: Sequence[str],
    table: Path,
    identity: str,
    advance: Callable[[int], None],
) -> tuple[ScoreTable, dict[int, str]]:
    """score(uint8 [n,256,256,3]) -> [n, columns] over all pictures, in the order of `paths`.

    Returns the scores of what could be read, and number -> why not for the rest; the same whether it was interrupted or
    not. table: the file they are for; beside it, TABLE.state.npz has what is done so far. It is kept, so that the same
    call is answered from it. identity: of the networks. Groups of pictures are always cut at the same places, since a
    network's last digits depend on its batch. Raises OutputError.
    """
    remove_leftovers(make_folder(table.parent))
    state = table.with_suffix(".state.npz")
    present = {number: path for number, path in paths.items() if path.is_file()}
    key = json.dumps([identity, fingerprint(present), len(paths), len(columns), EVALUATION_BATCH])
    numbers, values, failed = _load(state, key, len(columns))
    done, saved = len(numbers) + len(failed), time.monotonic()
    advance(done)
    todo = list(paths.items())
    for start in range(done, len(todo), EVALUATION_BATCH):
        group = todo[start : start + EVALUATION_BATCH]
        good, images = _read(group, failed)
        if good:
            numbers += good
            values = np.concatenate([values, score(images)])
        advance(len(group))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(state, key, numbers, values, failed)
            saved = time.monotonic()
    _save(state, key, numbers, values, failed)
    names = tuple(str(paths[number]) for number in numbers)
    return ScoreTable(np.array(numbers, np.int64), tuple(columns), values, names), failed


def _read(group: list[tuple[int, Path]], failed: dict[int, str]) -> tuple[list[int], Images]:
    try:
        return [number for number, _ in group], read_all([path for _, path in group])
    except ImageError:
        pass  # one of them: find out which
    good, images = [], []
    for number, path in group:
        try:
            images.append(read_picture(path))
            good.append(number)
        except ImageError as error:
            failed[number] = str(error)
    return good, np.array(images, np.uint8)


def _save(state: Path, key: str, numbers: list[int], values: NDArray[np.float64], failed: dict[int, str]) -> None:
    data = io.BytesIO()
    about = json.dumps({"key": key, "failed": failed})
    np.savez(data, numbers=np.array(numbers, np.int64), values=values, about=np.array(about))
    write_bytes(state, data.getvalue())


def _load(state: Path, key: str, columns: int) -> tuple[list[int], NDArray[np.float64], dict[int, str]]:
    """What an interrupted call left; nothing when it was about other pictures or networks, or is damaged."""
    try:
        with np.load(state) as file:
            about = json.loads(str(file["about"]))
            numbers, values = file["numbers"].tolist(), file["values"].reshape(-1, columns)
        if about["key"] == key and len(numbers) == len(values):
            return numbers, values, {int(number): str(why) for number, why in about["failed"].items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        pass
    return [], np.empty((0, columns)), {}
