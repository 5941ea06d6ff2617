"""Scored random codes on disk, in columns: what directions are found from.

    FOLDER/scores/part-00000.arrow          number, one float32 column a score
    FOLDER/vectors-w/part-00000.arrow       number, `vector` fixed_size_list<float32>[D]; one folder for each space

Arrow files, 1,000 codes each, written atomically and memory-mapped when read. Code number n is that of
`ohlora render --faces n`, so nothing depends on the order or the number of runs: a killed run goes on with the first
part that is missing, and a further space costs the mapping network only. Pictures are never kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers
from ohlora.errors import InvalidInputError
from ohlora.faces import MAX_SEED, latents_of_seeds
from ohlora.latents.spaces import Space
from ohlora.render.journal import Journal
from ohlora.training.vectorfind.portrayer import Floats, Portrayer
from ohlora.training.vectorfind.scorers import Scorer, require_columns

PART = 1000
BLOCK = 50  # pictures drawn, then scored
SCORES = "scores"
FORMAT = "ohlora-vectorfind-samples-1"

Advance = Callable[[int], None]


@dataclass(frozen=True)
class SampleStore:
    """Samples number first_seed .. first_seed + count - 1 in `folder`. columns: the scores that are there."""

    folder: Path
    count: int
    first_seed: int
    columns: tuple[str, ...]

    def parts(self) -> range:
        return range(-(-self.count // PART))

    def scores(self) -> NDArray[np.float32]:
        """float32 [count, columns] of all samples: 4 bytes a score, 16 MB for 500,000 samples of eight."""
        out = np.empty((self.count, len(self.columns)), np.float32)
        for part in self.parts():
            rows = self._rows(part)
            table = _read(self._path(SCORES, part))
            for i, name in enumerate(self.columns):
                out[rows, i] = table.column(name).to_numpy()[: rows.stop - rows.start]
        return out

    def blocks(self, space: Space) -> Iterator[tuple[slice, Floats]]:
        """(rows, vectors float32 [n,D]) part by part: memory holds one part."""
        for part in self.parts():
            rows = self._rows(part)
            yield rows, self._vectors(space, part)[: rows.stop - rows.start]

    def gather(self, space: Space, index: NDArray[np.int64]) -> Floats:
        """Vectors of chosen samples, float32 [n,D], in the order of `index`; only their parts are read."""
        out: Floats | None = None
        for part in np.unique(index // PART):
            chosen = np.flatnonzero(index // PART == part)
            vectors = self._vectors(space, int(part))[index[chosen] - part * PART]
            if out is None:
                out = np.empty((len(index), vectors.shape[1]), np.float32)
            out[chosen] = vectors
        return out if out is not None else np.empty((0, 0), np.float32)

    def _rows(self, part: int) -> slice:
        return slice(part * PART, min((part + 1) * PART, self.count))

    def _path(self, kind: str, part: int) -> Path:
        return self.folder / kind / f"part-{part:05d}.arrow"

    def _vectors(self, space: Space, part: int) -> Floats:
        column = _read(self._path(f"vectors-{space}", part)).column("vector")
        chunk = column.chunk(0)
        values: Floats = chunk.flatten().to_numpy().reshape(len(chunk), -1)
        return values


def draw_samples(
    portrayer: Portrayer,
    scorer: Scorer,
    folder: Path | str,
    *,
    count: int,
    spaces: Sequence[Space],
    columns: Sequence[str],
    first_seed: int = 0,
    restart: bool = False,
    advance: Advance = lambda samples: None,
) -> SampleStore:
    """Draw, score and store `count` codes; goes on where an interrupted call was. More codes or spaces may be added.

    restart: throw away what is there. advance: told how many are done, those that were there included. Raises
    InvalidInputError for a space or score that is not there, or a folder of other networks; OutputError when a file
    cannot be written.
    """
    if count < 1 or first_seed < 0 or first_seed + count > MAX_SEED:
        raise InvalidInputError(f"the search needs 1 or more samples of seeds from 0 on, got {count} from {first_seed}")
    require_columns(scorer, columns)
    for space in spaces:
        portrayer.size(space)
    request = {
        "kind": FORMAT,
        "generator": portrayer.sha256,
        "engine": portrayer.engine,
        "scorer": scorer.identity,
        "columns": list(columns),
        "first_seed": first_seed,
    }
    store = SampleStore(Path(folder), count, first_seed, tuple(columns))
    with Journal.open(folder, request, restart=restart) as journal:
        if not len(journal.finished):
            # A new job, or one begun again: parts that lie here are of other networks, or of nobody knows which.
            for stale in store.folder.glob("*/part-*.arrow"):
                stale.unlink()
        for kind in (SCORES, *(f"vectors-{space}" for space in spaces)):
            remove_leftovers(make_folder(store.folder / kind))
        for part in store.parts():
            _draw_part(store, portrayer, scorer, spaces, part, journal)
            rows = store._rows(part)
            advance(rows.stop - rows.start)
    return store


def _draw_part(
    store: SampleStore, portrayer: Portrayer, scorer: Scorer, spaces: Sequence[Space], part: int, journal: Journal
) -> None:
    # Whole parts always, also the last: a later call with more samples then finds it complete.
    seeds = range(store.first_seed + part * PART, store.first_seed + (part + 1) * PART)
    missing = [space for space in spaces if not _complete(store._path(f"vectors-{space}", part), seeds)]
    scored = _complete(store._path(SCORES, part), seeds)
    if scored and not missing:
        return
    started = time.perf_counter()
    z, label = latents_of_seeds(seeds, portrayer.generator.config.label_size)
    numbers = pa.array(np.arange(seeds.start, seeds.stop, dtype=np.int64))
    for space in missing:
        vectors = portrayer.start(z, label, space)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        _write(store._path(f"vectors-{space}", part), {"number": numbers, "vector": column})
    if not scored:
        w = portrayer.start(z, label, "w")
        # In blocks, so that no more than a block of pictures is ever in memory.
        blocks = [w[first : first + BLOCK] for first in range(0, PART, BLOCK)]
        scores = np.concatenate([scorer.score(portrayer.images(block), store.columns) for block in blocks]).astype(
            np.float32
        )
        table = {name: pa.array(scores[:, i]) for i, name in enumerate(store.columns)}
        _write(store._path(SCORES, part), {"number": numbers, **table})
        path = store._path(SCORES, part)
        row = {"file_name": path.relative_to(store.folder).as_posix(), "bytes": path.stat().st_size}
        journal.record(part, row | {"seconds": round(time.perf_counter() - started, 3)})


def _complete(path: Path, seeds: range) -> bool:
    """Whether the file is there, whole, and about these codes."""
    try:
        numbers = _read(path).column("number").to_numpy()
    except (OSError, pa.ArrowInvalid, KeyError):
        return False
    return len(numbers) == len(seeds) and int(numbers[0]) == seeds.start and int(numbers[-1]) == seeds.stop - 1


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _write(path: Path, columns: dict[str, pa.Array]) -> None:
    table = pa.table(columns)
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as file:  # noqa: SIM117 - opened in order
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
