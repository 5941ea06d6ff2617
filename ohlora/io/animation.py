"""Animated pictures: GIF, WebP and MP4."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from PIL import Image

from ohlora.base.atomic import atomic_path
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError, OutputError

MIN_FPS, MAX_FPS = 0.01, 60.0
DEFAULT_QUALITY = 90


def write_animation(
    path: Path | str,
    frames: Iterable[Rgb],
    *,
    fps: float,
    format: str,
    loop: bool = True,
    quality: int = DEFAULT_QUALITY,
) -> int:
    """Write uint8 RGB frames [H, W, 3] of one size to `path`, atomically. Returns how many were taken.

    format: 'mp4' (H.264, yuv420p, BT.709; frames stream through, so any length; odd sizes repeat the last row
    and column), 'webp' (lossy) or 'gif' (256 colours per frame; delays are stored in hundredths of a second,
    so 30 fps plays at 33.3). fps: [0.01, 60], GIF up to 50, beyond which viewers slow down to 10. loop:
    endlessly, or once; MP4 leaves that to the player. quality: 1..100; GIF has none. Equal frames give equal
    bytes.

    Raises InvalidInputError for options out of range, no frame, frames of differing sizes and too many pixels for
    the format; OutputError when the file cannot be written. Then nothing is left at `path`, or what was there
    before.
    """
    path = Path(path)
    kind = _FORMATS.get(format)
    if kind is None:
        raise InvalidInputError(f"unknown animation format '{format}': choose one of {', '.join(_FORMATS)}")
    if not MIN_FPS <= fps <= kind.max_fps:  # false for NaN
        raise InvalidInputError(f"fps of a {format} animation must be in [{MIN_FPS:g}, {kind.max_fps:g}], got {fps:g}")
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"quality must be in [1, 100], got {quality}")
    checked = _CheckedFrames(frames, format, kind)
    first = next(checked, None)
    if first is None:
        raise InvalidInputError(f"cannot write {path}: an animation needs at least one frame")
    with atomic_path(path) as temporary:
        kind.write(temporary, itertools.chain([first], checked), fps, loop, quality)
    return checked.count


class _CheckedFrames:
    """Passes frames on and stops at one that does not fit the first, or at one too many."""

    def __init__(self, frames: Iterable[Rgb], format: str, kind: _Format) -> None:
        self._frames, self._format, self._kind = iter(frames), format, kind
        self._shape: tuple[int, ...] | None = None
        self.count = 0

    def __iter__(self) -> Iterator[Rgb]:
        return self

    def __next__(self) -> Rgb:
        frame = next(self._frames)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise InvalidInputError(
                f"frame {self.count} is {frame.dtype} {list(frame.shape)}: uint8 [H, W, 3] is needed"
            )
        height, width = frame.shape[:2]
        if self._shape is None:
            self._shape = frame.shape
            if max(height, width) > self._kind.max_side:
                raise InvalidInputError(
                    f"frames of {width} x {height} pixels: {self._format} stores at most {self._kind.max_side} a side"
                )
        if frame.shape != self._shape:
            raise InvalidInputError(
                f"frame {self.count} has {width} x {height} pixels, "
                f"the first {self._shape[1]} x {self._shape[0]}: an animation has one size"
            )
        self.count += 1
        if self.count * height * width > self._kind.max_pixels:
            raise InvalidInputError(
                f"more than {self.count - 1} frames of {width} x {height} pixels do not fit in memory as "
                f"{self._format}: use mp4, which has no such limit, or fewer frames"
            )
        return np.ascontiguousarray(frame)


def _write_gif(path: Path, frames: Iterator[Rgb], fps: float, loop: bool, quality: int) -> None:
    # A palette per frame, undithered. One palette for all frames was tried: a sweep through all hues leaves
    # so few colours for each that dyed hair turns into blocks (29 dB there against 35 to 37). Dithering
    # crawls.
    pictures = (with_palette(frame) for frame in frames)
    endless = {"loop": 0} if loop else {}  # without a loop count a GIF plays once
    delay = round(100 / fps) * 10  # ms
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


def _write_webp(path: Path, frames: Iterator[Rgb], fps: float, loop: bool, quality: int) -> None:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": False, "quality": quality, "method": 4}
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=1000 / fps, loop=0 if loop else 1, **options)


@dataclass(frozen=True)
class Codec:
    """A video encoder of FFmpeg."""

    name: str
    options: Callable[[int], dict[str, str]]  # of a quality 1..100


def _h264_quantiser(quality: int) -> str:
    return str(round(51 - quality * 11 / 30))  # quality 90 is 18, visually lossless; 100 is 14


# For MP4, Matroska and QuickTime. The first one that this build of FFmpeg has is used.
H264_CODECS = (
    # mbtree, the weighting of macroblocks by how long they stay in view, made x264 write other bytes run by
    # run at widths that are no multiple of 128 (one thread; 43 of 90 sizes tried). Without it a file is a
    # third larger.
    Codec("libx264", lambda quality: {"preset": "medium", "mbtree": "0", "crf": _h264_quantiser(quality)}),
    Codec("libopenh264", lambda quality: {"qmin": "1", "qmax": _h264_quantiser(quality)}),
    # 118 is FFmpeg's FF_QP2LAMBDA, the unit of global_quality; quality 90 is quantiser 5 of 2..31.
    Codec("mpeg4", lambda quality: {"flags": "+qscale", "global_quality": str(118 * round(31 - quality * 0.29))}),
)


def available_codec(codecs: Sequence[Codec], remedy: str) -> Codec:
    """The first of `codecs` that PyAV has here. Raises OutputError with the remedy when it has none."""
    for codec in codecs:
        try:
            av.codec.Codec(codec.name, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            continue
        return codec
    names = ", ".join(codec.name for codec in codecs)
    raise OutputError(f"PyAV here has none of the video encoders {names}: {remedy}")


def _write_mp4(path: Path, frames: Iterator[Rgb], fps: float, loop: bool, quality: int) -> None:
    codec = available_codec(H264_CODECS, "write a gif or webp")
    first = next(frames)
    height, width = first.shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))  # yuv420p halves both sides of its colour planes
    converter = VideoReformatter()
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(1001)  # 29.97 is 30000/1001
            stream = container.add_stream(codec.name, rate=rate, options=codec.options(quality))
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.thread_count = 1  # more threads give other bytes, run by run
            # 1 is BT.709 in each of these, and limited ("MPEG") range; untagged files are shown in guessed
            # colours.
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
            for frame in itertools.chain([first], frames):
                even = np.pad(frame, padding, mode="edge") if height % 2 or width % 2 else frame
                picture = converter.reformat(
                    av.VideoFrame.from_ndarray(even, format="rgb24"),
                    format="yuv420p",
                    src_colorspace=Colorspace.ITU709,
                    dst_colorspace=Colorspace.ITU709,
                    # Full range. The result's is left open, which gives limited: naming both goes wrong in
                    # PyAV 12.
                    src_color_range="JPEG",
                )
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise  # atomic_path explains a full disk and its like
        raise OutputError(f"cannot encode {width} x {height} pixels with {codec.name}: {error}") from error


@dataclass(frozen=True)
class _Format:
    write: Callable[[Path, Iterator[Rgb], float, bool, int], None]
    max_fps: float
    max_side: int
    max_pixels: float  # of all frames together; Pillow holds them until the file is complete


_FORMATS = {
    "gif": _Format(_write_gif, 50.0, 65_535, 2e8),
    "webp": _Format(_write_webp, MAX_FPS, 16_383, 2e8),
    "mp4": _Format(_write_mp4, MAX_FPS, 8_192, float("inf")),
}
