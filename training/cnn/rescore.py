"""Scores of pictures by a trained score CNN, and how far they are from the scores it learned
(docs/spec/cnn.md, section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.base.recipe import pick
from ohlora.bundle.files import file_sha256
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, read_score_table, write_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn.inference import infer
from ohlora.training.cnn.objectives import correlation
from ohlora.training.cnn.pictures import Images, network_input
from ohlora.training.cnn.recipes import HAIRSTYLE_COLUMNS
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import write_table
from ohlora.training.loop.precision import lightning_precision

# Columns and documented file by the kind of CNN.
KINDS = {
    "property": (PROPERTY_COLUMNS, "all_scores_v2_cnn.csv"),
    "hairstyle": (HAIRSTYLE_COLUMNS, "all_scores_ohlora_v3_cnn.csv"),
    "merged": ((*PROPERTY_COLUMNS, *HAIRSTYLE_COLUMNS), "all_scores_merged_cnn.csv"),
}
COMPARISON = "compare/all_scores_v2_vs_cnn.csv"


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
    path = Path(out) / file
    paths = numbered_images(Path(images))
    known = None if scores is None else read_score_table(scores, columns)
    fabric = make_fabric(accelerator, precision=precision)
    network = checkpoints.load(f"cnn-{kind}", model).to(memory_format=torch.channels_last).to(fabric.device)

    @torch.inference_mode()
    def score(pictures: Images) -> NDArray[np.float64]:
        with fabric.autocast():
            output: torch.Tensor = network(network_input(pictures, fabric.device, signed=True))
        return output.double().cpu().numpy()

    remove_leftovers(make_folder(out))
    identity = f"{lightning_precision(precision)} {file_sha256(model)}"
    table, failed = infer(paths, score, columns, path.with_suffix(".state.npz"), identity, advance=advance)
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
