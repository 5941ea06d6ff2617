"""Videos in and out, frame by frame: change the picture, keep format, size, timing and sound."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from PIL import Image

from ohlora.base.atomic import atomic_path
from ohlora.base.types import Rgb
from ohlora.errors import ImageError, InvalidInputError, OutputError
from ohlora.io.animation import H264_CODECS, Codec, available_codec, with_palette
from ohlora.io.images import MAX_PIXELS

GIF_PIXELS = 2e8  # of all frames of an animation together; they are held until the file is complete
# Frames a header may promise beyond those there are: edit lists and broken last packets cost a few.
MISSING_FRAMES = 10

Change = Callable[[Rgb], Sequence[Rgb]]


# 95, the default of `recolor`, is quantiser 16 of 51 (x264) and 10 of 63 (VP9): hardly to be told from the source.
_VP9 = Codec("libvpx-vp9", lambda quality: {"crf": str(round(63 - quality * 0.56)), "b": "0", "cpu-used": "4"})
_VP8 = Codec("libvpx", lambda quality: {"crf": str(round(63 - quality * 0.56)), "b": "20M", "cpu-used": "4"})


@dataclass(frozen=True)
class _Container:
    codecs: tuple[Codec, ...]  # the first one that this build of FFmpeg has is used
    options: dict[str, str]


_FAST_START = {"movflags": "+faststart"}
_CONTAINERS = {
    ".mp4": _Container(H264_CODECS, _FAST_START),
    ".m4v": _Container(H264_CODECS, _FAST_START),
    ".mov": _Container(H264_CODECS, _FAST_START),
    ".mkv": _Container(H264_CODECS, {}),
    ".webm": _Container((_VP9, _VP8), {}),
}
SUFFIXES = tuple(_CONTAINERS)

# FFmpeg's number of a colour matrix -> the converter's. Others (BT.2020) are taken for BT.709 both ways, which leaves
# undyed colours right and dyed ones nearly so.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
}
_UNSPECIFIED, _BT709, _BT601, _HD_ROWS = 2, 1, 6, 720


@dataclass(frozen=True)
class VideoFacts:
    """What was read: frames, their size as shown, and frames per second on average (0: not known)."""

    frames: int
    width: int
    height: int
    fps: float


def is_video(path: Path) -> bool:
    """Whether a file is handled as a video: by its suffix; a GIF when it has more than one frame."""
    if path.suffix.lower() != ".gif":
        return path.suffix.lower() in _CONTAINERS
    try:
        with Image.open(path, formats=["GIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # as a picture it gets the error that names what is wrong
        return False


def list_videos(roots: Sequence[Path], recursive: bool = False) -> list[Path]:
    """Videos by suffix inside the folders among `roots`, sorted; hidden ones are skipped. GIFs are not counted."""
    found: list[Path] = []
    for root in roots:
        for folder, below, names in os.walk(root) if root.is_dir() else ():
            below[:] = sorted(name for name in below if recursive and not name.startswith("."))
            visible = (name for name in names if not name.startswith("."))
            found += [Path(folder, name) for name in visible if Path(name).suffix.lower() in _CONTAINERS]
    return sorted(set(found))


def expected_frames(path: Path) -> int:
    """How many frames a video's header promises; 0 where it does not say or cannot be read. For progress only."""
    try:
        if path.suffix.lower() == ".gif":
            with Image.open(path, formats=["GIF"]) as image:
                return int(getattr(image, "n_frames", 1))
        with av.open(str(path)) as given:
            video = given.streams.video[0]
            if video.frames or not given.duration or not video.average_rate:
                return int(video.frames)
            return int(given.duration / av.time_base * video.average_rate)
    except Exception:  # reading it for real tells what is wrong
        return 0


