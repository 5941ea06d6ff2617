"""CelebAMask-HQ: its published annotation folders, and the zoo's layout made from them.

Published:      SOURCE/CelebA-HQ-img/{id}.jpg      SOURCE/CelebAMask-HQ-mask-anno/{0..14}/{id:05d}_hair.png
For the zoo:    FOLDER/images/{id:05d}.jpg         FOLDER/masks/{id:05d}.png
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers
from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images
from ohlora.training.data.hair_faces import HairFace
from ohlora.training.hairzoo.pictures import ZooData, consecutive

PICTURES, ANNOTATIONS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
NO_MASK, NO_PICTURE = "no hair mask", "a mask without a picture"


def prepare(
    source: Path,
    out: Path,
    started: Callable[[int], None] = lambda count: None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[int, int, dict[str, str]]:
    """Copy pictures that have a hair mask, and the masks, into the zoo's layout.

    Returns (pictures in `out`, of these copied now, {name left out: why}). A stopped copy goes on; what lies complete
    is not copied again. started: is told how many there are to do; advance: each that is done. Raises InvalidInputError
    for a folder of another layout or two masks for one picture, OutputError.
    """
    pictures, masks = find_pictures(source), find_masks(source)
    left_out = {f"{number:05d}": NO_MASK for number in sorted(pictures.keys() - masks.keys())}
    left_out |= {f"{number:05d}": NO_PICTURE for number in sorted(masks.keys() - pictures.keys())}
    both = sorted(pictures.keys() & masks.keys())
    if not both:
        raise InvalidInputError(
            f"{source}: none of {len(pictures)} pictures has a hair mask in {ANNOTATIONS}; check the path"
        )
    started(len(both))
    folders, copied = (make_folder(out / "images"), make_folder(out / "masks")), 0
    for folder in folders:
        remove_leftovers(folder)
    for number in both:
        # The mask first: a picture in `images` always has one, even after a kill between the two.
        new = copy(masks[number], folders[1] / f"{number:05d}.png")
        copied += copy(pictures[number], folders[0] / f"{number:05d}.jpg") or new
        advance(1)
    return len(both), copied, left_out


def copy(source: Path, target: Path) -> bool:
    """Atomically; False when a file of the same size is already there. Raises InvalidInputError, OutputError."""
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return False
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return True


def find_pictures(source: Path) -> dict[int, Path]:
    """id -> picture of the published folder. Raises InvalidInputError when it is missing or empty."""
    folder = _published(source, PICTURES)
    pictures = {int(path.stem): path for path in folder.glob("*.jpg") if path.stem.isdecimal()}
    if not pictures:
        raise InvalidInputError(f"{folder} holds no NUMBER.jpg: name the folder that CelebAMask-HQ.zip unpacks to")
    return pictures


def find_masks(source: Path) -> dict[int, Path]:
    """id -> hair mask of the published annotation folders. Raises InvalidInputError when missing or ambiguous."""
    masks: dict[int, Path] = {}
    for path in sorted(_published(source, ANNOTATIONS).glob("*/*_hair.png")):
        name = path.stem.removesuffix("_hair")
        if name.isdecimal() and path.parent.name.isdecimal() and masks.setdefault(int(name), path) != path:
            raise InvalidInputError(f"two hair masks of picture {int(name)}: {masks[int(name)]} and {path}; delete one")
    return masks


def _published(source: Path, name: str) -> Path:
    if not (source / name).is_dir():
        raise InvalidInputError(f"{source} holds no {name}: name the folder that CelebAMask-HQ.zip unpacks to")
    return source / name


def celeb_data(folder: Path) -> ZooData:
    """Pictures of the zoo's layout, sorted by name, in consecutive folds.

    Raises InvalidInputError naming what is missing.
    """
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        made = (
            f"; it is the published one: make the zoo's with `ohlora train hairzoo-data {folder} --out FOLDER`"
            if (folder / ANNOTATIONS).is_dir()
            else ""
        )
        raise InvalidInputError(f"{folder} needs images/ and masks/{made}")
    pictures, left_out = [], {}
    # By name, as documented: with five digits that is also by number.
    for picture in sorted(list_images([images]), key=lambda path: path.name):
        mask = masks / f"{picture.stem}.png"
        if mask.is_file():
            pictures.append(HairFace(picture, mask, fitted=False))
        else:
            left_out[picture.name] = NO_MASK
    if not pictures:
        raise InvalidInputError(f"none of the {len(left_out)} pictures of {images} has a mask NAME.png in {masks}")
    return ZooData(pictures, consecutive(len(pictures)), left_out)
