"""Hair in any photograph: find the faces, look at each head the way students saw portraits, bring the maps back.

Each person gets a hair map of their own, so the dye's gradient runs over that person's hair
(docs/spec/ombre.md, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.recipe import check, setting
from ohlora.base.types import Detect, NoFace, Rgb
from ohlora.base.values import Ombre
from ohlora.engines import Engine
from ohlora.errors import ImageError
from ohlora.kernels.choices import Backend, Rounding
from ohlora.kernels.ombre import Dyes, HairMask, blend_dyes, make_dyes, prepare_hair
from ohlora.photos.edges import DEFAULT, SMALLEST_SCALE, Refinement, spread_map
from ohlora.photos.face_alignment import Floats, Frame, cut_out, is_portrait, portrait_frame, whole_picture
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.segmentation import SIZE, find_hair, image_side

# A head is looked at twice: as a portrait, and as a wider one for hair that leaves the portrait. 0.7 is the smallest
# zoom students were trained with, and makes the portrait 224 of the wider one's 320 pixels, without resampling.
WIDE = 320
TOP, LEFT = 32, (WIDE - SIZE) // 2  # of the portrait in the wider one: more room below, where hair hangs
RAMP = 16  # pixels over which one map fades into the other, and the wider one into nothing
# Of the hair that only the wider view sees inside the portrait, this share counts: the dye's cover then agrees with the
# reference maps in 0.909 instead of 0.902 (60 portraits on a plain wall; intersection over union); all of it, in 0.898.
LIFT = 0.6
HEADS_PER_RUN = 8
# Patches smaller than this share of a head's hair, and apart from the rest, are no hair of that head: a single one
# far below would pull the dye's gradient down.
SMALLEST_PATCH = 0.02


@dataclass(frozen=True)
class FaceRules:
    """How people are looked for.

    detect: "auto" finds each head; a picture that is a portrait itself is taken as a whole. "whole": never looks.
    no_face: what happens to a picture without a face; "skip" fails it, "keep" leaves it as it is, "whole" takes it as
    a portrait. min_face: smallest face in pixels, None for 1/50 of the shorter side (at least 20). refine: sharpen
    the hair's edges on the picture's.
    """

    detect: Detect = setting("auto")
    no_face: NoFace = setting("skip")
    min_face: float | None = None
    refine: bool = True

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class HeadMask:
    """One person's hair: the mask of a part of the picture whose corner lies at row `top`, column `left`.

    unweighted: dyed also where no row is strong enough to count as hair (`compat_unweighted` of `blend_ombre`).
    """

    top: int
    left: int
    mask: HairMask
    unweighted: bool = False

    @property
    def has_rows(self) -> bool:
        """Whether a row counts as hair."""
        return int(self.mask.bottom[0]) >= 0

    @property
    def has_hair(self) -> bool:
        """Whether a dye changes anything."""
        return self.has_rows or (self.unweighted and bool(self.mask.coverage.any()))


def as_weighted(heads: Sequence[HeadMask], unweighted: bool) -> tuple[HeadMask, ...]:
    """The same heads, dyed as `HeadMask` says of `unweighted`."""
    return tuple(replace(head, unweighted=unweighted) for head in heads)


@dataclass(frozen=True)
class PhotoHair:
    """What was found in a photograph. facts: for its metadata row."""

    heads: tuple[HeadMask, ...]
    facts: dict[str, Any] = field(default_factory=dict)


class PhotoReader:
    """Finds everybody's hair in photographs. May be called from several threads.

    engine: a student, as for `find_hair`. unweighted: as of `HeadMask`. Raises InvalidInputError for rules that make
    no sense.
    """

    def __init__(self, engine: Engine, rules: FaceRules | None = None, *, unweighted: bool = False) -> None:
        self.engine, self.rules, self.unweighted = engine, rules or FaceRules(), unweighted
        self.detector = FaceDetector(min_face=self.rules.min_face)

    def find(self, image: Rgb) -> PhotoHair:
        """uint8 RGB [H,W,3] -> everybody's hair. Raises ImageError where the rules say so, and for a strip."""
        found = self._find(image)
        return replace(found, heads=as_weighted(found.heads, self.unweighted))

    def _find(self, image: Rgb) -> PhotoHair:
        if self.rules.detect == "whole":
            return self._whole(image, {"framing": "whole"}, refine=False)
        found = self.detector.detect(image)
        if not len(found):
            return self._nobody(image)
        frames = [portrait_frame(points) for points in found.landmarks]
        if len(frames) == 1 and is_portrait(frames[0], *image.shape[:2]):
            return self._whole(image, {"faces": 1, "framing": "portrait"}, refine=self.rules.refine)
        maps = head_maps(self.engine, image, frames)
        heads, share = place_heads(image, frames, maps, DEFAULT if self.rules.refine else None)
        kept = tuple(head for head in heads if head is not None)
        return PhotoHair(kept, {"faces": len(found), "framing": "heads", "hair_share": share})

    def _nobody(self, image: Rgb) -> PhotoHair:
        if self.rules.no_face == "whole":
            return self._whole(image, {"faces": 0, "framing": "whole"}, refine=self.rules.refine)
        if self.rules.no_face == "keep":
            return PhotoHair((), {"faces": 0, "framing": "none", "hair_share": 0.0})
        height, width = image.shape[:2]
        raise ImageError(
            f"no face found in {width}x{height} pixels: take the whole picture as a portrait (--no-face whole), "
            "leave it as it is (--no-face keep), or look for smaller faces (--min-face)"
        )

    def _whole(self, image: Rgb, facts: dict[str, Any], *, refine: bool) -> PhotoHair:
        """The picture as one portrait; without `refine`, exactly what `find_hair` and `prepare_hair` give."""
        hair = find_hair(self.engine, [image])[0]
        share = round(float(np.mean(hair >= 0.5)), 4)
        size = image.shape[0], image.shape[1]
        if refine and max(size) / max(hair.shape) >= SMALLEST_SCALE:
            hair, _ = spread_map(image, hair, np.ones_like(hair), whole_picture(*size))
        return PhotoHair((HeadMask(0, 0, prepare_hair(hair[None], size, threads=1)),), {**facts, "hair_share": share})


