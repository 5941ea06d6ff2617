"""The Korean hairstyle set: tables of polygons beside partitions of pictures (docs/spec/segmentation.md, section 8).

    FOLDER/dataindex_00.csv .. dataindex_36.csv     columns path, polygon1, polygon2, source
    FOLDER/partition*/...                           the pictures

`polygon2` is read by the published program and never used; here it need not be there.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw

from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data.hair_faces import NamedPicture, Sample
from ohlora.training.hairzoo.pictures import Mask, ZooData, grouped
from ohlora.training.loop.states import first_line

TABLES = 37
GRID = 512  # pixels of the plane that polygons are drawn in
ROOT = "dataset"  # what stands before it in `path` belongs to the machine that wrote the table
COLUMNS = ("path", "polygon1", "source")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
COORDINATE = re.compile(rf"""['"]([xy])['"]\s*:\s*({NUMBER})""")
FAR = 1e6  # pixels; beyond it the outline of a polygon would be drawn for ever

Points = NDArray[np.float32]  # [N,2], x and y in pixels of the GRID


def read_with_polygon(picture: Path, points: Points) -> Sample:
    """A picture whose hair is the inside of a polygon."""
    return read_image(picture), polygon_mask(points), None


def parse_polygon(text: str) -> Points:
    """ "[{'x': 1.5, 'y': 2.0}, ...]" -> points [N,2]; N is 0 for a text without points.

    The two coordinates of a point may come in either order. Raises ValueError for coordinates that do not come in
    pairs, or lie more than a million pixels out.
    """
    found = COORDINATE.findall(text)
    pairs = list(zip(found[::2], found[1::2], strict=False))
    if len(found) % 2 or any(first[0] == second[0] for first, second in pairs):
        raise ValueError(f"{len(found)} coordinates that are no pairs of 'x' and 'y'")
    points = np.array([[float(dict(pair)["x"]), float(dict(pair)["y"])] for pair in pairs]).reshape(-1, 2)
    if not (np.abs(points) <= FAR).all():
        raise ValueError("a coordinate beyond a million pixels")
    return points.astype(np.float32)


def polygon_mask(points: Points, size: int = GRID) -> Mask:
    """Points [N,2], N >= 2 -> uint8 [size,size], 255 inside and on the outline, 0 elsewhere.

    Drawn by Pillow, as the published masks are.
    """
    plane = PilImage.new("L", (size, size), 0)
    ImageDraw.Draw(plane).polygon([(float(x), float(y)) for x, y in points], outline=255, fill=255)
    return np.asarray(plane).copy()


def table_paths(folder: Path) -> list[Path]:
    """Where the tables of a data set lie."""
    return [folder / f"dataindex_{number:02d}.csv" for number in range(TABLES)]


def read_tables(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """All rows in the order of the tables, and the names of tables that are not there. Raises InvalidInputError."""
    paths = table_paths(folder)
    tables = []
    for path in (path for path in paths if path.is_file()):
        try:
            table = pd.read_csv(path, usecols=list(COLUMNS), dtype=str, keep_default_na=False)
        except (ValueError, OSError) as error:  # ValueError: a column is missing, or this is no table
            raise InvalidInputError(f"cannot use {path}: {first_line(error)}; it needs {', '.join(COLUMNS)}") from error
        tables.append(table[list(COLUMNS)])
    if not tables:
        raise InvalidInputError(f"{folder} holds no {paths[0].name} .. {paths[-1].name}: name the dataset folder")
    return pd.concat(tables, ignore_index=True), [path.name for path in paths if not path.is_file()]


def rooted(path: str, folder: Path) -> Path:
    """A table's path, cut after ROOT and put below `folder`. Raises ValueError when it has no root or leaves it."""
    _, root, rest = path.replace("\\", "/").partition(ROOT)
    relative = PurePosixPath(rest.lstrip("/"))
    if not root or not relative.name:
        raise ValueError(f"no '{ROOT}' and a name in the path '{path}'")
    if ".." in relative.parts:
        raise ValueError(f"the path '{path}' leaves the data set")
    return folder / relative


def korean_data(folder: Path, light: bool) -> ZooData:
    """Pictures of the tables with their polygons, grouped by `name` (the file name up to the first "-").

    light: only the first row of each `source`. Rows without a usable polygon or without a picture are left out and
    named. Raises InvalidInputError for unusable tables.
    """
    table, missing = read_tables(folder)
    left_out = dict.fromkeys(missing, "table not there")
    if light:
        table = table.drop_duplicates("source", keep="first")
    pictures, groups = [], []
    for path, polygon, _ in table.itertuples(index=False):
        try:
            picture, points = rooted(path, folder), parse_polygon(polygon)
        except ValueError as error:
            left_out[path] = str(error)
            continue
        if len(points) < 3:
            left_out[path] = f"a polygon of {len(points)} points"
        elif not picture.is_file():
            left_out[path] = f"no file {picture}"
        else:
            pictures.append(NamedPicture(picture.stem, partial(read_with_polygon, picture, points), picture))
            groups.append(picture.name.split("-")[0])
    if not pictures:
        first = next(iter(left_out.items()), ("no rows", "the tables are empty"))
        raise InvalidInputError(f"no usable picture in the tables of {folder} ({first[0]}: {first[1]})")
    tables = [path for path in table_paths(folder) if path.is_file()]
    return ZooData(pictures, grouped(groups), left_out, groups, tables)
