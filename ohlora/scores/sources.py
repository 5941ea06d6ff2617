"""Where class maps and their pictures come from: a folder of `train parse`, or a bundle's face parser.

`face` is the 224x224 picture that a map was made of, `original` the source picture squeezed to 224x224 with OpenCV's
linear filter, which the first algorithm is documented to take (docs/spec/properties.md, section 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohlora.base.reading import parse_json, read_file
from ohlora.base.tables import TABLE_LIMIT
from ohlora.base.types import Rgb, Variant, check_choice
from ohlora.errors import BundleError, ImageError, InvalidInputError
from ohlora.io.images import read_image
from ohlora.io.numbered_images import number_of, numbered_images
from ohlora.kernels.properties import CLASSES, HAIR, SIZE
from ohlora.photos.face_cascade import MIN_FACE, THRESHOLDS
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.segmentation import CLASSES as PARSER_CLASSES
from ohlora.photos.segmentation import documented_classes

if TYPE_CHECKING:
    from ohlora.render.renderer import Renderer

PARSING, FACE, INDEX = "parsing_", "face_", "parse.jsonl"
VARIANTS: tuple[Variant, ...] = get_args(Variant)
MARGIN = 0.25  # of the face's box on each side (docs/spec/segmentation.md, section 2)


@dataclass(frozen=True)
class ScoreItem:
    """A picture to be scored. path: of the source picture as tables name it, "" where it is unknown."""

    number: int
    path: str


@dataclass(frozen=True)
class ScoreInputs:
    """parsing: uint8 [224,224]; face, original: uint8 RGB [224,224,3], None where not asked for."""

    parsing: NDArray[np.uint8]
    face: Rgb | None
    original: Rgb | None


class ScoreSource(Protocol):
    """Pictures with their class maps, read in the order asked for."""

    @property
    def items(self) -> Sequence[ScoreItem]: ...

    def read(self, items: Sequence[ScoreItem], *, face: bool, original: bool) -> list[ScoreInputs | ImageError]:
        """What each item needs; the error of one that cannot be had."""
        ...

    def picture(self, item: ScoreItem) -> Rgb:
        """The item to look at, uint8 RGB [H,W,3]. Raises ImageError."""
        ...


class ParsedFolder:
    """A folder of `ohlora train parse`: parsing_NNNNNN.png, face_NNNNNN.png and, where it is there, parse.jsonl.

    pictures: source pictures by number; their numbers are then what is scored. Without them every map of the folder
    is, and source pictures are those that parse.jsonl names.
    Raises InvalidInputError for a folder without maps and a damaged index.
    """

    def __init__(self, folder: Path, pool: ThreadPoolExecutor, pictures: Mapping[int, Path] | None = None) -> None:
        self.folder, self._pool = folder, pool
        try:
            self.maps = numbered_images(folder, PARSING)
        except InvalidInputError as error:
            raise InvalidInputError(f"{error}: make class maps with `ohlora train parse`") from error
        self.sources = read_index(folder) if pictures is None else dict(pictures)
        numbers = sorted(self.maps if pictures is None else pictures)
        self.items = [ScoreItem(n, str(self.sources.get(n, ""))) for n in numbers]

    @cached_property
    def faces(self) -> dict[int, Path]:
        return numbered_images(self.folder, FACE)

    def read(self, items: Sequence[ScoreItem], *, face: bool, original: bool) -> list[ScoreInputs | ImageError]:
        """Files are read in parallel."""
        if face:
            _ = self.faces  # once, before threads want it

        def one(item: ScoreItem) -> ScoreInputs | ImageError:
            try:
                return ScoreInputs(
                    read_class_map(self._file(self.maps, item, "class map")),
                    read_face(self._file(self.faces, item, "face picture")) if face else None,
                    original_view(read_image(self._file(self.sources, item, "source picture"))) if original else None,
                )
            except ImageError as error:
                return error

        return list(self._pool.map(one, items))

    def picture(self, item: ScoreItem) -> Rgb:
        """The face where the folder has it, the source picture otherwise."""
        face = self.folder / f"{FACE}{item.number:06d}.png"
        return read_image(face if face.is_file() else self._file(self.sources, item, "source picture"))

    def _file(self, files: Mapping[int, Path], item: ScoreItem, kind: str) -> Path:
        if item.number not in files:
            where = "named, nor in its parse.jsonl" if kind == "source picture" else f"in {self.folder}"
            raise ImageError(f"number {item.number} has no {kind} {where}: parse it again or leave it out")
        return files[item.number]


class BundlePictures:
    """Pictures of any size whose faces a bundle's parser maps.

    variant: "crop" (the largest face with its margin, as the published scores had it) or "full-frame".
    Raises BundleError for a bundle without a parser of the 11 documented classes, or of these, glasses and hats;
    InvalidInputError for another variant.
    """

    def __init__(
        self, renderer: Renderer, pictures: Mapping[int, Path], pool: ThreadPoolExecutor, variant: str = "crop"
    ) -> None:
        check_choice("variant", variant, VARIANTS)
        classes = renderer.bundle.parsing_part().classes
        if tuple(classes) != PARSER_CLASSES and (len(classes) != CLASSES or classes[HAIR] != "hair"):
            raise BundleError(
                f"the face parser of bundle '{renderer.bundle.name}' has the classes {', '.join(classes)}: scores need "
                "the 11 or 13 of `ohlora train parsing`"
            )
        self._renderer, self._pool, self._variant = renderer, pool, variant
        self._paths = dict(sorted(pictures.items()))
        # The documented cascade: its smallest face and its last threshold.
        self._detector = FaceDetector(min_face=MIN_FACE, confidence=THRESHOLDS[2])
        self.items = [ScoreItem(number, str(path)) for number, path in self._paths.items()]

    def read(self, items: Sequence[ScoreItem], *, face: bool, original: bool) -> list[ScoreInputs | ImageError]:
        """Pictures are read and cut in parallel, parsed together."""

        def one(item: ScoreItem) -> tuple[Rgb, Rgb | None] | ImageError:
            try:
                image = read_image(self._paths[item.number])
                return self._face(image, item.path), original_view(image) if original else None
            except ImageError as error:
                return error

        loaded = list(self._pool.map(one, items))
        maps = iter(self._renderer.parse([entry[0] for entry in loaded if not isinstance(entry, ImageError)]))
        return [
            entry if isinstance(entry, ImageError) else ScoreInputs(documented_classes(next(maps)), *entry)
            for entry in loaded
        ]

    def picture(self, item: ScoreItem) -> Rgb:
        """The source picture."""
        return read_image(self._paths[item.number])

    def _face(self, image: Rgb, name: str) -> Rgb:
        if self._variant == "full-frame":
            return squeezed(image)
        found = self._detector.detect(image)
        if not len(found):
            raise ImageError(f"no face found in {name}: leave it out, or take whole pictures (--variant full-frame)")
        return squeezed(image, crop_box(found.boxes[0], image.shape[1], image.shape[0], name))


def crop_box(box: NDArray[np.floating], width: int, height: int, name: str) -> tuple[int, int, int, int]:
    """The documented crop around a face box x1 y1 x2 y2: left, top, right, bottom, the last two exclusive.

    Raises ImageError when it shows nothing of the picture.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
    left, top = int(max(0.0, x1 - dx)), int(max(0.0, y1 - dy))
    right, bottom = int(min(float(width), x2 + dx)), int(min(float(height), y2 + dy))
    if right <= left or bottom <= top:
        raise ImageError(f"the face found in {name} lies outside the picture: leave it out")
    return left, top, right, bottom