def head_maps(engine: Engine, image: Rgb, frames: Sequence[Frame]) -> list[Floats]:
    """Hair of each portrait frame's wider surroundings (`wide_frame`), float32 [320,320] in [0,1]."""
    maps, side = [], image_side(engine)
    for start in range(0, len(frames), HEADS_PER_RUN):
        some = frames[start : start + HEADS_PER_RUN]
        views = [cut_out(image, view, side, side) for frame in some for view in (frame, wide_frame(frame))]
        hair = engine(image=np.stack(views))["hair"]
        maps += [merge_views(close, wide) for close, wide in zip(hair[::2], hair[1::2], strict=True)]
    return maps


def wide_frame(frame: Frame) -> Frame:
    return frame.grown(WIDE / SIZE, (WIDE / 2 - TOP - SIZE / 2) / WIDE)


def merge_views(close: Floats, wide: Floats) -> Floats:
    """Hair of the portrait and of the wider view, float32 [224,224] each -> one map [320,320] of the wider view."""
    merged = np.clip(cv2.resize(wide, (WIDE, WIDE), interpolation=cv2.INTER_CUBIC), 0, 1)
    inner = merged[TOP : TOP + SIZE, LEFT : LEFT + SIZE]
    seen = close + np.float32(LIFT) * np.maximum(inner - close, 0)
    inner += border_window(SIZE) * (seen - inner)
    return _without_patches(merged)


@cache
def border_window(size: int) -> Floats:
    """float32 [size,size]: 1, falling smoothly to 0 over the last RAMP pixels before each border."""
    inside = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    t = np.clip(inside / RAMP, 0, 1)
    line = t * t * (3 - 2 * t)
    window = np.minimum.outer(line, line).astype(np.float32)
    window.flags.writeable = False
    return window


def _without_patches(hair: Floats) -> Floats:
    """Drop small patches that lie apart (`SMALLEST_PATCH`)."""
    count, labels, figures, _ = cv2.connectedComponentsWithStats((hair >= 0.5).astype(np.uint8))
    areas = figures[1:, cv2.CC_STAT_AREA]
    small = np.flatnonzero(areas < SMALLEST_PATCH * areas.sum()) + 1
    if count > 2 and len(small):
        hair = np.where(np.isin(labels, small), np.float32(0), hair)
    return hair


