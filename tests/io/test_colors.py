"""Photographs in other colors than sRGB: what is read, and that results say which colors they have."""

from __future__ import annotations

import io
import itertools
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import ohlora
from ohlora.io.colors import SRGB_PROFILE
from ohlora.io.images import EXTENSIONS, encode_image, read_image
from ohlora.io.marking import RECOLORED, read_mark
from tests.support.command_line import output_of

EXAMPLE = Path(ohlora.__file__).parent / "examples" / "astronaut.jpg"
# Primaries, adapted to D50, and gamma.
WIDE = {
    "p3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407), 2.2),
    "prophoto": ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03135, 0.00009, 0.82491), 1.8),
}


def profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], gamma: float) -> bytes:
    """A matrix profile, ICC version 2."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(78)
    tags = [
        (b"desc", name + b"\0"),
        (b"cprt", b"text" + bytes(4) + b"none\0" + bytes(3)),
        (b"wtpt", xyz(0.9642, 1, 0.8249)),
    ]
    tags += [(b"rXYZ", xyz(*red)), (b"gXYZ", xyz(*green)), (b"bXYZ", xyz(*blue))]
    tags += [(kind, curve) for kind in (b"rTRC", b"gTRC", b"bTRC")]
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for kind, content in tags:
        content += bytes(-len(content) % 4)
        table += kind + struct.pack(">II", start + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    return head + bytes(128 - len(head)) + table + data


def in_colors(image: Image.Image, target: bytes) -> Image.Image:
    wide = ImageCms.ImageCmsProfile(io.BytesIO(target))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), wide)
    assert converted is not None
    return converted


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph in sRGB, Display P3 and ProPhoto."""
    folder = tmp_path_factory.mktemp("colors")
    image = Image.open(EXAMPLE).convert("RGB")
    image.save(folder / "srgb.jpg", quality=95)
    for name, (*primaries, gamma) in WIDE.items():
        data = profile(*primaries, gamma)
        in_colors(image, data).save(folder / f"{name}.jpg", quality=95, icc_profile=data)
    return folder


def test_one_photograph_in_three_color_spaces_gives_one_result(photographs: Path, tmp_path: Path) -> None:
    with Image.open(photographs / "srgb.jpg") as plain, Image.open(photographs / "prophoto.jpg") as wide:
        assert np.abs(np.asarray(plain, np.int16) - np.asarray(wide, np.int16)).mean() > 10  # the numbers differ
    output_of("recolor", photographs, "--out", tmp_path, "--format", "png")
    results = {name: np.asarray(Image.open(tmp_path / f"{name}.png"), np.int16) for name in ("srgb", *WIDE)}
    for one, other in itertools.combinations(results, 2):
        assert np.abs(results[one] - results[other]).mean() <= 1.5, (one, other)
    assert [b"sRGB" in (tmp_path / f"{name}.png").read_bytes()[:800] for name in results] == [False, True, True]


@pytest.mark.parametrize("format", list(EXTENSIONS))
def test_a_file_says_that_it_is_srgb(format: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    path = tmp_path / f"a{EXTENSIONS[format]}"
    path.write_bytes(encode_image(pixels, format, srgb=True, mark=RECOLORED))
    plain = np.asarray(Image.open(io.BytesIO(encode_image(pixels, format))).convert("RGB"))
    with Image.open(path) as image:
        assert (np.asarray(image.convert("RGB")) == plain).all()
        assert image.info.get("icc_profile") == (None if format == "png" else SRGB_PROFILE)
        assert ("srgb" in image.info) == (format == "png")
    assert read_mark(path) == RECOLORED
    assert (read_image(path) == plain).all()  # a profile that is sRGB changes no number


def test_transparency_stays_beside_converted_colors(tmp_path: Path) -> None:
    data = profile(*WIDE["p3"][:3], WIDE["p3"][3])
    colors = Image.new("RGB", (4, 4), (200, 60, 40))
    picture = in_colors(colors, data)
    picture.putalpha(128)
    picture.save(tmp_path / "a.png", icc_profile=data)
    expected = (np.array((200, 60, 40)) + 255) / 2
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 2


def test_gray_and_lab_are_converted(tmp_path: Path) -> None:
    gray = ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 60, 40)), ImageCms.createProfile("sRGB"), gray, outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    assert np.abs(read_image(tmp_path / "lab.tif").astype(int) - (200, 60, 40)).max() <= 3


@pytest.mark.parametrize("data", [b"", b"no profile at all", bytes(400), SRGB_PROFILE[:200]])
def test_a_broken_profile_is_said_and_left_out(data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=data)
    with caplog.at_level(logging.WARNING, "ohlora"):
        assert (read_image(tmp_path / "a.png") == pixels).all()
    assert ("a.png: its color profile cannot be used" in caplog.text) == bool(data)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_another_kind_of_image_is_left_out(mode: str, tmp_path: Path) -> None:
    picture = Image.new(mode, (8, 8), 90 if mode == "L" else (10, 20, 30, 0))
    picture.save(tmp_path / "a.tif", icc_profile=SRGB_PROFILE)
    assert (read_image(tmp_path / "a.tif") == np.asarray(picture.convert("RGB"))).all()