def squeezed(image: Rgb, box: tuple[int, int, int, int] | None = None) -> Rgb:
    """The picture or a part of it at 224x224, aspect not kept, with Pillow's antialiased bicubic as documented."""
    picture = Image.fromarray(image) if box is None else Image.fromarray(image).crop(box)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def original_view(image: Rgb) -> Rgb:
    """A source picture as the first algorithm takes it."""
    return np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.uint8)


def read_class_map(path: Path) -> NDArray[np.uint8]:
    """A stored map, uint8 [224,224]. Raises ImageError naming the file for anything else."""
    grey = _read(path, "class maps")
    parsing = np.ascontiguousarray(grey[..., 0])
    highest = int(parsing.max())
    if highest >= CLASSES or (grey != parsing[..., None]).any():
        what = f"holds the value {highest}" if highest >= CLASSES else "has colours"
        raise ImageError(f"{path} {what}: it is no class map, whose values are 0 to {CLASSES - 1}; parse it again")
    return parsing


def read_face(path: Path) -> Rgb:
    """A stored face, uint8 RGB [224,224,3]. Raises ImageError naming a file of another size."""
    return _read(path, "faces")


def _read(path: Path, kind: str) -> Rgb:
    image = read_image(path)
    if image.shape[:2] != (SIZE, SIZE):
        raise ImageError(f"{path} is {image.shape[1]}x{image.shape[0]}: {kind} are {SIZE}x{SIZE}, parse it again")
    return image


def read_index(folder: Path) -> dict[int, Path]:
    """Source pictures of a parsed folder by number; empty without parse.jsonl.

    Raises InvalidInputError for a damaged one.
    """
    path = folder / INDEX
    if not path.is_file():
        return {}
    sources = {}
    remedy = "parse the pictures again or name them"
    for number, line in enumerate(
        read_file(path, "list of pictures", limit=TABLE_LIMIT, remedy=remedy).splitlines(), 1
    ):
        row = parse_json(line, f"{path}, line {number}", remedy=remedy)
        try:
            sources[int(row["number"])] = Path(row["source"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InvalidInputError(
                f"{path}, line {number} needs a whole 'number' and a text 'source': {remedy}"
            ) from error
    return sources


def number_pictures(paths: Iterable[Path], known: Mapping[int, Path] | None = None) -> dict[int, Path]:
    """Numbers of named pictures: the digits at the end of a name.

    known: sources by number (`read_index`) of a parsed folder; a picture among them keeps that number, and a name
    without digits is refused. Without `known` such names get the smallest free numbers, in the order given.
    Raises InvalidInputError naming two pictures of one number.
    """
    places = {path.resolve(): number for number, path in (known or {}).items()}
    numbered: dict[int, Path] = {}
    nameless: list[Path] = []
    for path in paths:
        number = places.get(path.resolve(), number_of(path))
        if number is None:
            nameless.append(path)
        elif number in numbered:
            raise InvalidInputError(f"{numbered[number]} and {path} both have number {number}: leave one of them out")
        else:
            numbered[number] = path
    if nameless and known is not None:
        raise InvalidInputError(
            f"{nameless[0]} has no number at the end of its name and is no source of the class maps"
        )
    free = (number for number in count() if number not in numbered)
    numbered |= dict(zip(free, nameless, strict=False))
    return dict(sorted(numbered.items()))
