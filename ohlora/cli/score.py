"""`ohlora score`: property scores of pictures, as tables in the published layout and a summary page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.progress import Progress
from ohlora.cli.report import Results, note
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from ohlora.scores.result import ScoreResult

SHOWN_NUMBERS = 8


@options.grouped
def score(
    sources: Annotated[
        list[Path] | None,
        Argument(help="Pictures or folders of them. With --parsing they may be left out."),
    ] = None,
    parsing: Annotated[
        Path | None, Option(help="Folder of `ohlora train parse`: parsing_*.png and face_*.png.")
    ] = None,
    bundle: Annotated[
        str | None, Option("--bundle", "-b", help="Bundle with a face parser, which makes the class maps.")
    ] = None,
    algorithm: Annotated[
        list[str] | None, Option("--algorithm", "-a", help="v1, v2 (default), hairstyle or all. Repeatable.")
    ] = None,
    apply: Annotated[
        list[Path] | None, Option(help="NAME_stats.csv of another run: normalise with its figures. Repeatable.")
    ] = None,
    ddof: Annotated[int, Option(min=0, max=1, help="1 as in published tables, 0 as in the documents' example.")] = 1,
    strict_hairstyle: Annotated[
        bool, Option("--strict-hairstyle", help="Whole blocks must be hair, as documented, not eight pixels.")
    ] = False,
    variant: Annotated[
        str, Option(help="With --bundle: crop (the largest face with its margin) or full-frame.")
    ] = "crop",
    recursive: options.Recursive = False,
    backend: options.Backend = "auto",
    threads: Annotated[int | None, Option(min=1, help="Pictures at once; default: usable cores.")] = None,
    told: Results = Results(out=Path("scores")),
) -> None:
    """Score eyes, hair, mouth, pose and background of portraits from their class maps.

    Writes normalised scores (all_scores_v2.csv ...), raw ones (*_raw.csv), the figures between the two (*_stats.csv),
    and a summary (scores.html, scores.png).

    Example: `ohlora score --parsing data/parsed --algorithm all --out scores`

    Example: `ohlora score photos --bundle ./my-bundle --apply scores/all_scores_v2_stats.csv`
    """
    from concurrent.futures import ThreadPoolExecutor

    from ohlora.engines import usable_cores
    from ohlora.kernels.properties import ALGORITHMS
    from ohlora.scores import score_folder, score_pictures
    from ohlora.scores.sources import BundlePictures, number_pictures, read_index

    chosen = list(ALGORITHMS) if "all" in (algorithm or []) else algorithm or ["v2"]
    if (parsing is None) == (bundle is None):
        raise InvalidInputError(
            "say where class maps come from, once: --parsing FOLDER (made by `ohlora train parse`) or --bundle BUNDLE "
            "(one with a face parser, made by `ohlora bundle build --parsing ...`)"
        )
    with Progress(0, "pictures") as progress, ExitStack() as stack:

        def started(count: int) -> None:
            progress.total = count

        settings: dict[str, Any] = {
            "apply": apply or [],
            "ddof": ddof,
            "strict_hairstyle": strict_hairstyle,
            "threads": threads,
            "started": started,
            "advance": progress.advance,
        }
        if parsing is not None:
            listed = _pictures(sources, recursive, told.out) if sources else None
            pictures = None if listed is None else number_pictures(listed, read_index(parsing))
            result = score_folder(parsing, told.out, chosen, pictures=pictures, **settings)
        else:
            paths = number_pictures(_pictures(sources, recursive, told.out))
            renderer = stack.enter_context(options.Engines(bundle or "", backend, threads=threads).renderer())
            pool = stack.enter_context(ThreadPoolExecutor(threads or usable_cores()))
            result = score_pictures(BundlePictures(renderer, paths, pool, variant), told.out, chosen, **settings)
    summarise(told, result, progress.seconds)


def _pictures(sources: Sequence[Path] | None, recursive: bool, out: Path) -> list[Path]:
    from ohlora.cli.sources import without
    from ohlora.io.images import list_images

    return without(list_images(sources or [], recursive), out)


def summarise(told: Results, result: ScoreResult, seconds: float) -> NoReturn:
    """Print what happened; raises typer.Exit with 1 when pictures were left out."""
    missing = result.missing()
    figures = {
        algorithm: {
            column: {
                "mean": None if math.isnan(used.mean[i]) else float(used.mean[i]),
                "std": None if math.isnan(used.std[i]) else float(used.std[i]),
                "count": int(used.counts[i]),
            }
            for i, column in enumerate(used.columns)
        }
        for algorithm, used in result.statistics.items()
    }
    summary = {
        "out": str(told.out),
        "pictures": result.pictures,
        "scored": result.scored,
        "failed": len(result.failures),
        "seconds": round(seconds, 3),
        "statistics": figures,
        "missing": missing,
        "without_spread": result.without_spread(),
        "files": {name: str(path) for name, path in result.files.items()},
        "failures": result.failures,
    }
    for algorithm, columns in missing.items() if not told.json else ():
        for column, numbers in columns.items():
            named = ", ".join(map(str, numbers[:SHOWN_NUMBERS])) + (" ..." if len(numbers) > SHOWN_NUMBERS else "")
            note(f"{algorithm} {column}: no score for {len(numbers)} pictures ({named})")
    for algorithm, names in result.without_spread().items() if not told.json else ():
        note(f"{algorithm} {', '.join(names)}: no deviation, so normalised scores are left empty")
    parts = [f"{result.scored} pictures scored in {seconds:.1f} s -> {told.out / 'scores.html'}"]
    parts += [f"{len(result.failures)} left out"] if result.failures else []
    told.end(summary, [row["error"] for row in result.failures], "; ".join(parts))
