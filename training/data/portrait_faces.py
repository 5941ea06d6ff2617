"""Procedural portraits as training data: painted when they are read, or once into a folder.

A data set folder holds NAME.png (or .jpg), hair_soft/NAME.png (share of hair times 255), parsing11/NAME.png (class
ids 0..10), parameters.csv (name, seed, one column a parameter) and dataset.json (what it was made with). It is a data
folder of `ohlora train distill` as it is.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers, write_bytes, write_json
from ohlora.base.reading import read_object
from ohlora.errors import InvalidInputError, OutputError
from ohlora.faces import MAX_SEED
from ohlora.io.images import encode_image
from ohlora.kernels.threads import usable_cores
from ohlora.training.data import RESOLUTION as RESOLUTION
from ohlora.training.data.hair_faces import HairFace, Sample
from ohlora.training.data.portraits import PARAMETERS, Portraits, parameters_from_seeds, render

# Who may see which seeds. Below TRAIN stay the people of demo pictures and those a generator is trained on
# (`gan.GanConfig.first_seed`), so that no figure is measured on a person that any network was trained on.
TRAIN_SEEDS = range(2_000_000, 3_000_000)  # students learn from these
HELD_OUT_SEEDS = range(3_000_000, 4_000_000)  # chooses the best epoch of a student
TEST_SEEDS = range(4_000_000, 5_000_000)  # `ohlora train evaluate-hair`

MAX_COUNT = 10_000_000
ROWS_AT_ONCE = 1000
VERSION = 1
DESCRIPTION = "dataset.json"
TABLE = "parameters.csv"
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


def paint_alone(seed: int, resolution: int) -> Portraits:
    """The portrait of a seed, on the calling thread: data loaders bring their own parallelism."""
    return render(parameters_from_seeds([seed]), resolution, threads=1)


def hair_bytes(hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Share of hair in [0,1] -> times 255, rounded."""
    return (hair * np.float32(255) + np.float32(0.5)).astype(np.uint8)


@dataclass(frozen=True)
class PortraitFace:
    """The portrait of a seed, painted whenever it is read."""

    seed: int
    resolution: int = RESOLUTION

    @property
    def name(self) -> str:
        return example_name("portrait", self.seed)

    def read(self) -> Sample:
        """Picture and true hair map. No classes: in the 11-class map neck and clothes count as background."""
        made = paint_alone(self.seed, self.resolution)
        return made.images[0], hair_bytes(made.hair[0]), None

    def read_classes(self) -> Sample:
        """The same with the true class ids 0..10 in place of the hair map."""
        made = paint_alone(self.seed, self.resolution)
        return made.images[0], made.parsing[0], None


def example_name(prefix: str, seed: int) -> str:
    return f"{prefix}_{seed:07d}"


def check_seeds(first_seed: int, count: int) -> range:
    """The seeds first_seed .. first_seed + count - 1.

    Raises InvalidInputError for an impossible count or first seed.
    """
    if not 1 <= count <= MAX_COUNT:
        raise InvalidInputError(f"the number of pictures must be in [1, {MAX_COUNT:,}], got {count}")
    if not 0 <= first_seed <= MAX_SEED - count:
        raise InvalidInputError(f"the first seed must be in [0, {MAX_SEED - count}], got {first_seed}")
    return range(first_seed, first_seed + count)


# What a seed is painted as; data sets and runs that were begun hold it. Give it another value when pictures or maps of
# a seed change, which tests/training/data/test_portraits.py notices. This one is a hash of the sources of the time.
RENDERER = "07af9dff74f5ddb6459db531cf5396a5f38b8ec43dcc70538ad8f71e27f3bf48"


# --- folders ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetSettings:
    """What decides the contents of a data set folder, apart from its length.

    prefix: of the names; source: what made the pictures ("portraits", or a generator's sha256); renderer: of the maps.
    """

    prefix: str
    first_seed: int
    resolution: int
    format: str
    source: str
    renderer: str
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise InvalidInputError(
                f"unknown picture format '{self.format}' for a data set: choose {' or '.join(SUFFIXES)}"
            )

    def name(self, seed: int) -> str:
        return example_name(self.prefix, seed)

    def file(self, seed: int) -> str:
        return self.name(seed) + SUFFIXES[self.format]


def read_description(folder: Path) -> dict[str, Any]:
    """dataset.json of a data set folder, checked. Raises InvalidInputError naming the file."""
    path = folder / DESCRIPTION
    if not path.exists():
        raise InvalidInputError(f"{folder} is no portrait data set: it has no {DESCRIPTION}")
    content = read_object(path, "description", remedy="make the data set again in another folder")
    numbers, texts = ("first_seed", "count", "resolution", "version"), ("prefix", "format", "source", "renderer")
    kinds = {**dict.fromkeys(numbers, int), **dict.fromkeys(texts, str), "complete": bool}
    if any(type(content.get(key)) is not kind for key, kind in kinds.items()):
        raise InvalidInputError(
            f"{path} describes no data set (needs {', '.join(kinds)}): make it again in another folder"
        )
    if content["version"] != VERSION:
        raise InvalidInputError(
            f"{path} is of version {content['version']}, this program knows {VERSION}: make it again"
        )
    try:
        check_seeds(content["first_seed"], content["count"])
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    return content


