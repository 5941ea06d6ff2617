"""Colors of strangers' images: converted to sRGB by their embedded profiles. And files that say that they are sRGB."""

from __future__ import annotations

import io
import logging
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from ohlora.errors import one_line

# A profile whose colors differ from sRGB's by no more than this is sRGB: its numbers are taken as they are.
SAME_LEVELS = 2
_SRGB = ImageCms.createProfile("sRGB")
# Color space of a profile -> mode of the images that it describes.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_LOG = logging.getLogger("ohlora")


def to_srgb(image: Image.Image, name: str) -> Image.Image:
    """The image with its colors in sRGB and its transparency as it was; itself where they are that already.

    A profile that is damaged or belongs to another kind of image is left out, with a warning that names the file. Lab
    images without a profile are converted as Lab; Pillow cannot.
    """
    profile = image.info.get("icc_profile")
    if not profile and image.mode != "LAB":
        return image
    alpha = None
    if image.mode in ("P", "PA", "RGB", "RGBA", "L", "LA") and image.has_transparency_data:
        gray = image.mode in ("L", "LA")
        image = image.convert("LA" if gray else "RGBA")
        alpha, image = image.getchannel("A"), image.convert("L" if gray else "RGB")
    elif image.mode in ("P", "RGBX"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    try:
        transform = _transform(profile or b"", image.mode)
    except Exception as error:  # lcms and Pillow raise many kinds
        _LOG.warning("%s: its color profile cannot be used (%s); its colors are taken as sRGB", name, one_line(error))
        transform = None
    if transform is not None:
        image = transform.apply(image)
    if alpha is not None:
        image = image.convert("RGB")
        image.putalpha(alpha)
    return image


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None: the colors are sRGB. Raises whatever a profile of unknown origin makes the library raise."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
    space = source.profile.xcolor_space.strip()
    if _MODES.get(space) != mode:
        raise ValueError(f"it is one of {space} images, and this one is {mode}")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB", intent, flags)
    if mode not in ("RGB", "L"):
        return transform
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    swatches = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3) if mode == "RGB" else steps[None]
    before = Image.fromarray(np.ascontiguousarray(swatches))
    after = np.asarray(transform.apply(before), np.int16)
    return None if np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max() <= SAME_LEVELS else transform


def _tag(kind: bytes, content: bytes) -> bytes:
    return kind + bytes(4) + content


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return _tag(b"mluc", struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data)


def _srgb_profile() -> bytes:
    """ICC version 4: the primaries of IEC 61966-2-1 adapted to D50, and its curve. No date, so always the same."""
    white = _fixed(0.9642, 1.0, 0.8249)
    curve = _tag(b"para", struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    adaptation = (1.047882, 0.022918, -0.050217, 0.029586, 0.990479, -0.017059, -0.009247, 0.015075, 0.751678)
    tags = {
        b"desc": _text("sRGB"),
        b"cprt": _text("CC0"),
        b"wtpt": _tag(b"XYZ ", white),
        b"chad": _tag(b"sf32", _fixed(*adaptation)),
        b"rXYZ": _tag(b"XYZ ", _fixed(0.436066, 0.222488, 0.013916)),
        b"gXYZ": _tag(b"XYZ ", _fixed(0.385147, 0.716873, 0.097076)),
        b"bXYZ": _tag(b"XYZ ", _fixed(0.143066, 0.060608, 0.714096)),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    start = 132 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    places: dict[bytes, int] = {}  # the three curves are one
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(data)
            data += content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", places[content], len(content))
    head = struct.pack(">I4sI4s4s4s", start + len(data), bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return head + bytes(128 - len(head)) + table + data


SRGB_PROFILE = _srgb_profile()
