"""Animated pictures: GIF, WebP and MP4."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ohlora.base.atomic import atomic_path
from ohlora.base.recipe import check, pick, setting
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.io.marking import Mark, mark_file
from ohlora.io.video_encoder import H264_CODECS, VideoEncoder

MIN_FPS, MAX_FPS = 0.01, 60.0
DEFAULT_QUALITY = 90


@dataclass(frozen=True)
class AnimationFormat:
    """How frames become a file.

    format: 'mp4' (H.264, yuv420p, BT.709; frames stream through, so any length; odd sizes repeat the last row
    and column), 'webp' (lossy) or 'gif' (256 colours per frame; delays are stored in hundredths of a second,
    so 30 fps plays at 33.3). fps: [0.01, 60], GIF up to 50, beyond which viewers slow down to 10. loop:
    endlessly, or once; MP4 leaves that to the player. quality: 1..100; GIF has none.

    Raises InvalidInputError for options out of range.
    """

    format: str
    fps: float
    quality: int = setting(DEFAULT_QUALITY, low=1, high=100)
    loop: bool = True

    def __post_init__(self) -> None:
        check(self)
        limit = pick(_FORMATS, self.format, "animation format").max_fps
        if not MIN_FPS <= self.fps <= limit:  # false for NaN
            raise InvalidInputError(
                f"fps of a {self.format} animation must be in [{MIN_FPS:g}, {limit:g}], got {self.fps:g}"
            )

    def write(self, path: Path | str, frames: Iterable[Rgb], mark: Mark | None = None) -> int:
        """Write uint8 RGB frames [H, W, 3] of one size to `path`, atomically. Returns how many were taken.

        mark: what the file says about its origin. Equal frames give equal bytes.
        Raises InvalidInputError for no frame, frames of differing sizes and too many
        pixels for the format; OutputError when the file cannot be written. Then nothing is left at `path`, or what was
        there before.
        """
        kind, count = _FORMATS[self.format], 0

        def checked() -> Iterator[Rgb]:
            nonlocal count
            shape: tuple[int, ...] | None = None
            for frame in frames:
                shape = self._check(frame, count, shape)
                count += 1
                yield np.ascontiguousarray(frame)

        source = checked()
        first = next(source, None)
        if first is None:
            raise InvalidInputError(f"cannot write {path}: an animation needs at least one frame")
        with atomic_path(path) as temporary:
            kind.write(temporary, itertools.chain([first], source), self)
            if mark is not None:
                mark_file(temporary, mark)
        return count

    def _check(self, frame: Rgb, number: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """Stops at a frame that does not fit the first one's shape, or at one too many."""
        kind = _FORMATS[self.format]
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise InvalidInputError(f"frame {number} is {frame.dtype} {list(frame.shape)}: uint8 [H, W, 3] is needed")
        height, width = frame.shape[:2]
        if shape is None and max(height, width) > kind.max_side:
            raise InvalidInputError(
                f"frames of {width} x {height} pixels: {self.format} stores at most {kind.max_side} a side"
            )
        if shape is not None and frame.shape != shape:
            raise InvalidInputError(
                f"frame {number} has {width} x {height} pixels, "
                f"the first {shape[1]} x {shape[0]}: an animation has one size"
            )
        if (number + 1) * height * width > kind.max_pixels:
            raise InvalidInputError(
                f"more than {number} frames of {width} x {height} pixels do not fit in memory as "
                f"{self.format}: use mp4, which has no such limit, or fewer frames"
            )
        return frame.shape


def write_animation(
    path: Path | str,
    frames: Iterable[Rgb],
    *,
    fps: float,
    format: str,
    loop: bool = True,
    quality: int = DEFAULT_QUALITY,
    mark: Mark | None = None,
) -> int:
    """`AnimationFormat.write` in one call; options and errors as there."""
    return AnimationFormat(format, fps, quality, loop).write(path, frames, mark)


def _write_gif(path: Path, frames: Iterator[Rgb], how: AnimationFormat) -> None:
    # A palette per frame, undithered. One palette for all frames was tried: a sweep through all hues leaves
    # so few colours for each that dyed hair turns into blocks (29 dB there against 35 to 37). Dithering
    # crawls.
    pictures = (with_palette(frame) for frame in frames)
    endless = {"loop": 0} if how.loop else {}  # without a loop count a GIF plays once
    delay = round(100 / how.fps) * 10  # ms
    next(pictures).save(path, "GIF", save_all=True, append_images=pictures, duration=delay, **endless)


def with_palette(frame: Rgb) -> Image.Image:
    """Reduce to 256 colours: octree, then one step of k-means (1 to 3 dB better; more steps add 0.1)."""
    image = Image.fromarray(frame)
    octree = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    # Cluster means from one pixel in four, by the octree's own assignment.
    index = np.asarray(octree)[::2, ::2].ravel()
    pixels = frame[::2, ::2].reshape(-1, 3)
    count = np.bincount(index, minlength=256)
    sums = np.stack([np.bincount(index, pixels[:, channel], 256) for channel in range(3)], axis=1)
    before = np.zeros(768)
    palette = octree.getpalette() or []
    before[: len(palette)] = palette
    means = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None] + 0.5, before.reshape(256, 3))
    holder = Image.new("P", (1, 1))
    holder.putpalette(means.astype(np.uint8).tobytes())
    return image.quantize(palette=holder, dither=Image.Dither.NONE)


def _write_webp(path: Path, frames: Iterator[Rgb], how: AnimationFormat) -> None:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": False, "quality": how.quality, "method": 4, "loop": 0 if how.loop else 1}
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=1000 / how.fps, **options)


def _write_mp4(path: Path, frames: Iterator[Rgb], how: AnimationFormat) -> None:
    first = next(frames)
    rate = Fraction(how.fps).limit_denominator(1001)  # 29.97 is 30000/1001
    with VideoEncoder(path, first.shape, H264_CODECS, how.quality, rate, container="mp4") as encoder:
        for frame in itertools.chain([first], frames):
            encoder.write(frame)
        encoder.finish()


@dataclass(frozen=True)
class _Format:
    write: Callable[[Path, Iterator[Rgb], AnimationFormat], None]
    max_fps: float
    max_side: int
    max_pixels: float  # of all frames together; Pillow holds them until the file is complete


_FORMATS = {
    "gif": _Format(_write_gif, 50.0, 65_535, 2e8),
    "webp": _Format(_write_webp, MAX_FPS, 16_383, 2e8),
    "mp4": _Format(_write_mp4, MAX_FPS, 8_192, float("inf")),
}