def change_video(
    source: Path,
    targets: Sequence[Path],
    change: Change,
    *,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
    advance: Callable[[int], None] = lambda frames: None,
    approve: Callable[[], None] = lambda: None,
) -> VideoFacts:
    """Read `source` once, and write each frame as `change` returns it, one picture per target.

    change: uint8 RGB [H,W,3], upright -> as many of the same size as there are targets. Each target has the source's
    suffix. Sound is copied as it is; time stamps are kept, so variable frame rates stay what they are. Pictures are
    8-bit 4:2:0; odd sizes of H.264 repeat the last row or column; other streams (subtitles) are left out. A GIF's
    frames are held, with 256 colours each, until it is complete; all else streams through. quality: 1..100, not of GIF.
    approve: called when all frames are there; what it raises leaves the targets untouched.

    Raises ImageError when the source cannot be read to its end or has more than max_pixels a frame, OutputError when a
    target cannot be written, InvalidInputError for a suffix that is not known. Then no target is touched.
    """
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"quality must be in [1, 100], got {quality}")
    suffix = source.suffix.lower()
    if suffix != ".gif" and suffix not in _CONTAINERS:
        raise InvalidInputError(f"{source}: videos are {', '.join((*SUFFIXES, '.gif'))}")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(atomic_path(target)) for target in targets]
        if suffix == ".gif":
            facts = _change_gif(source, files, change, max_pixels, advance)
        else:
            facts = _change_container(source, files, change, quality, max_pixels, advance)
        approve()
        return facts


# --- containers ------------------------------------------------------------------------------------------------------


def _change_container(
    source: Path,
    files: Sequence[Path],
    change: Change,
    quality: int,
    max_pixels: int,
    advance: Callable[[int], None],
) -> VideoFacts:
    writers: list[_Writer] = []
    shape: tuple[int, ...] = ()
    count = 0
    with contextlib.ExitStack() as stack:
        try:
            given = stack.enter_context(av.open(str(source)))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ImageError(f"cannot read {source}: {_reason(error)}") from error
        if not given.streams.video:
            raise ImageError(f"cannot read {source}: there is no video in it")
        video, sound = given.streams.video[0], list(given.streams.audio)
        if video.width * video.height > max_pixels:
            raise ImageError(
                f"cannot read {source}: frames of {video.width} x {video.height} pixels are more than the limit of "
                f"{max_pixels:,}; make the video smaller"
            )
        video.thread_type = "AUTO"
        waiting: list[Any] = []  # sound before the first picture, whose size the outputs need
        for packet in _packets(given, [video, *sound], source):
            if packet.stream is not video:
                if packet.dts is not None:
                    waiting.append(packet)
            else:
                for frame in _decoded(packet, source):
                    matrix = _matrix(frame)
                    rgb = _upright(frame, matrix)
                    if not writers:
                        shape = rgb.shape
                        writers = [
                            stack.enter_context(_Writer(file, video, sound, frame, rgb, quality)) for file in files
                        ]
                    if rgb.shape != shape:
                        raise ImageError(
                            f"cannot read {source}: its size changes from {shape[1]} x {shape[0]} to "
                            f"{rgb.shape[1]} x {rgb.shape[0]} at frame {count}; convert it to one size"
                        )
                    for writer, result in zip(writers, change(rgb), strict=True):
                        writer.write(result, frame)
                    count += 1
                    advance(1)
            if writers:
                for item in waiting:
                    for number, writer in enumerate(writers):
                        writer.copy(item if number == len(writers) - 1 else _copied(item))
                waiting = []
        missing = video.frames - count
        if not count or missing > MISSING_FRAMES + video.frames // 10:
            raise ImageError(
                f"cannot read {source}: {count} of {video.frames} frames are there, it is truncated; copy it again"
            )
        for writer in writers:
            writer.finish()
        rate = video.average_rate
    return VideoFacts(count, shape[1], shape[0], round(float(rate), 3) if rate else 0.0)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the path"
    if isinstance(error, PermissionError):
        return "no permission; make it readable or leave it out"
    detail = getattr(error, "strerror", None) or str(error)
    return f"the file is damaged or no video ({detail}); copy or convert it again"


def _packets(given: Any, streams: list[Any], source: Path) -> Iterator[Any]:
    try:
        yield from given.demux(streams)
    except (av.FFmpegError, EOFError) as error:
        raise ImageError(f"cannot read {source}: {_reason(error)}") from error


def _decoded(packet: Any, source: Path) -> list[Any]:
    try:
        return list(packet.decode())
    except (av.FFmpegError, EOFError) as error:
        raise ImageError(f"cannot read {source}: {_reason(error)}") from error


def _matrix(frame: Any) -> int:
    """FFmpeg's number of the frame's colour matrix; where it is not named, what players take for its size."""
    named = int(frame.colorspace)
    return named if named not in (0, _UNSPECIFIED) else _BT709 if frame.height >= _HD_ROWS else _BT601


def _upright(frame: Any, matrix: int) -> Rgb:
    space = _MATRICES.get(matrix, Colorspace.ITU709)
    rgb = VideoReformatter().reformat(frame, format="rgb24", src_colorspace=space).to_ndarray()
    # Degrees anticlockwise; PyAV before 14 does not tell, and shows such videos as they are stored.
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns) if turns else rgb)


