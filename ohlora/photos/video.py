"""Hair in videos: people are followed from frame to frame, and their hair maps steadied over time.

A map is averaged in the space of its own head, cut out and turned upright, so it moves with the face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.recipe import check, setting
from ohlora.base.types import Rgb, Rounding
from ohlora.base.values import Ombre
from ohlora.engines import Engine
from ohlora.errors import ImageError
from ohlora.io.images import MAX_PIXELS
from ohlora.io.marking import Mark
from ohlora.io.video import VideoFacts, change_video
from ohlora.kernels.ombre import HairMask, prepare_hair
from ohlora.photos.edges import Refinement, spread_map
from ohlora.photos.face_alignment import Floats, Frame, portrait_frame, whole_picture
from ohlora.photos.face_cascade import Detections
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.heads import FaceRules, HeadMask, as_weighted, dye_heads, head_maps, place_heads
from ohlora.photos.segmentation import find_hair

# The smallest face looked for in a frame: 54 pixels of 1080 rows. Smaller than in photographs would be slow.
SMALLEST_SHARE = 1 / 20
SAME_FACE = 0.3  # intersection over union of a face and itself a few frames later
FOLLOWED = 0.6  # and in the next frame: less, and what was followed has slipped off the face
# A coarser grid than photographs get: 60 % of the time, most of the gain (docs/photographs.md).
EDGES = Refinement(finest=3)
# Frames a lost face is kept where it was: a head that turns away still has its hair, which the student still sees.
HOLD_FRAMES = 12
# Mean difference of two frames shrunk to 32 x 32 greys, above which they are of different scenes.
CUT_LEVELS = 30.0


@dataclass(frozen=True)
class Smoothing:
    """past: share of the frames before in a hair map, 0 (none) to below 1. every: frames between full searches.

    Where nobody is known, every frame is searched.
    """

    past: float = setting(0.6, low=0, below=1)
    every: int = setting(5, low=1)

    def __post_init__(self) -> None:
        check(self, "smoothing: ")


@dataclass(eq=False)  # one is the same person as itself only
class _Person:
    """Somebody followed. extent: rows of their hair from the frame's centre, in its heights (first, last)."""

    found: Detections  # of one face
    frame: Frame
    hair: Floats | None = None
    extent: tuple[float, float] | None = None
    lost: int = 0  # frames since the face was last seen


@dataclass
class VideoHair:
    """Finds everybody's hair in the frames of one video, in order.

    engine: a student, as for `find_hair`. unweighted: as of `HeadMask`. frames, with_faces, most_faces: counted so far.
    """

    engine: Engine
    rules: FaceRules = field(default_factory=FaceRules)
    smoothing: Smoothing = field(default_factory=Smoothing)
    unweighted: bool = False
    frames: int = 0
    with_faces: int = 0
    most_faces: int = 0
    _people: list[_Person] = field(default_factory=list)
    _whole: Floats | None = None
    _small: NDArray[np.float32] | None = None
    _detector: FaceDetector | None = None

    def find(self, image: Rgb) -> tuple[HeadMask, ...]:
        """Next frame, uint8 RGB [H,W,3] -> everybody's hair in it."""
        if self._is_cut(image):
            self._people, self._whole = [], None
        seen: tuple[HeadMask, ...]
        if self.rules.detect == "auto":
            self._follow(image)
        if self._people:
            self._whole = None
            seen = self._heads(image)
        elif self.rules.detect == "whole" or self.rules.no_face == "whole":
            seen = self._portrait(image)
        else:
            seen = ()
        self.frames += 1
        self.with_faces += bool(self._people)
        self.most_faces = max(self.most_faces, len(self._people))
        return as_weighted(seen, self.unweighted)

    def _is_cut(self, image: Rgb) -> bool:
        small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32).mean(2)
        before, self._small = self._small, small
        return before is not None and float(np.abs(small - before).mean()) > CUT_LEVELS

    # People

    def _follow(self, image: Rgb) -> None:
        """Where everybody is now; who is new, who is gone."""
        if self._detector is None:
            smallest = max(20.0, min(image.shape[:2]) * SMALLEST_SHARE)
            self._detector = FaceDetector(min_face=self.rules.min_face or smallest)
        waiting = list(self._people)
        searched = not waiting or self.frames % self.smoothing.every == 0
        if searched:
            waiting = self._search(image, self._detector)
        lost = []
        for person in waiting:
            now = self._detector.follow(image, person.found)
            if len(now) and overlap(now.boxes[0], person.found.boxes[0]) >= FOLLOWED:
                self._move(person, now)
            else:
                lost.append(person)
        if lost and not searched:
            still = self._search(image, self._detector)
            lost = [person for person in lost if person in still]
        for person in lost:
            person.lost += 1
        self._people = [person for person in self._people if person.lost <= HOLD_FRAMES]

    def _search(self, image: Rgb, detector: FaceDetector) -> list[_Person]:
        """Look at the whole frame; returns those known before who were not seen."""
        found = detector.detect(image)
        known = list(self._people)
        unseen = list(known)
        for index in range(len(found)):
            one = found.pick(np.array([index]))
            shares = [overlap(one.boxes[0], person.found.boxes[0]) for person in known]
            if not shares or max(shares) < SAME_FACE:
                self._people.append(_Person(one, portrait_frame(one.landmarks[0])))
                continue
            person = known[int(np.argmax(shares))]
            if person in unseen:
                unseen.remove(person)
                self._move(person, one)
        return unseen

    def _move(self, person: _Person, now: Detections) -> None:
        person.found, person.lost = now, 0
        person.frame = between(person.frame, portrait_frame(now.landmarks[0]), self.smoothing.past)

    def _heads(self, image: Rgb) -> tuple[HeadMask, ...]:
        frames = [person.frame for person in self._people]
        for person, hair in zip(self._people, head_maps(self.engine, image, frames), strict=True):
            person.hair = hair if person.hair is None else self._mixed(person.hair, hair)
        maps = [person.hair for person in self._people if person.hair is not None]
        placed, _ = place_heads(image, frames, maps, EDGES if self.rules.refine else None)
        return tuple(
            self._steadied(person, head) for person, head in zip(self._people, placed, strict=True) if head is not None
        )

    def _mixed(self, before: Floats, now: Floats) -> Floats:
        past = np.float32(self.smoothing.past)
        return past * before + (1 - past) * now

    def _steadied(self, person: _Person, head: HeadMask) -> HeadMask:
        """The dye's gradient hangs on the first and last hair row, where single pixels come and go: smoothed too."""
        if not head.has_rows:
            return head
        centre, height = person.frame.centre[1], person.frame.height
        rows = np.array([head.mask.top[0], head.mask.bottom[0]], np.float64) + head.top
        first, last = (rows - centre) / height
        if person.extent is not None:
            past = self.smoothing.past
            first, last = past * person.extent[0] + (1 - past) * first, past * person.extent[1] + (1 - past) * last
        person.extent = float(first), float(last)
        top, bottom = (round(value * height + centre) - head.top for value in person.extent)
        # The gradient's first row counts from the mask's own; rows above it do not exist there.
        top = max(0, top)
        mask = HairMask(head.mask.coverage, np.array([top], np.int32), np.array([max(top, bottom)], np.int32))
        return replace(head, mask=mask)

    def _portrait(self, image: Rgb) -> tuple[HeadMask, ...]:
        """The whole frame as one portrait, smoothed where it is."""
        hair = find_hair(self.engine, [image])[0]
        if self._whole is not None and self._whole.shape == hair.shape:
            hair = self._mixed(self._whole, hair)
        self._whole = hair
        size = image.shape[0], image.shape[1]
        if self.rules.refine:
            hair, _ = spread_map(image, hair, np.ones_like(hair), whole_picture(*size), EDGES)
        return (HeadMask(0, 0, prepare_hair(hair[None], size, threads=1)),)


def overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - common
    return common / union if union > 0 else 0.0


def between(before: Frame, now: Frame, past: float) -> Frame:
    """A frame on its way from `before` to `now`; `now` itself after a jump of a quarter of its size."""
    step = float(np.hypot(now.centre[0] - before.centre[0], now.centre[1] - before.centre[1]))
    if step > now.width / 4 or not 0.7 < before.width / now.width < 1.4:
        return now
    x, y = (past * a + (1 - past) * b for a, b in zip(before.centre, now.centre, strict=True))
    right = past * np.array(before.right) + (1 - past) * np.array(now.right)
    length = float(np.hypot(*right))
    if length < 0.5:  # nearly opposite: upside down from one frame to the next
        return now
    side = float(np.exp(past * np.log(before.width) + (1 - past) * np.log(now.width)))
    return Frame((x, y), (float(right[0]) / length, float(right[1]) / length), side, side)


@dataclass(frozen=True)
class VideoResult:
    """What was read and found: frames in which a face was known, and the most at once."""

    video: VideoFacts
    with_faces: int
    most_faces: int

    def facts(self) -> dict[str, Any]:
        """For a metadata row."""
        return {**asdict(self.video), "frames_with_faces": self.with_faces, "faces": self.most_faces}


def recolor_video(
    source: Path,
    targets: Sequence[tuple[Path, Ombre | None]],
    engine: Engine,
    *,
    rules: FaceRules | None = None,
    smoothing: Smoothing | None = None,
    quality: int = 95,
    rounding: Rounding = "truncate",
    unweighted: bool = False,
    max_pixels: int = MAX_PIXELS,
    mark: Mark | None = None,
    advance: Callable[[int], None] = lambda frames: None,
    finish: Callable[[], None] = lambda: None,
) -> VideoResult:
    """Dye the hair of everybody in a video, once per target (its file, its dye); the video is read once.

    engine: a student, as for `find_hair`. unweighted: as of `HeadMask`. Files as `io.video.change_video` writes them.
    With no_face "skip" a video in which no frame shows a face raises ImageError and writes nothing; a frame without a
    face is left as it is.
    mark: of files in which anything was dyed. finish: called when all is made, before the files take their places.
    Raises InvalidInputError, ImageError and OutputError as `change_video` does.
    """
    hair = VideoHair(engine, rules or FaceRules(), smoothing or Smoothing(), unweighted)

    dyed = False

    def change(image: Rgb) -> list[Rgb]:
        nonlocal dyed
        heads = hair.find(image)
        dyed = dyed or any(head.has_hair for head in heads)
        return [
            image if ombre is None or not heads else dye_heads(image, heads, ombre, rounding, "cpu")
            for _, ombre in targets
        ]

    def marks() -> list[Mark | None]:
        return [mark if dyed and ombre is not None else None for _, ombre in targets]

    def approve() -> None:
        if hair.rules.detect == "auto" and hair.rules.no_face == "skip" and not hair.with_faces:
            raise ImageError(
                f"{source}: no face found in any of {hair.frames} frames: take the frames as portraits "
                "(--no-face whole), or look for smaller faces (--min-face)"
            )
        finish()

    files = [path for path, _ in targets]
    facts = change_video(
        source, files, change, quality=quality, max_pixels=max_pixels, marks=marks, advance=advance, approve=approve
    )
    return VideoResult(facts, hair.with_faces, hair.most_faces)
