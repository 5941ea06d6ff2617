"""Pictures through networks, many, resumable: the same numbers whether it was interrupted or not."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.errors import ImageError
from ohlora.scores.table import ScoreTable
from ohlora.training.cnn.loop import EVALUATION_BATCH
from ohlora.training.cnn.pictures import Images, fingerprint, read_all, read_picture

SAVE_SECONDS = 30.0


def infer(
    paths: Mapping[int, Path],
    score: Callable[[Images], NDArray[np.float64]],
    columns: Sequence[str],
    state: Path,
    identity: str,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[ScoreTable, dict[int, str]]:
    """score(uint8 [n,256,256,3]) -> [n, columns] over all pictures, in the order of `paths`.

    Returns the scores of what could be read, and number -> why not for the rest. state: a file for what is done so far;
    kept, so that the same call is answered from it. identity: of the networks. Groups of pictures are always cut at the
    same places, since a network's last digits depend on its batch. Raises OutputError.
    """
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
    table = ScoreTable(np.array(numbers, np.int64), tuple(columns), values, tuple(str(paths[n]) for n in numbers))
    return table, failed


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
