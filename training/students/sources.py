"""What a distillation run learns from and is measured on: real pictures, portraits, a generator's pictures.

All pictures stand in one list; a source is a name and the indices of its training and held-out pictures. Every choice
is keyed by (seed, epoch, item).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.training.data.generated_faces import pairs_of
from ohlora.training.data.hair_faces import HairFace, LabelledPicture, NamedPicture, find_faces
from ohlora.training.data.people import distances, split_people, thumbnails
from ohlora.training.data.portrait_faces import (
    HELD_OUT_SEEDS,
    RENDERER,
    TEST_SEEDS,
    TRAIN_SEEDS,
    PortraitFace,
    check_seeds,
    dataset_faces,
    dataset_seeds,
    read_description,
)
from ohlora.training.students.recipes import DistillConfig, PortraitMix

REAL, PORTRAITS, GENERATED = "real", "portraits", "generated"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """Indices into the list of pictures. test: reported figures; valid: chooses the epoch (often the same ones)."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Sources:
    """pictures: all there are. files: names of the real ones' files. splits: by source, the real ones first.
    origin: what made the drawn ones.
    """

    pictures: list[LabelledPicture]
    files: list[str]
    splits: dict[str, Split]
    origin: dict[str, Any]

    @property
    def drawn(self) -> dict[str, Split]:
        """The sources other than real pictures."""
        return {name: split for name, split in self.splits.items() if name != REAL}


# A source: its name, training pictures, held-out pictures, what made them.
Drawn = tuple[str, Sequence[LabelledPicture], Sequence[LabelledPicture], Any]
View = Callable[[LabelledPicture], LabelledPicture]


def make_split(faces: Sequence[LabelledPicture], config: DistillConfig) -> Split:
    """Divide real pictures as the recipe says. Raises InvalidInputError when one side would be empty."""
    everything = np.arange(len(faces))
    if config.holdout <= 0:
        return Split(everything, everything[:0], everything[:0])
    if config.split == "random":
        order = np.random.default_rng(config.seed).permutation(len(faces))
        a, b = int(0.8 * len(faces)), int(0.1 * len(faces))
        return Split(order[:a], order[a : a + b], order[a + b :])
    train, held, _ = split_people(
        distances(thumbnails([face.read()[0] for face in faces])), config.holdout, config.seed
    )
    if not len(train) or not len(held):
        raise InvalidInputError(
            f"{len(faces)} pictures cannot be split with --holdout {config.holdout}: use more pictures or --holdout 0"
        )
    return Split(train, held, held)


def find_sources(
    data: Sequence[Path],
    out: Path,
    config: DistillConfig,
    note: Note = lambda text: None,
    *,
    find: Callable[[Sequence[Path]], Sequence[HairFace]] = find_faces,
    view: View = lambda picture: picture,
    held_out: Sequence[Path] = (),
) -> Sources:
    """Real pictures of the folders `data` and, where the recipe mixes them in, portraits and generated pairs.

    Generated pairs are made once, below `out`. note: gets a line when that takes a while. find, view: see `loop.Task`.
    held_out: folders whose pictures are held out; the recipe's own split is not made then.
    Raises InvalidInputError for unusable data.
    """
    real = list(find(data))
    if held_out:
        count = len(real)
        real += find(held_out)
        held = np.arange(count, len(real))
        split = Split(np.arange(count), held, held)
    else:
        split = make_split(real, config)
    pictures: list[LabelledPicture] = list(real)
    splits, origin = {REAL: split}, {}
    for name, train, kept, made_by in drawn_pictures(config.mix, out, note, view) if config.mix else ():
        first, own = len(pictures), np.arange(len(pictures) + len(train), len(pictures) + len(train) + len(kept))
        pictures += [*train, *kept]
        splits[name] = Split(np.arange(first, first + len(train)), own, own)
        origin[name] = made_by
    return Sources(pictures, [face.picture.name for face in real], splits, origin)


def drawn_pictures(mix: PortraitMix, out: Path, note: Note, view: View) -> Iterator[Drawn]:
    """Every drawn source of the recipe."""
    if mix.folder is not None or mix.portraits:
        train, made_by = portrait_pictures(mix)
        note(f"painting {mix.held_out} held-out portraits")
        # Painted once: they are read again after every epoch.
        faces = [PortraitFace(seed, mix.resolution) for seed in check_seeds(HELD_OUT_SEEDS.start, mix.held_out)]
        held = [NamedPicture(face.name, cache(view(face).read)) for face in faces]
        yield PORTRAITS, list(map(view, train)), held, made_by
    if mix.generator is not None and mix.generated:
        folders, made_by = [], {}
        for part, seeds, count in (("train", TRAIN_SEEDS, mix.generated), ("held_out", HELD_OUT_SEEDS, mix.held_out)):
            note(f"pictures of {mix.generator} with the portraits' truth: {count} for {part.replace('_', ' ')}")
            folder = out / GENERATED / part
            made_by = pairs_of(mix.generator, folder, check_seeds(seeds.start, count), lambda count: None)
            folders.append(list(map(view, dataset_faces(folder))))
        yield GENERATED, folders[0], folders[1], {"generator": made_by["source"], "renderer": made_by["renderer"]}


def portrait_pictures(mix: PortraitMix) -> tuple[Sequence[LabelledPicture], Any]:
    """Training portraits, painted on the fly or from a folder, none of a held-out seed."""
    if mix.folder is None:
        seeds = check_seeds(TRAIN_SEEDS.start, mix.portraits)
        return [PortraitFace(seed, mix.resolution) for seed in seeds], {"renderer": RENDERER}
    folder = Path(mix.folder)
    about = read_description(folder)
    seeds = dataset_seeds(about)
    for kept in (HELD_OUT_SEEDS, TEST_SEEDS):
        if seeds.start < kept.stop and kept.start < seeds.stop:
            raise InvalidInputError(
                f"{folder} holds the seeds {seeds.start} to {seeds.stop - 1}; {kept.start} to {kept.stop - 1} are kept "
                "for measuring: paint others (--first-seed)"
            )
    return dataset_faces(folder), about


def epoch_order(sources: Sources, config: DistillConfig, epoch: int) -> NDArray[np.int64]:
    """Indices of an epoch's pictures, shuffled: all real training pictures, and drawn ones up to their share."""
    real = sources.splits[REAL].train
    chosen = [real]
    if config.mix is not None:
        total = round(len(real) * config.mix.share / (1 - config.mix.share))
        for i, split in enumerate(sources.drawn.values()):
            count = total // len(sources.drawn) + (i < total % len(sources.drawn))
            chosen.append(next_in_turn(split.train, count, epoch, (config.seed, i)))
    return np.random.default_rng((config.seed, epoch)).permutation(np.concatenate(chosen))


def next_in_turn(pool: NDArray[np.int64], count: int, epoch: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """The next `count` of a pool that is gone through in one shuffled order after the other: all before any again."""
    if not count:
        return pool[:0]
    position = np.arange(epoch * count, (epoch + 1) * count)
    turn = position // len(pool)
    orders = {int(t): np.random.default_rng((*key, int(t))).permutation(pool) for t in np.unique(turn)}
    return np.array([orders[int(t)][p % len(pool)] for t, p in zip(turn, position, strict=True)])
