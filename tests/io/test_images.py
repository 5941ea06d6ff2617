"""Pictures of every kind and of no kind: what is read, what is refused, what is written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ohlora.errors import ImageError, InvalidInputError
from ohlora.io import images
from ohlora.io.images import EXTENSIONS, encode_image, list_images, read_image

RAMP = np.stack(np.meshgrid(np.arange(0, 256, 8), np.arange(0, 256, 12)), -1).astype(np.uint8)  # [22, 32, 2]
RGB = np.concatenate([RAMP, RAMP[..., :1] // 2 + 60], axis=-1)


def save(path: Path, picture: Image.Image, format: str, **options: object) -> Path:
    picture.save(path, format, **options)
    return path


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, format: str) -> None:
    read = read_image(save(tmp_path / "a", Image.fromarray(RGB), format))
    np.testing.assert_array_equal(read, RGB)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert read.flags.writeable


@pytest.mark.parametrize(("format", "mean_error"), [("JPEG", 3.0), ("WEBP", 3.0), ("GIF", 6.0)])
def test_lossy_formats_come_back_nearly(tmp_path: Path, format: str, mean_error: float) -> None:
    read = read_image(save(tmp_path / "a", Image.fromarray(RGB), format))
    assert read.shape == RGB.shape
    assert np.abs(read.astype(int) - RGB).mean() < mean_error


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.jpg", Image.fromarray(RGB), "PNG")), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(RGB).convert(mode)
    read = read_image(save(tmp_path / "a.tif", source, "TIFF"))
    np.testing.assert_array_equal(read, np.asarray(source.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 40)).convert("CMYK")
    read = read_image(save(tmp_path / "a.jpg", red, "JPEG", quality=95))
    assert np.abs(read.astype(int) - (200, 30, 40)).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).round().astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, values)[1].tobytes())
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path), np.repeat(expected[..., None], 3, -1))


def test_dark_sixteen_bit_grey_stays_dark(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", np.full((4, 4), 200, np.uint16))[1].tobytes())
    assert read_image(path).max() == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 30 * 40 * 3).reshape(30, 40, 3).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, values[..., ::-1])[1].tobytes())
    assert np.abs(read_image(path) - values / 257).max() <= 1.0


@pytest.mark.parametrize(("scale", "mode"), [(1.0, "F"), (255.0, "F"), (65535.0, "F"), (255, "I"), (65535, "I")])
def test_float_and_integer_tiffs_are_scaled_by_their_range(tmp_path: Path, scale: float, mode: str) -> None:
    kind = np.float32 if mode == "F" else np.int32
    values = (np.linspace(0, 1, 64).reshape(8, 8) * scale).astype(kind)
    read = read_image(save(tmp_path / "a.tif", Image.fromarray(values), "TIFF"))
    assert np.abs(read[..., 0] - values * (255 / scale)).max() <= 0.5


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 1e6], [np.nan, 1.0], [np.inf, 0.0]])
def test_floats_without_a_known_range_are_refused(tmp_path: Path, values: list[float]) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.float32([values])), "TIFF")
    with pytest.raises(ImageError, match=r"a\.tif: its values go from .* save it with 8 or 16 bits"):
        read_image(path)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white(tmp_path: Path, format: str, mode: str) -> None:
    source = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        source.putpixel((x, 0), (100, 100, 100, alpha))
    read = read_image(save(tmp_path / "a", source.convert(mode), format, lossless=True))
    np.testing.assert_allclose(read[0, :, 0], [255, 177, 100], atol=1)


def test_palette_and_single_colour_transparency_show_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    for format in ("PNG", "GIF"):
        assert read_image(save(tmp_path / format, palette, format, transparency=0))[0, :, 0].tolist() == [
            255,
            9,
        ]
    colour = Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
    read = read_image(save(tmp_path / "c.png", colour, "PNG", transparency=(1, 2, 3)))
    assert read.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, format: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # the top left corner tells all eight apart
    upright[:8, 24:] = 90
    # How a camera stores the upright scene, by the definition of the tag.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a", Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
    read = read_image(path)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 4
    assert read.flags.c_contiguous


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert read_image(path).shape == RGB.shape


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (40, 200)]
    path = save(tmp_path / "a", frames[0], format, save_all=True, append_images=frames[1:])
    assert np.abs(read_image(path).astype(int) - 40).max() <= 3


def gone(folder: Path) -> Path:
    return folder / "gone.png"


def empty(folder: Path) -> Path:
    (folder / "empty.png").touch()
    return folder / "empty.png"


def text(folder: Path) -> Path:
    (folder / "text.png").write_text("not a picture, " * 50)
    return folder / "text.png"


def postscript(folder: Path) -> Path:
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    return folder / "script.png"


def broken_link(folder: Path) -> Path:
    (folder / "link.png").symlink_to(folder / "gone.png")
    return folder / "link.png"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def half(folder: Path) -> Path:
    whole = save(folder / "whole.jpg", Image.fromarray(RGB.repeat(8, 0).repeat(8, 1)), "JPEG").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    return folder / "half.jpg"


def flipped(folder: Path) -> Path:
    data = bytearray(save(folder / "whole.png", Image.fromarray(RGB), "PNG").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / "flipped.png").write_bytes(data)
    return folder / "flipped.png"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (gone, "no such file"),
        (empty, "empty"),
        (text, "not a JPEG, PNG"),
        (postscript, "not a JPEG, PNG"),  # never handed to Ghostscript
        (broken_link, "link to a file that is gone"),
        (pipe, "pipe"),
        (half, "truncated"),
        (flipped, "damaged"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: folder / ("n" * 300 + ".png"), "name too long"),
        (lambda folder: folder / "a\0b.png", "null"),
        (lambda folder: text(folder) / "below.png", "not a directory"),
    ],
)
def test_each_unreadable_thing_has_its_own_error(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    path = make(tmp_path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert reason in message
    assert "\n" not in message


def test_no_permission_and_no_memory_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB), "PNG")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.Image, "open", refuse)  # chmod would not stop root
    with pytest.raises(ImageError, match="no permission"):
        read_image(path)

    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images.Image, "open", exhaust)
    with pytest.raises(ImageError, match="not enough memory"):
        read_image(path)


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels whose data hold nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 60_000])  # beyond our limit; beyond Pillow's
def test_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side))
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"bomb\.png.*pixels.*make the picture smaller"):
        read_image(tmp_path / "bomb.png")
    assert time.perf_counter() - start < 0.5


def test_max_pixels_is_inclusive(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB), "PNG")
    pixels = RGB.shape[0] * RGB.shape[1]
    assert read_image(path, max_pixels=pixels).shape == RGB.shape
    with pytest.raises(ImageError, match="32 x 22 pixels"):
        read_image(path, max_pixels=pixels - 1)


def _encoded(format: str) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(RGB).save(memory, format)
    return memory.getvalue()


ENCODED = {format: _encoded(format) for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")}


@pytest.mark.parametrize("format", ENCODED)
def test_truncation_anywhere_is_an_image_error_or_loses_nothing(tmp_path: Path, format: str) -> None:
    data, path = ENCODED[format], tmp_path / "a"
    path.write_bytes(data)
    whole = read_image(path)
    for length in range(1, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            read = read_image(path)
        except ImageError:
            continue
        np.testing.assert_array_equal(read, whole)  # only an end mark was lost; never a grey lower half
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format=st.sampled_from(sorted(ENCODED)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_damage_anywhere_is_an_image_error_or_a_picture(
    tmp_path: Path, format: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(ENCODED[format])
    for where, value in changes:
        data[int(where * len(data))] = value
    (tmp_path / "a").write_bytes(data)
    try:
        read = read_image(tmp_path / "a", max_pixels=1_000_000)
    except ImageError:
        return
    assert read.dtype == np.uint8
    assert read.shape[2] == 3


def test_pillow_warnings_stay_quiet_in_the_program(tmp_path: Path) -> None:
    # In a process of its own: pytest resets warning filters. 9,500 squared is where Pillow warns and we
    # accept.
    script = (
        "import warnings, sys; warnings.simplefilter('error'); import ohlora.io.images as i\n"
        "try: i.read_image(sys.argv[1])\n"
        "except i.ImageError as e: print(e)"
    )
    (tmp_path / "big.png").write_bytes(bomb(9_500))
    command = [sys.executable, "-c", script, str(tmp_path / "big.png")]
    root = Path(images.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stderr == ""
    assert "truncated" in done.stdout or "damaged" in done.stdout  # not: "could be a decompression bomb"


# Lists


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_lists_are_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "img10.png", "img2.PNG", "img1.jpeg", "B.tif", "a.webp", "notes.txt", ".hidden.png")
    touch(tmp_path, ".ohlora-tmp-0123.png", ".ohlora/x.png", "below/c.png")
    names = [path.name for path in list_images([tmp_path])]
    assert names == ["a.webp", "B.tif", "img1.jpeg", "img2.PNG", "img10.png"]
    assert list_images(tmp_path) == list_images([tmp_path])


def test_recursion_enters_each_folder_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/b/2.png", ".git/3.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "a")
    found = [str(path.relative_to(tmp_path)) for path in list_images([tmp_path], recursive=True)]
    assert found == ["a/1.png", "a/b/2.png"]


def test_named_files_are_kept_whatever_their_name_and_only_once(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.dat")
    found = list_images([tmp_path / "b.png", tmp_path / "a.dat", tmp_path])
    assert [path.name for path in found] == ["a.dat", "b.png"]


def test_a_broken_link_is_listed_so_that_it_is_reported(tmp_path: Path) -> None:
    broken_link(tmp_path)
    assert [path.name for path in list_images([tmp_path])] == ["link.png"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no picture was named"),
        (["gone"], "there is no file or folder .*gone"),
        ([""], r"no picture in .*--recursive.*\.jpg \.jpeg \.jpe \.jfif \.png \.webp \.bmp \.tif \.tiff \.gif"),
    ],
)
def test_lists_of_nothing_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    touch(tmp_path, "below/a.png", "notes.txt")
    with pytest.raises(InvalidInputError, match=reason):
        list_images([tmp_path / name for name in names])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.os, "scandir", refuse)
    with pytest.raises(InvalidInputError, match=r"cannot list the folder .*Permission denied"):
        list_images([tmp_path])


# Encoding


@pytest.mark.parametrize("format", EXTENSIONS)
def test_encoding_round_trips_and_repeats(tmp_path: Path, format: str) -> None:
    data = encode_image(RGB, format)
    path = tmp_path / f"a{EXTENSIONS[format]}"
    path.write_bytes(data)
    read = read_image(path)
    assert read.shape == RGB.shape
    assert np.abs(read.astype(int) - RGB).mean() < (0.01 if format == "png" else 3)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: encode_image(RGB, format), range(8))) == {data}


def test_views_are_encoded_as_they_look() -> None:
    view = RGB[::-1, ::2]
    assert encode_image(view, "png") == encode_image(view.copy(), "png")


def test_quality_and_level_have_an_effect() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for format in ("jpeg", "webp"):
        assert len(encode_image(noise, format, 30)) < len(encode_image(noise, format, 95))
    flat = np.repeat(RGB, 8, axis=0)
    assert len(encode_image(flat, "png", png_level=9)) < len(encode_image(flat, "png", png_level=0))


@pytest.mark.parametrize(
    ("format", "side", "remedy"), [("jpeg", 65_500, "use png"), ("webp", 16_383, "use jpeg or png")]
)
def test_sizes_a_format_cannot_store_are_refused(format: str, side: int, remedy: str) -> None:
    assert encode_image(np.zeros((1, side, 3), np.uint8), format)
    with pytest.raises(ImageError, match=rf"{format}, which stores at most {side} a side; {remedy}"):
        encode_image(np.zeros((side + 1, 1, 3), np.uint8), format)


def test_wrong_requests_and_arrays_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'jpg': choose one of jpeg, png, webp"):
        encode_image(RGB, "jpg")
    for quality in (0, 101):
        with pytest.raises(InvalidInputError, match="quality must be in"):
            encode_image(RGB, "jpeg", quality)
    with pytest.raises(InvalidInputError, match="png_level"):
        encode_image(RGB, "png", png_level=10)
    for array in (RGB[..., 0], RGB.astype(np.float32), RGB[:0], RGB[..., [0, 1, 2, 0]]):
        with pytest.raises(ImageError, match=r"uint8 \[H, W, 3\] is needed"):
            encode_image(array, "png")


def test_jpegs_of_other_names_are_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.JPE", "c.jpg"):
        save(tmp_path / name, Image.fromarray(RGB), "JPEG")
    assert [path.name for path in list_images(tmp_path)] == ["a.jfif", "b.JPE", "c.jpg"]