def _copied(packet: Any) -> Any:
    """Muxing changes a packet, so every further output needs its own."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.stream, copy.is_keyframe = packet.stream, packet.is_keyframe
    with contextlib.suppress(AttributeError):  # read-only before PyAV 13
        copy.duration = packet.duration
    return copy


class _Writer:
    """One output file: encodes pictures, copies sound packets."""

    def __init__(self, path: Path, video: Any, sound: list[Any], frame: Any, first: Rgb, quality: int) -> None:
        kind = _CONTAINERS[path.suffix.lower()]
        codec = available_codec(kind.codecs, "convert the video to another format")
        self._what = f"{first.shape[1]} x {first.shape[0]} pixels with {codec.name}"
        self._reformatter, self._matrix = VideoReformatter(), _matrix(frame)
        height, width = first.shape[:2]
        self._padding = (0, 0) if codec in (_VP9, _VP8) else (height % 2, width % 2)
        self._last = -1
        with self._explained():
            self._container = av.open(str(path), "w", options=kind.options)
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        stream = self._container.add_stream(codec.name, rate=rate, options=codec.options(quality))
        stream.width, stream.height = width + self._padding[1], height + self._padding[0]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # more threads give other bytes, run by run
        context.time_base = self._time_base = video.time_base
        context.colorspace, context.color_range = self._matrix, 1
        for name in ("color_primaries", "color_trc"):
            setattr(context, name, getattr(frame, name))
        self._stream = stream
        add = getattr(self._container, "add_stream_from_template", None)
        self._sound = {s.index: add(s) if add else self._container.add_stream(template=s) for s in sound}

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(av.FFmpegError, OSError):
            self._container.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise  # atomic_path explains a full disk and its like
            raise OutputError(f"cannot encode {self._what}: {error}") from error

    def write(self, rgb: Rgb, source: Any) -> None:
        if any(self._padding):
            rgb = np.pad(rgb, ((0, self._padding[0]), (0, self._padding[1]), (0, 0)), mode="edge")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            format="yuv420p",
            dst_colorspace=_MATRICES.get(self._matrix, Colorspace.ITU709),
            src_color_range="JPEG",
        )
        # Time stamps must rise; a file whose do not is played in order all the same.
        self._last = picture.pts = max(self._last + 1, source.pts if source.pts is not None else 0)
        picture.time_base = self._time_base
        with self._explained():
            self._container.mux(self._stream.encode(picture))

    def copy(self, packet: Any) -> None:
        packet.stream = self._sound[packet.stream.index]
        with self._explained():
            self._container.mux(packet)

    def finish(self) -> None:
        with self._explained():
            self._container.mux(self._stream.encode(None))
            self._container.close()


# --- GIF -------------------------------------------------------------------------------------------------------------


def _change_gif(
    source: Path, files: Sequence[Path], change: Change, max_pixels: int, advance: Callable[[int], None]
) -> VideoFacts:
    results: list[list[Image.Image]] = [[] for _ in files]
    delays: list[int] = []
    shape: tuple[int, ...] = ()
    try:
        with Image.open(source, formats=["GIF"]) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"cannot read {source}: {image.width} x {image.height} pixels are more than the limit")
            loop = image.info.get("loop")
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                if (number + 1) * image.width * image.height * len(files) > GIF_PIXELS:
                    raise ImageError(f"cannot read {source}: too many pixels for GIFs; convert it to mp4")
                rgba = image.convert("RGBA")
                flat = Image.new("RGB", rgba.size, (255, 255, 255))
                flat.paste(rgba, mask=rgba.getchannel("A"))
                rgb = np.array(flat)
                shape = rgb.shape
                delays.append(int(image.info.get("duration", 100)))
                for frames, result in zip(results, change(rgb), strict=True):
                    frames.append(with_palette(result))
                advance(1)
    except (ImageError, InvalidInputError):
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise ImageError(f"cannot read {source}: the file is damaged ({error}); copy it again") from error
    endless = {} if loop is None else {"loop": loop}
    for frames, file in zip(results, files, strict=True):
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=delays, optimize=False, **endless)
    seconds = sum(delays) / 1000
    return VideoFacts(len(delays), shape[1], shape[0], round(len(delays) / seconds, 3) if seconds else 0.0)