@dataclass(frozen=True)
class Dataset:
    """The folder of a data set, to be filled."""

    folder: Path
    settings: DatasetSettings
    seeds: range

    @contextmanager
    def filling(self, advance: Callable[[int], None]) -> Iterator[list[int]]:
        """The seeds whose picture is not there yet; the folder is complete when the block ends well.

        A set that was begun goes on; it may grow, never shrink. advance: called with the number of pictures that are
        there. Raises InvalidInputError when the folder holds something else.
        """
        self._claim()
        there = {entry.name for entry in os.scandir(self.folder)}
        missing = [seed for seed in self.seeds if self.settings.file(seed) not in there]
        advance(len(self.seeds) - len(missing))
        yield missing
        self._write_table()
        self._describe(complete=True)

    def write(self, seed: int, image: NDArray[np.uint8], hair: NDArray[np.float32], parsing: NDArray[np.uint8]) -> None:
        """The three files of one portrait, the picture last: where it is, the maps are too."""
        name = self.settings.name(seed)
        write_bytes(self.folder / "hair_soft" / f"{name}.png", png(hair_bytes(hair)))
        write_bytes(self.folder / "parsing11" / f"{name}.png", png(parsing))
        write_bytes(self.folder / self.settings.file(seed), encode_image(image, self.settings.format))

    def _claim(self) -> None:
        folder, count = make_folder(self.folder), len(self.seeds)
        if (folder / DESCRIPTION).exists():
            stored = read_description(folder)
            for key, value in asdict(self.settings).items():
                if stored.get(key) != value:
                    raise InvalidInputError(
                        f"{folder} holds a data set with {key} {str(stored.get(key))[:20]}, "
                        f"asked for is {str(value)[:20]}: choose another --out"
                    )
            if stored["count"] > count:
                raise InvalidInputError(
                    f"{folder} holds a data set of {stored['count']} pictures, asked for are {count}: choose another "
                    "--out"
                )
            if stored["count"] == count and stored["complete"]:
                return
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise InvalidInputError(f"{folder} is not empty and holds no portrait data set: choose another --out")
        for below in (folder, make_folder(folder / "hair_soft"), make_folder(folder / "parsing11")):
            remove_leftovers(below)
        self._describe(complete=False)

    def _describe(self, *, complete: bool) -> None:
        content = asdict(self.settings) | {"count": len(self.seeds), "complete": complete}
        write_json(self.folder / DESCRIPTION, content)

    def _write_table(self) -> None:
        with atomic_path(self.folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["name", "seed", *(p.name for p in PARAMETERS)])
            for start in range(0, len(self.seeds), ROWS_AT_ONCE):
                part = self.seeds[start : start + ROWS_AT_ONCE]
                for seed, row in zip(part, parameters_from_seeds(part), strict=True):
                    table.writerow([self.settings.name(seed), seed, *(f"{value:.7g}" for value in row)])


def png(array: NDArray[np.uint8]) -> bytes:
    """One channel, losslessly."""
    done, data = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not done:
        raise OutputError(f"the png encoder refused a map of {array.shape}")
    return bytes(data)


def dataset_faces(folder: Path) -> list[HairFace]:
    """The pictures of a complete data set, in the order of their seeds. Raises InvalidInputError otherwise."""
    about = read_description(folder)
    if not about["complete"]:
        raise InvalidInputError(f"{folder} is an unfinished data set: run the command that makes it again, it goes on")
    settings = DatasetSettings(**{field.name: about[field.name] for field in fields(DatasetSettings)})
    return [
        HairFace(folder / settings.file(seed), folder / "hair_soft" / f"{settings.name(seed)}.png", None)
        for seed in dataset_seeds(about)
    ]


def dataset_seeds(about: dict[str, Any]) -> range:
    return range(about["first_seed"], about["first_seed"] + about["count"])


def write_portraits(
    folder: Path,
    *,
    count: int,
    resolution: int = RESOLUTION,
    first_seed: int = TRAIN_SEEDS.start,
    format: str = "png",
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Paint the portraits of `count` seeds into a data set folder; goes on where a stopped run was.

    workers: threads, default the usable cores; at most two pictures each are held. advance: called with the number of
    pictures done. Returns the folder's description and "painted", the number made now. Raises InvalidInputError for a
    count, seed or resolution that cannot be, or a folder that holds something else, before anything is written.
    """
    seeds = check_seeds(first_seed, count)
    settings = DatasetSettings("portrait", first_seed, resolution, format, "portraits", RENDERER)
    paint_alone(first_seed, resolution)  # refuses an impossible resolution; compiles
    dataset = Dataset(folder, settings, seeds)

    def one(seed: int) -> None:
        made = paint_alone(seed, resolution)
        dataset.write(seed, made.images[0], made.hair[0], made.parsing[0])

    with dataset.filling(advance) as missing:
        run_bounded(one, missing, workers or usable_cores(), advance)
    return {**read_description(folder), "painted": len(missing)}


def run_bounded(
    work: Callable[[int], None], items: Iterable[int], workers: int, advance: Callable[[int], None]
) -> None:
    """work(item) for all items on `workers` threads, at most twice as many under way. The first error stops it."""
    queue = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="ohlora-portraits") as pool:
        under_way: list[Future[None]] = [pool.submit(work, item) for item in islice(queue, 2 * workers)]
        while under_way:
            under_way.pop(0).result()
            advance(1)
            under_way += [pool.submit(work, item) for item in islice(queue, 1)]
