"""Videos in and out, frame by frame: change the picture, keep format, size, timing and sound."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from ohlora.base.atomic import atomic_path
from ohlora.base.types import Rgb
from ohlora.errors import ImageError, InvalidInputError, OhloraError
from ohlora.io.animation import with_palette
from ohlora.io.images import MAX_PIXELS, files_inside, over_white
from ohlora.io.marking import Mark, mark_file
from ohlora.io.video_encoder import BT709, H264_CODECS, VP_CODECS, VideoEncoder, file_url, matrix_of

GIF_PIXELS = 2e8  # of all frames of an animation together; they are held until the file is complete
# Frames a header may promise beyond those there are: edit lists and broken last packets cost a few.
MISSING_FRAMES = 10

Change = Callable[[Rgb], Sequence[Rgb]]
Advance = Callable[[int], None]

_CODECS = {".mp4": H264_CODECS, ".m4v": H264_CODECS, ".mov": H264_CODECS, ".mkv": H264_CODECS, ".webm": VP_CODECS}
SUFFIXES = tuple(_CODECS)
_EBML, _MOV_BOXES = b"\x1a\x45\xdf\xa3", (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_UNSPECIFIED, _BT601, _HD_ROWS = 2, 6, 720


@dataclass(frozen=True)
class VideoFacts:
    """What was read: frames, how many a second on average (0: not known), and their size as shown."""

    frames: int
    fps: float
    width: int
    height: int


def is_video(path: Path) -> bool:
    """Whether a file is handled as a video: by its suffix; a GIF when it has more than one frame."""
    if path.suffix.lower() != ".gif":
        return path.suffix.lower() in _CODECS
    try:
        with Image.open(path, formats=["GIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # as a picture it gets the error that names what is wrong
        return False


def list_videos(roots: Sequence[Path], recursive: bool = False) -> list[Path]:
    """Videos by suffix inside the folders among `roots`, sorted; hidden ones are skipped. GIFs are not counted."""
    folders = [root for root in roots if root.is_dir()]
    return sorted({path for folder in folders for path in files_inside(folder, SUFFIXES, recursive)})


def expected_frames(path: Path) -> int:
    """How many frames a video's header promises; 0 where it does not say or cannot be read. For progress only."""
    try:
        if path.suffix.lower() == ".gif":
            with Image.open(path, formats=["GIF"]) as image:
                return int(getattr(image, "n_frames", 1))
        with _opened(path) as given:
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
    marks: Callable[[], Sequence[Mark | None]] = lambda: (),
    advance: Advance = lambda frames: None,
    approve: Callable[[], None] = lambda: None,
) -> VideoFacts:
    """Read `source` once, and write each frame as `change` returns it, one picture per target.

    change: uint8 RGB [H,W,3], upright -> as many of the same size as there are targets. Each target has the source's
    suffix. Sound is copied as it is; time stamps are kept, so variable frame rates stay what they are. Pictures are
    8-bit 4:2:0; odd sizes of H.264 repeat the last row or column; other streams (subtitles) are left out. A GIF's
    frames are held, with 256 colours each, until it is complete; all else streams through. quality: 1..100, not of GIF.
    marks: called when all frames are there: the mark of each target, or none of all. approve: called last; what it
    raises leaves the targets untouched.

    Raises ImageError when the source cannot be read to its end or has more than max_pixels a frame, OutputError when a
    target cannot be written, InvalidInputError for a suffix that is not known. Then no target is touched.
    """
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"quality must be in [1, 100], got {quality}")
    suffix = source.suffix.lower()
    if suffix != ".gif" and suffix not in _CODECS:
        raise InvalidInputError(f"{source}: videos are {', '.join((*SUFFIXES, '.gif'))}")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(atomic_path(target)) for target in targets]
        if suffix == ".gif":
            facts = _change_gif(source, files, change, max_pixels, advance)
        else:
            facts = _change_container(source, files, change, quality, max_pixels, advance)
        for file, mark in zip(files, marks(), strict=False):
            if mark is not None:
                mark_file(file, mark)
        approve()
        return facts


# --- containers ------------------------------------------------------------------------------------------------------


def _change_container(
    source: Path, files: Sequence[Path], change: Change, quality: int, max_pixels: int, advance: Advance
) -> VideoFacts:
    writers: list[VideoEncoder] = []
    shape: tuple[int, ...] = ()
    count = 0
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(_opened(source))
        if not given.streams.video:
            raise _unreadable(source, "there is no video in it")
        video, sound = given.streams.video[0], list(given.streams.audio)
        if video.codec_context is None:  # then PyAV's stream has no sizes either
            raise _unreadable(source, "nothing here decodes its video; convert it to H.264")
        _check_pixels(source, video.width, video.height, max_pixels)
        video.thread_type = "AUTO"
        waiting: list[Any] = []  # sound before the first picture, whose size the outputs need
        for packet, frames in _decoded(given, video, sound, source):
            if packet.stream is not video and packet.dts is not None:
                waiting.append(packet)
            for frame in frames:
                rgb = _upright(frame)
                if not writers:
                    shape = rgb.shape
                    writers = [
                        stack.enter_context(_writer(file, frame, shape, video, sound, quality)) for file in files
                    ]
                if rgb.shape != shape:
                    raise _unreadable(
                        source,
                        f"its size changes from {shape[1]} x {shape[0]} to {rgb.shape[1]} x {rgb.shape[0]} at frame "
                        f"{count}; convert it to one size",
                    )
                for writer, result in zip(writers, change(rgb), strict=True):
                    writer.write(result, frame.pts)
                count += 1
                advance(1)
            if writers:
                for item in waiting:
                    for writer in writers[1:]:
                        writer.copy(_copied(item))
                    writers[0].copy(item)
                waiting.clear()
        if not count or video.frames - count > MISSING_FRAMES + video.frames // 10:
            raise _unreadable(source, f"{count} of {video.frames} frames are there, it is truncated; copy it again")
        for writer in writers:
            writer.finish()
        rate = video.average_rate
    return VideoFacts(count, round(float(rate), 3) if rate else 0.0, shape[1], shape[0])