def place_heads(
    image: Rgb, frames: Sequence[Frame], maps: Sequence[Floats], refinement: Refinement | None = DEFAULT
) -> tuple[list[HeadMask | None], float]:
    """Hair maps of `head_maps` -> masks on the picture (None: no hair), and the share of it that is hair.

    Where two people's maps meet, a pixel belongs to whoever claims it more strongly: the map's value times how close
    it is to their face in sizes of their head.
    """
    window = border_window(WIDE)
    placed = [
        spread_map(image, hair, window, wide_frame(frame), refinement) for frame, hair in zip(frames, maps, strict=True)
    ]
    for i, (first, region) in enumerate(placed):
        for j in range(i + 1, len(placed)):
            _divide(first, region, frames[i], *placed[j], frames[j])
    pixels = sum(int(np.count_nonzero(hair >= 0.5)) for hair, _ in placed)
    heads = [_trimmed(hair, region) for hair, region in placed]
    return heads, round(pixels / (image.shape[0] * image.shape[1]), 4)


Region = tuple[int, int, int, int]


def _divide(
    first: Floats, region: Region, frame: Frame, other: Floats, other_region: Region, other_frame: Frame
) -> None:
    """Set each pixel that both maps hold to 0 in the map of the weaker claim."""
    top, bottom = max(region[0], other_region[0]), min(region[1], other_region[1])
    left, right = max(region[2], other_region[2]), min(region[3], other_region[3])
    if top >= bottom or left >= right:
        return
    mine = first[top - region[0] : bottom - region[0], left - region[2] : right - region[2]]
    theirs = other[top - other_region[0] : bottom - other_region[0], left - other_region[2] : right - other_region[2]]
    rows = np.arange(top, bottom, dtype=np.float64) + 0.5
    columns = np.arange(left, right, dtype=np.float64) + 0.5
    claim, other_claim = _closeness(frame, rows, columns), _closeness(other_frame, rows, columns)
    won = np.multiply(mine, claim) >= np.multiply(theirs, other_claim)
    theirs[won] = 0
    mine[~won] = 0


def _closeness(frame: Frame, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Floats:
    """1 at the frame's centre, 1/2 where its side is that far away, float32 [rows, columns]."""
    x, y = ((columns - frame.centre[0]) / frame.width) ** 2, ((rows - frame.centre[1]) / frame.height) ** 2
    return (1 / (1 + np.add.outer(y, x))).astype(np.float32)


def _trimmed(hair: Floats, region: Region) -> HeadMask | None:
    """The mask of the rows and columns that hold hair; None without any."""
    strong = (hair > 0.75).astype(np.uint8)  # nothing below is ever dyed (docs/spec/ombre.md, section 3)
    left, top, width, height = cv2.boundingRect(strong)
    if not width or not height:
        return None
    part = np.ascontiguousarray(hair[top : top + height, left : left + width])
    mask = prepare_hair(part[None], (height, width), threads=1)
    return HeadMask(region[0] + top, region[2] + left, mask)


@lru_cache(maxsize=1024)
def dyes_of(ombre: Ombre, rounding: Rounding = "truncate", unweighted: bool = False) -> Dyes:
    """A dye as the kernels take it, made once."""
    return make_dyes((ombre.color, ombre.height, ombre.grad_height), 1, rounding, unweighted)


def dye_image(
    image: Rgb,
    mask: HairMask,
    ombre: Ombre,
    rounding: Rounding = "truncate",
    backend: Backend = "auto",
    unweighted: bool = False,
) -> Rgb:
    """The picture, uint8 RGB [H,W,3], dyed over its mask, on this thread: pictures are the parallelism."""
    dyes = dyes_of(ombre, rounding, unweighted)
    dyed: Rgb = blend_dyes(np.ascontiguousarray(image)[None], mask, dyes, None, backend, threads=1)[0]
    return dyed


def dye_heads(
    image: Rgb, heads: Sequence[HeadMask], ombre: Ombre, rounding: Rounding = "truncate", backend: Backend = "auto"
) -> Rgb:
    """The picture with each head dyed over its own hair; pixels outside the hair are the input's."""
    result = image.copy()
    for head in heads:
        height, width = head.mask.coverage.shape[1:]
        part = result[head.top : head.top + height, head.left : head.left + width]
        part[:] = dye_image(part, head.mask, ombre, rounding, backend, head.unweighted)
    return result
