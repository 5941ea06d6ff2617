"""Score pictures: class maps and faces in, published tables, figures and a summary page out (docs/scores.md).

Of each algorithm three tables: NAME.csv (normalised, 4 decimals), NAME_raw.csv (every digit) and NAME_stats.csv (the
mean and deviation between the two), and of all together scores.html and scores.png.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.base.types import Algorithm, check_choice
from ohlora.engines import usable_cores
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.kernels.properties import ALGORITHMS, score
from ohlora.scores.result import ScoreResult
from ohlora.scores.sources import ParsedFolder, ScoreInputs, ScoreItem, ScoreSource
from ohlora.scores.statistics import ScoreStatistics, measure, read_statistics, score_columns, write_statistics
from ohlora.scores.table import ScoreTable, write_score_table

if TYPE_CHECKING:
    from typing_extensions import Unpack

NAMES = {"v1": "all_scores", "v2": "all_scores_v2", "hairstyle": "all_scores_hairstyle"}
CHUNK = 128  # pictures in memory at once: 128 * 350 KB


class ScoreOptions(TypedDict, total=False):
    """The rarer options of `score_pictures`."""

    apply: Sequence[Path]
    ddof: int
    strict_hairstyle: bool
    report: bool
    started: Callable[[int], None]
    advance: Callable[[int], None]


def score_folder(
    parsing: Path,
    out: Path,
    algorithms: Sequence[str] = ("v2",),
    *,
    pictures: Path | Mapping[int, Path] | None = None,
    threads: int | None = None,
    **options: Unpack[ScoreOptions],
) -> ScoreResult:
    """Score a folder of `ohlora train parse` and write tables and summary into `out`.

    pictures: the source pictures, a folder or by number; their numbers are then what is scored, and v1 is computed on
    them. Without: every map of the folder, v1 on the sources that parse.jsonl names. Other arguments as for
    `score_pictures`. Raises InvalidInputError, before anything is written, for a folder without maps and as that does.
    """
    given = numbered_images(pictures) if isinstance(pictures, Path) else pictures
    with ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="ohlora-read") as pool:
        source = ParsedFolder(Path(parsing), pool, given)
        if "v1" in algorithms and not source.sources:
            raise InvalidInputError(
                f"v1 is computed on source pictures, and {parsing} has no parse.jsonl: name the pictures"
            )
        return score_pictures(source, out, algorithms, threads=threads, **options)


def score_pictures(
    source: ScoreSource,
    out: Path,
    algorithms: Sequence[str] = ("v2",),
    *,
    threads: int | None = None,
    apply: Sequence[Path] = (),
    ddof: int = 1,
    strict_hairstyle: bool = False,
    report: bool = True,
    started: Callable[[int], None] = lambda count: None,
    advance: Callable[[int], None] = lambda count: None,
) -> ScoreResult:
    """Score every picture of a source, CHUNK at a time; one that fails is listed and the others go on.

    apply: NAME_stats.csv files of an earlier run, at most one an algorithm, to normalise with instead of this run's
    own figures. ddof: of the own ones. report: also write scores.html and scores.png.
    Raises InvalidInputError for unknown algorithms and figures of algorithms that are not computed, and when no picture
    at all could be scored; OutputError when `out` cannot be written.
    """
    if not algorithms:
        raise InvalidInputError(f"no algorithm named: choose from {', '.join(NAMES)}")
    columns = {check_choice("algorithm", algorithm, ALGORITHMS): score_columns(algorithm) for algorithm in algorithms}
    if strict_hairstyle and "hairstyle" not in algorithms:
        raise InvalidInputError(
            "strict hairstyle was asked for without the algorithm hairstyle: add it or leave this out"
        )
    if ddof not in (0, 1):
        raise InvalidInputError(f"ddof must be 0 or 1, got {ddof}")
    lent = _lent_statistics(apply, columns)
    make_folder(out)  # before the work, since it may be refused
    started(len(source.items))
    face, original = bool(columns.keys() - {"v1"}), "v1" in columns
    kept: list[ScoreItem] = []
    result = ScoreResult(len(source.items), {})
    rows: dict[Algorithm, list[NDArray[np.float64]]] = {algorithm: [] for algorithm in columns}
    for begin in range(0, len(source.items), CHUNK):
        items = source.items[begin : begin + CHUNK]
        good: list[ScoreInputs] = []
        for item, entry in zip(items, source.read(items, face=face, original=original), strict=True):
            if isinstance(entry, ImageError):
                result.failures.append({"number": item.number, "path": item.path, "error": str(entry)})
            else:
                good.append(entry)
                kept.append(item)
        if good:
            for algorithm, scored in rows.items():
                scored.append(_scored(good, algorithm, strict_hairstyle, threads))
        advance(len(items))
    if not kept:
        first = result.failures[0]["error"] if result.failures else "there is none"
        raise InvalidInputError(f"none of {len(source.items)} pictures could be scored; the first: {first}")
    numbers, paths = np.array([item.number for item in kept], np.int64), tuple(item.path for item in kept)
    for algorithm, names in columns.items():
        table = ScoreTable(numbers, names, np.concatenate(rows[algorithm]), paths)
        result.raw[algorithm] = table
        result.statistics[algorithm] = lent.get(algorithm) or measure(algorithm, table, ddof)
        result.normalized[algorithm] = result.statistics[algorithm].normalized(table)
    write_scores(out, result, source if report else None)
    return result


def write_scores(out: Path, result: ScoreResult, source: ScoreSource | None) -> None:
    """Tables, and with a source to take pictures from the summary page. Fills `result.files`."""
    remove_leftovers(out)
    for algorithm, name in NAMES.items():
        if algorithm not in result.raw:
            continue
        paths = {key: out / f"{key}.csv" for key in (name, f"{name}_raw", f"{name}_stats")}
        write_score_table(paths[f"{name}_raw"], result.raw[algorithm], decimals=None)
        write_statistics(paths[f"{name}_stats"], result.statistics[algorithm])
        write_score_table(paths[name], result.normalized[algorithm])
        result.files |= paths
    if source is not None:
        # Pillow's fonts are of no use to those who only want tables.
        from ohlora.scores.report import write_report

        result.files |= write_report(out, result, source)


def _scored(
    inputs: Sequence[ScoreInputs], algorithm: Algorithm, strict: bool, threads: int | None
) -> NDArray[np.float64]:
    images = [entry.original if algorithm == "v1" else entry.face for entry in inputs]
    return score(
        np.stack([entry.parsing for entry in inputs]),
        np.stack([image for image in images if image is not None]),
        algorithm=algorithm,
        threads=threads,
        strict_hairstyle=strict and algorithm == "hairstyle",
    )


def _lent_statistics(paths: Sequence[Path], algorithms: Collection[str]) -> dict[str, ScoreStatistics]:
    lent: dict[str, ScoreStatistics] = {}
    for path in paths:
        figures = read_statistics(path)
        if figures.algorithm not in algorithms:
            raise InvalidInputError(f"{path} has the figures of {figures.algorithm}, which is not asked for")
        if figures.algorithm in lent:
            raise InvalidInputError(f"{path}: figures of {figures.algorithm} are given twice")
        lent[figures.algorithm] = figures
    return lent
