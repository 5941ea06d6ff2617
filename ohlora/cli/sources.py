"""The pictures and videos that a command is given: sorted, identified, told apart from its results."""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from ohlora.cli.report import note, say
from ohlora.errors import InvalidInputError


def source_paths(texts: list[str] | None) -> list[Path]:
    """What a command is given; 'example', or nothing, is the portrait that ships with the package."""

    example = Path(str(files("ohlora"))) / "examples" / "astronaut.jpg"
    return [example if text == "example" else Path(text) for text in texts or ["example"]]


def sort_sources(roots: list[Path], recursive: bool) -> tuple[list[Path], list[Path]]:
    """What `roots` name -> pictures, videos; one of the two is empty.

    In a folder, animated GIFs count as pictures (their first frame), and videos beside pictures are left out, which is
    said. Raises InvalidInputError when both pictures and videos are named, and as `list_images` does.
    """
    from ohlora.io.images import list_images
    from ohlora.io.video import is_video, list_videos

    for root in roots:
        if not os.path.lexists(root):
            raise InvalidInputError(f"there is no file or folder {root}")
    videos = [root for root in roots if not root.is_dir() and is_video(root)]
    others = [root for root in roots if root not in videos]
    if not others:
        return [], sorted(set(videos))
    inside = list_videos(others, recursive)
    try:
        pictures = list_images(others, recursive)
    except InvalidInputError:
        if not inside or any(not root.is_dir() for root in others):
            raise
        return [], sorted({*videos, *inside})
    if videos:
        raise InvalidInputError(
            f"{videos[0]} is a video among pictures: give videos a command and an --out of their own"
        )
    if inside:
        say(
            f"{len(inside)} videos among the pictures are left out, the first is {inside[0]}: name them in a command "
            "of their own",
            err=True,
        )
    return pictures, []


def without(paths: list[Path], out: Path, named: Collection[Path] = ()) -> list[Path]:
    """Sources that do not lie in the output folder: results of an earlier run are not dyed again. Contact sheets of
    jobs go too, which is said, where they are not `named`.
    """
    from ohlora.render.run_items import is_contact_sheet

    folder = os.path.realpath(out)
    kept = [path for path in paths if not Path(os.path.realpath(path)).is_relative_to(folder)]
    if not kept:
        raise InvalidInputError(f"all pictures lie in the output folder {out}: choose another --out")
    sheets = {path for path in kept if path not in named and is_contact_sheet(path)}
    if len(sheets) == len(kept):
        raise InvalidInputError(f"only the contact sheet {kept[0]} was found: name it to take it as a picture")
    for sheet in sorted(sheets):
        note(f"{sheet} is the contact sheet of a job: it is left out")
    return [path for path in kept if path not in sheets]
