"""The mark of synthetic files: where each format keeps it, that pixels stay, and that strangers' marks are read."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from ohlora.base.types import Rgb
from ohlora.errors import ImageError
from ohlora.io.animation import write_animation
from ohlora.io.images import EXTENSIONS, encode_image
from ohlora.io.marking import RECOLORED, RENDERED, Mark, mark_image, mark_movie, read_mark

URI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def noise(height: int, width: int) -> Rgb:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_packet_holds_the_full_uri_uncompressed() -> None:
    packet = RENDERED.packet()
    assert f'Iptc4xmpExt:DigitalSourceType="{URI}"'.encode() in packet
    assert b'xmp:CreatorTool="ohlora"' in packet  # no version: equal bytes from release to release
    assert RENDERED.uri == URI
    assert packet == Mark("trainedAlgorithmicMedia").packet()
    assert b"\0" not in packet  # a GIF's application block ends at one


@pytest.mark.parametrize("format", list(EXTENSIONS))
@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_pixels_stay_and_the_mark_is_read(format: str, height: int, width: int) -> None:
    plain = encode_image(noise(height, width), format)
    marked = mark_image(plain, RECOLORED)
    before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (plain, marked))
    assert (before == after).all()
    assert RECOLORED.packet() in marked
    assert Image.open(io.BytesIO(marked)).info["xmp"].startswith(b"<?xpacket begin")


@pytest.mark.parametrize("format", list(EXTENSIONS))
def test_round_trip_of_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{EXTENSIONS[format]}"
    path.write_bytes(encode_image(noise(9, 7), format))
    assert read_mark(path) is None
    path.write_bytes(mark_image(path.read_bytes(), RENDERED))
    assert read_mark(path) == RENDERED


@pytest.mark.parametrize(("format", "options"), [("WEBP", {"lossless": True}), ("WEBP", {"quality": 80}), ("PNG", {})])
def test_alpha_stays(format: str, options: dict[str, object]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (21, 34, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    marked = Image.open(io.BytesIO(mark_image(file.getvalue(), RENDERED)))
    assert marked.mode == "RGBA"
    assert (np.asarray(marked) == np.asarray(Image.open(file))).all()


def test_exif_stays_first_in_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    file = io.BytesIO()
    Image.fromarray(noise(8, 8)).save(file, "JPEG", exif=exif)
    marked = mark_image(file.getvalue(), RENDERED)
    assert marked.index(b"JFIF") < marked.index(b"Exif\0\0") < marked.index(b"http://ns.adobe.com/xap/1.0/")
    assert Image.open(io.BytesIO(marked)).getexif()[0x010F] == "maker"


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_animated_frames_stay(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    write_animation(path, [np.roll(noise(24, 30), step, 0) for step in range(4)], fps=10, format=format)
    plain = path.read_bytes()
    path.write_bytes(mark_image(plain, RENDERED))

    def frames(data: bytes) -> list[np.ndarray]:
        return [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]

    assert all((one == other).all() for one, other in zip(frames(plain), frames(path.read_bytes()), strict=True))
    assert Image.open(path).info.get("loop") == Image.open(io.BytesIO(plain)).info.get("loop")
    assert read_mark(path) == RENDERED


def test_movie_keeps_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_animation(path, [noise(32, 32)] * 5, fps=10, format="mp4")
    plain = path.read_bytes()
    assert read_mark(path) is None
    mark_movie(path, RENDERED)
    assert path.read_bytes().startswith(plain)
    assert read_mark(path) == RENDERED
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_mark_of_another_program_is_read(tmp_path: Path) -> None:
    packet = (
        b"<x:xmpmeta><rdf:Description><Iptc4xmpExt:DigitalSourceType>\n"
        b"http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture</Iptc4xmpExt:DigitalSourceType>"
        b"</rdf:Description></x:xmpmeta>"
    )
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(8, 8)).save(path, "JPEG", xmp=packet)
    assert read_mark(path) == Mark("digitalCapture", tool="")


@pytest.mark.parametrize("data", [b"", b"GIF", b"BM" + bytes(60), b"%PDF-1.7"])
def test_other_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a JPEG, PNG, WebP or GIF"):
        mark_image(data, RENDERED)
    path = tmp_path / "a"
    path.write_bytes(data)
    assert read_mark(path) is None


@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"\0\0\0\x20ftyp"]),
)
@settings(deadline=None)
def test_damaged_files_have_no_mark(data: bytes, start: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(start + data)
    assert read_mark(path) is None
