"""Frames to a video file by FFmpeg (PyAV), the same bytes for the same frames."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from ohlora.base.closing import Closing
from ohlora.base.types import Rgb
from ohlora.errors import OutputError


def file_url(path: Path) -> str:
    """A path for FFmpeg, which takes "12:30.mp4" for an address."""
    return f"file:{path}"


@dataclass(frozen=True)
class Codec:
    """A video encoder of FFmpeg. even: it needs even sides."""

    name: str
    options: Callable[[int], dict[str, str]]  # of a quality 1..100
    even: bool = True


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
# For WebM. 95, the default of `recolor`, is quantiser 16 of 51 (x264) and 10 of 63 (VP9): hardly to be told from the
# source.
VP_CODECS = (
    Codec("libvpx-vp9", lambda q: {"crf": str(round(63 - q * 0.56)), "b": "0", "cpu-used": "4"}, even=False),
    Codec("libvpx", lambda q: {"crf": str(round(63 - q * 0.56)), "b": "20M", "cpu-used": "4"}, even=False),
)
BT709 = 1
# FFmpeg's number of a colour matrix -> the converter's. Others (BT.2020) are taken for BT.709 both ways, which leaves
# undyed colours right and dyed ones nearly so.
_MATRICES = {
    BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
}


def matrix_of(number: int) -> Colorspace:
    """FFmpeg's number of a colour matrix -> the converter's."""
    return _MATRICES.get(number, Colorspace.ITU709)


class VideoEncoder(Closing):
    """One video being written: 8-bit 4:2:0, limited range. The file is complete after `finish`.

    shape: (height, width, ...) of the frames; sides that must be even repeat the last row or column. codecs: the first
    that PyAV has here is taken. container: of FFmpeg, None to go by the path's suffix. colors: FFmpeg's numbers of
    matrix, primaries and transfer; untagged files are shown in guessed colours. time_base: of the frames' time stamps;
    None where they have none. sound: streams whose packets will be copied.

    Raises OutputError when no codec is there or it refuses; OSErrors pass.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        codecs: Sequence[Codec],
        quality: int,
        rate: Fraction,
        *,
        container: str | None = None,
        colors: tuple[int, int, int] = (BT709, BT709, BT709),
        time_base: Fraction | None = None,
        sound: Sequence[Any] = (),
    ) -> None:
        codec = _available(codecs)
        height, width = shape[:2]
        self._what = f"{width} x {height} pixels with {codec.name}"
        self._padding = (height % 2, width % 2) if codec.even else (0, 0)
        self._reformatter, self._matrix = VideoReformatter(), matrix_of(colors[0])
        self._time_base, self._last = time_base, -1
        # Matroska and WebM files have random numbers, unless FFmpeg is told to write the same bytes every time.
        options = {"fflags": "+bitexact"} if path.suffix in (".mkv", ".webm") else {"movflags": "+faststart"}
        with self._explained():
            self._container: Any = av.open(file_url(path), "w", format=container, options=options)
        stream = self._container.add_stream(codec.name, rate=rate, options=codec.options(quality))
        stream.width, stream.height = width + self._padding[1], height + self._padding[0]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # more threads give other bytes, run by run
        if time_base is not None:
            context.time_base = time_base
        context.colorspace, context.color_primaries, context.color_trc = colors
        context.color_range = 1  # limited ("MPEG")
        self._stream = stream
        self._sound = {one.index: self._container.add_stream_from_template(one) for one in sound}

    def close(self) -> None:
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

    def write(self, rgb: Rgb, pts: int | None = None) -> None:
        """The next frame, uint8 RGB [H,W,3]. pts: its time stamp."""
        if any(self._padding):
            rgb = np.pad(rgb, ((0, self._padding[0]), (0, self._padding[1]), (0, 0)), mode="edge")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix,
            # Full range. The result's is left open, which gives limited.
            src_color_range="JPEG",
        )
        if self._time_base is not None:
            # Time stamps must rise; a file whose do not is played in order all the same.
            self._last = picture.pts = max(self._last + 1, pts if pts is not None else 0)
            picture.time_base = self._time_base
        with self._explained():
            self._container.mux(self._stream.encode(picture))

    def copy(self, packet: Any) -> None:
        """A packet of sound, as it is."""
        packet.stream = self._sound[packet.stream.index]
        with self._explained():
            self._container.mux(packet)

    def finish(self) -> None:
        with self._explained():
            self._container.mux(self._stream.encode(None))
            self._container.close()


def _available(codecs: Sequence[Codec]) -> Codec:
    for codec in codecs:
        try:
            av.codec.Codec(codec.name, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            continue
        return codec
    names = ", ".join(codec.name for codec in codecs)
    raise OutputError(f"PyAV here has none of the video encoders {names}: use another format, such as gif")