def _opened(source: Path) -> Any:
    """The container, of the kind that the file's first bytes say: FFmpeg would follow lists of other files too.

    Raises ImageError.
    """
    try:
        with source.open("rb") as file:
            start = file.read(12)
        demuxer = "matroska" if start.startswith(_EBML) else "mov" if start[4:8] in _MOV_BOXES else None
        if demuxer is None:
            raise _unreadable(source, "its content is not MP4, MOV, Matroska or WebM; copy or convert it again")
        return av.open(file_url(source), format=demuxer)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(source, _reason(error)) from error


def _unreadable(source: Path, why: str) -> ImageError:
    return ImageError(f"cannot read {source}: {why}")


def _check_pixels(source: Path, width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise _unreadable(
            source, f"frames of {width} x {height} pixels are more than the limit of {limit:,}; make the video smaller"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the path"
    if isinstance(error, PermissionError):
        return "no permission; make it readable or leave it out"
    detail = getattr(error, "strerror", None) or str(error)
    return f"the file is damaged or no video ({detail}); copy or convert it again"


def _decoded(given: Any, video: Any, sound: list[Any], source: Path) -> Iterator[tuple[Any, list[Any]]]:
    """Packets, and the frames of each that is the video's."""
    try:
        for packet in given.demux([video, *sound]):
            yield packet, list(packet.decode()) if packet.stream is video else []
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise _unreadable(source, _reason(error)) from error


def _writer(file: Path, frame: Any, shape: tuple[int, ...], video: Any, sound: list[Any], quality: int) -> VideoEncoder:
    """With the rate, time stamps and colours of the source, of which `frame` is the first."""
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    colors = (_matrix(frame), _named(frame, "color_primaries"), _named(frame, "color_trc"))
    codecs = _CODECS[file.suffix.lower()]
    return VideoEncoder(file, shape, codecs, quality, rate, colors=colors, time_base=video.time_base, sound=sound)


def _matrix(frame: Any) -> int:
    """FFmpeg's number of the frame's colour matrix; where it is not named, what players take for its size."""
    named = _named(frame, "colorspace")
    return named if named not in (0, _UNSPECIFIED) else BT709 if frame.height >= _HD_ROWS else _BT601


def _named(frame: Any, tag: str) -> int:
    """FFmpeg's number of a color tag. Some releases of PyAV refuse numbers that they have no name for."""
    try:
        return int(getattr(frame, tag))
    except ValueError:
        return _UNSPECIFIED


def _upright(frame: Any) -> Rgb:
    rgb = VideoReformatter().reformat(frame, format="rgb24", src_colorspace=matrix_of(_matrix(frame))).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # degrees anticlockwise
    return np.ascontiguousarray(np.rot90(rgb, turns) if turns else rgb)


def _copied(packet: Any) -> Any:
    """Muxing changes a packet, so every further output needs its own."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.stream, copy.is_keyframe, copy.duration = packet.stream, packet.is_keyframe, packet.duration
    return copy


# --- GIF -------------------------------------------------------------------------------------------------------------


def _change_gif(source: Path, files: Sequence[Path], change: Change, max_pixels: int, advance: Advance) -> VideoFacts:
    results: list[list[Image.Image]] = [[] for _ in files]
    delays: list[int] = []
    try:
        with Image.open(source, formats=["GIF"]) as image:
            width, height = image.size
            _check_pixels(source, width, height, max_pixels)
            loop = image.info.get("loop")
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                if (number + 1) * width * height * len(files) > GIF_PIXELS:
                    raise _unreadable(source, "too many pixels for GIFs; convert it to mp4")
                delays.append(int(image.info.get("duration", 100)))
                for frames, result in zip(results, change(over_white(image)), strict=True):
                    frames.append(with_palette(result))
                advance(1)
    except OhloraError:  # of ours or of whoever changes the frames: no fault of the file
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise _unreadable(source, f"the file is damaged ({error}); copy it again") from error
    endless = {} if loop is None else {"loop": loop}
    for frames, file in zip(results, files, strict=True):
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=delays, optimize=False, **endless)
    seconds = sum(delays) / 1000
    return VideoFacts(len(delays), round(len(delays) / seconds, 3) if seconds else 0.0, width, height)
