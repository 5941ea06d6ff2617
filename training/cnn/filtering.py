"""Keep the pictures whose scores pass, and say which rule sends how many away (docs/spec/cnn.md, sections 5 and 6)."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers
from ohlora.base.reading import read_file, why_not
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import SUFFIXES
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import ScoreTable, read_score_table, write_score_table
from ohlora.training.cnn.pictures import of_numbers
from ohlora.training.cnn.recipes import FilterRecipe
from ohlora.training.data.labels import read_labels

LIST = "filtered.csv"
BELOW, LABELLED, NO_SCORE = "number below {}", "labelled by hand", "no score"


@dataclass(frozen=True)
class Selection:
    """kept: bool [N], a row each. rejects: rule -> how many fail it. only: how many fail it and nothing else."""

    kept: NDArray[np.bool_]
    rejects: dict[str, int]
    only: dict[str, int]


@dataclass(frozen=True)
class FilterResult:
    """table: the list of kept pictures (OUT/filtered.csv). copied: now; there: from an earlier call."""

    folder: Path
    table: Path
    pictures: int
    kept: int
    copied: int
    there: int
    rejects: dict[str, int]
    only: dict[str, int]


def select(table: ScoreTable, recipe: FilterRecipe, labelled: NDArray[np.int64] | None = None) -> Selection:
    """Which rows of a merged score table pass. labelled: numbers that never do.

    Raises InvalidInputError: no such column.
    """
    fails: dict[str, NDArray[np.bool_]] = {}
    if recipe.first_number:
        fails[BELOW.format(recipe.first_number)] = table.numbers < recipe.first_number
    if labelled is not None:
        fails[LABELLED] = np.isin(table.numbers, labelled)
    fails |= {str(rule): ~rule.passes(table.column(rule.column)) for rule in recipe.rules}
    failures = np.sum(list(fails.values()), axis=0)
    rejects = {name: int(row.sum()) for name, row in fails.items()}
    only = {name: int((row & (failures == 1)).sum()) for name, row in fails.items()}
    missing = int(np.isnan([table.column(rule.column) for rule in recipe.rules]).any(0).sum())
    return Selection(failures == 0, rejects | ({NO_SCORE: missing} if missing else {}), only)


def filter_pictures(
    scores: Path,
    images: Path,
    out: Path,
    recipe: FilterRecipe,
    *,
    labels: Path | None = None,
    link: bool = False,
    advance: Callable[[int], None] = lambda count: None,
    started: Callable[[int], None] = lambda count: None,
) -> FilterResult:
    """Copy the pictures of folder `images` that pass `recipe` by the table `scores` to folder `out`, names unchanged.

    labels: a label table whose pictures are not kept. link: hard links instead of copies. The same call resumes after
    a stop; pictures that an earlier call kept and this one does not are removed. Writes OUT/filtered.csv, the rows of
    what is kept. Raises InvalidInputError when scores are of other pictures, when nothing passes, and when `out` holds
    pictures of something else; ImageError for a picture that cannot be read; OutputError.
    """
    table = read_score_table(scores)
    paths = numbered_images(Path(images))
    of_numbers(paths, table.numbers, f"rows of {scores}", Path(images))
    selection = select(table, recipe, None if labels is None else read_labels(labels).numbers)
    rows = table.rows(table.numbers[selection.kept])
    kept = [paths[int(number)] for number in rows.numbers]
    if not kept:
        counts = ", ".join(f"{name} {count}" for name, count in selection.rejects.items())
        raise InvalidInputError(f"none of {len(table)} pictures passes the filter; rejected: {counts}. Loosen a rule")
    out = make_folder(out)
    if out.resolve() == Path(images).resolve():
        raise InvalidInputError(f"the kept pictures cannot go to {out}, where all of them are: choose another --out")
    remove_leftovers(out)
    _clear(out, {path.name for path in kept})
    # First: it tells the next call which pictures are ours.
    write_score_table(out / LIST, replace(rows, paths=tuple(str(out / path.name) for path in kept)))
    started(len(kept))
    copied = 0
    for path in kept:
        copied += _put(path, out / path.name, link)
        advance(1)
    there, rules = len(kept) - copied, (selection.rejects, selection.only)
    return FilterResult(out, out / LIST, len(table), len(kept), copied, there, *rules)


def _clear(out: Path, wanted: set[str]) -> None:
    """Remove what an earlier call kept and this one does not.

    Raises InvalidInputError for pictures that are not ours.
    """
    there = {path.name for path in out.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")}
    surplus = there - wanted
    if not surplus:
        return
    earlier = {Path(name).name for name in read_score_table(out / LIST).paths} if (out / LIST).is_file() else set()
    foreign = sorted(surplus - earlier)
    if foreign:
        raise InvalidInputError(f"{out} holds other pictures, {foreign[0]} for one: choose another --out")
    for name in surplus:
        (out / name).unlink()


def _put(source: Path, target: Path, link: bool) -> bool:
    """Have `source` at `target`; False when it was there. Raises ImageError, OutputError."""
    try:
        if target.is_file() and (target.samefile(source) or filecmp.cmp(source, target, shallow=False)):
            return False
        data = b"" if link else read_file(source, "picture", ImageError)
    except OSError as error:
        raise ImageError(f"cannot read {source}: {why_not(error)}") from error
    with atomic_path(target) as temporary:
        if link:
            os.link(source, temporary)
        else:
            temporary.write_bytes(data)
    return True
