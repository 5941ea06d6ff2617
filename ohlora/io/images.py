"""Pictures in and out: read any common file safely as RGB, list a folder, encode a result.

Everything that can be wrong with a picture of unknown origin becomes one ImageError that names the file.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# Importing a plugin registers its decoder; Image.init() would import all forty.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from ohlora.base.types import Rgb
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.colors import to_srgb
from ohlora.io.marking import Mark, mark_image, say_srgb

# Pillow warns about odd EXIF blocks and palettes of pictures that it then decodes well. The filter is set
# once: warnings.catch_warnings() is not safe in the threads that call read_image.
warnings.filterwarnings("ignore", module=r"PIL\.")


MAX_PIXELS = 100_000_000
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# A short list on purpose: Pillow's EPS reader, for one, starts Ghostscript on whatever the file holds.
_DECODERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_READABLE = "JPEG, PNG, WebP, BMP, GIF, TIFF or PNM"

_EXIF_ORIENTATION = 0x0112
# EXIF orientation -> the upright picture; the tag says where row 0 and column 0 of the file belong.
_UPRIGHT: dict[int, Callable[[Rgb], Rgb]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2),
    8: lambda rgb: np.rot90(rgb),
}


@dataclass(frozen=True)
class Photo:
    """What a file holds. rgb: uint8 RGB [H,W,3], upright, sRGB. profiled: the file says which colors it has."""

    rgb: Rgb
    profiled: bool


def read_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Rgb:
    """Decode a picture by its content, whatever its name says.

    Returns C-contiguous, writable uint8 RGB [H, W, 3], turned upright by its EXIF orientation. Transparency
    is composited over white; 16-bit values are scaled to 8 bits; float and 32-bit integer pictures are scaled
    from [0, 1], [0, 255] or [0, 65535], whichever their values fit. Colors are converted to sRGB by the
    embedded ICC profile; one that is damaged or of another kind of image is left out with a warning; CMYK
    without a profile is converted by the plain formula. Of an animation or a multi-page file the first picture
    is read.

    Raises ImageError when the file is missing, unreadable, empty, truncated, damaged, not a picture, or has
    more than `max_pixels` pixels; the size is taken from the header, before anything is decoded.
    """
    return read_photo(path, max_pixels=max_pixels).rgb


def read_photo(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """As `read_image`, and what else is known of the file."""
    path = Path(path)
    _require_content(path)
    try:
        with path.open("rb") as file, Image.open(file, formats=_DECODERS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"cannot read {path}: {width} x {height} pixels are more than the limit of "
                    f"{max_pixels:,}; make the picture smaller"
                )
            image.load()
            rgb = _to_rgb(to_srgb(image, str(path)), path)
            profiled = bool(image.info.get("icc_profile"))
            upright = _UPRIGHT.get(_orientation(image))
    except ImageError:
        raise
    except Exception as error:
        # Decoders fed with damaged bytes raise nearly anything: SyntaxError, struct.error, zlib.error, EOFError ...
        raise ImageError(f"cannot read {path}: {_reason(error)}") from error
    return Photo(np.ascontiguousarray(upright(rgb)) if upright else rgb, profiled)


def _require_content(path: Path) -> None:
    """Refuse what must not even be opened: reading a pipe would wait for ever, a device may never end."""
    try:
        info = path.stat()
    except FileNotFoundError as error:
        what = "it is a link to a file that is gone" if path.is_symlink() else "there is no such file"
        raise ImageError(f"cannot read {path}: {what}; check the path") from error
    except PermissionError as error:
        raise ImageError(f"cannot read {path}: no permission to enter its folder; make it readable") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"cannot read {path}: {reason.lower()}; check the path") from error
    if stat.S_ISDIR(info.st_mode):
        raise ImageError(f"cannot read {path}: it is a folder; name a picture inside it")
    if not stat.S_ISREG(info.st_mode):
        raise ImageError(f"cannot read {path}: it is a device or a pipe, not a file")
    if info.st_size == 0:
        raise ImageError(f"cannot read {path}: the file is empty (0 bytes); copy it again or leave it out")


def _reason(error: Exception) -> str:
    """What is wrong and what to do."""
    detail = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels ({detail}); make the picture smaller"
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a {_READABLE} picture or its header is damaged; convert it or leave it out"
    if isinstance(error, PermissionError):
        return "no permission; make it readable or leave it out"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; make the picture smaller"
    if isinstance(error, EOFError) or "truncated" in detail.lower():
        return "the file is truncated; copy or download it again"
    return f"the file is damaged ({detail}); copy or download it again"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        # The pixels have been decoded: a broken EXIF block is no reason to lose them.
        return 1


def _to_rgb(image: Image.Image, path: Path) -> Rgb:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _eight_bits(np.asarray(image), image, path)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        # La and RGBa are premultiplied: Pillow converts each to its plain form only.
        return over_white(image.convert("LA") if image.mode == "La" else image)
    return np.array(image.convert("RGB"))


def over_white(image: Image.Image) -> Rgb:
    """A picture with transparency, composited."""
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", rgba.size, (255, 255, 255))
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(flat)


def _eight_bits(values: NDArray[np.generic], image: Image.Image, path: Path) -> Rgb:
    """Scale a one-channel picture [H, W] of 16-bit, 32-bit or float values to uint8 [H, W]."""
    # Older Pillow releases hand 16-bit PNG over as 32-bit integers, and so do all for PGM: the range is
    # known.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    for limit in (1.0, 255.0, 65535.0):
        whole_numbers_of_one_bit = limit == 1.0 and image.mode == "I"
        if low >= 0.0 and high <= limit and not whole_numbers_of_one_bit:  # false for NaN
            return np.floor(numbers * (255.0 / limit) + 0.5).astype(np.uint8)
    raise ImageError(
        f"cannot read {path}: its values go from {low:g} to {high:g}, which is none of the known "
        "ranges 0..1, 0..255 and 0..65535; save it with 8 or 16 bits per channel"
    )


def list_images(paths: Sequence[Path | str] | Path | str, recursive: bool = False) -> list[Path]:
    """The pictures that `paths` name: files as they are, folders by the suffixes in SUFFIXES.

    Sorted as people count (img2 before img10), without repeats. Hidden files and folders are skipped, and
    with them temporary files of this program. `recursive` also enters folders below, each once, so links
    cannot make it loop. Raises InvalidInputError for a missing path, an unreadable folder, and a folder without
    pictures.
    """
    named = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    if not named:
        raise InvalidInputError("no picture was named: give files or a folder")
    found: dict[Path, None] = {}
    for path in named:
        if path.is_dir():
            inside = files_inside(path, SUFFIXES, recursive)
            if not inside:
                below = "or below it" if recursive else "(folders below it are searched with --recursive)"
                raise InvalidInputError(f"no picture in {path} {below}; looked for {' '.join(SUFFIXES)}")
            found.update(dict.fromkeys(inside))
        elif os.path.lexists(path):
            found[path] = None  # whether it is a picture is decided by its content, when it is read
        else:
            raise InvalidInputError(f"there is no file or folder {path}")
    return sorted(found, key=_natural_order)


def files_inside(folder: Path, suffixes: Sequence[str], recursive: bool) -> list[Path]:
    """Files of these suffixes in a folder, unsorted; `list_images` says of which folders."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise InvalidInputError(f"cannot list the folder {error.filename or folder}: {error.strerror}") from error

    for current, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(current).stat()
        known = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        # Sorted, so that of two links to one folder the same one is entered on every machine.
        visible = sorted(
            (name for name in below if not name.startswith(".")), key=lambda name: _natural_order(Path(name))
        )
        below[:] = visible if recursive and not known else []
        # A broken link with a picture's name is kept: reading it gives an error that names it.
        visible = [] if known else [name for name in names if not name.startswith(".")]
        found += [Path(current, name) for name in visible if name.lower().endswith(tuple(suffixes))]
    return found


def _natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    parts = [
        [int(piece) if odd % 2 else piece for odd, piece in enumerate(re.split("([0-9]+)", part.casefold()))]
        for part in path.parts
    ]
    return parts, str(path)  # the plain name decides between 01.png and 1.png


@dataclass(frozen=True)
class _Encoding:
    suffix: str
    limit: int  # longest side the format or its library can store
    flag: int  # OpenCV's name for what is tuned
    larger: str  # what to do with a larger picture


_ENCODINGS: dict[str, _Encoding] = {
    # 65535 by the standard, 65500 in libjpeg.
    "jpeg": _Encoding(".jpg", 65_500, cv2.IMWRITE_JPEG_QUALITY, "use png"),
    "png": _Encoding(".png", 1_000_000, cv2.IMWRITE_PNG_COMPRESSION, "cut it into tiles"),
    "webp": _Encoding(".webp", 16_383, cv2.IMWRITE_WEBP_QUALITY, "use jpeg or png"),
}
EXTENSIONS = {name: encoding.suffix for name, encoding in _ENCODINGS.items()}


def encode_image(
    rgb: Rgb, format: str, quality: int = 95, *, png_level: int = 1, mark: Mark | None = None, srgb: bool = False
) -> bytes:
    """Encode uint8 RGB [H, W, 3] as 'jpeg', 'png' or 'webp'; the same bytes for the same pixels.

    quality: 1..100, of JPEG and lossy WebP. png_level: 0..9; 1 is several times faster than 9, a little
    larger. mark: what the file says about its origin. srgb: whether it says that its
    colors are sRGB; files that say nothing are shown in sRGB too.
    Runs without the GIL, so threads encode in parallel. Raises InvalidInputError for an unknown format or a
    quality out of range, ImageError for an array of another kind or a size that the format cannot store.
    """
    encoding = _ENCODINGS.get(format)
    if encoding is None:
        raise InvalidInputError(f"unknown picture format '{format}': choose one of {', '.join(_ENCODINGS)}")
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"quality must be in [1, 100], got {quality}")
    if not 0 <= png_level <= 9:
        raise InvalidInputError(f"png_level must be in [0, 9], got {png_level}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"cannot encode an array of {rgb.dtype} {list(rgb.shape)}: uint8 [H, W, 3] is needed")
    height, width = rgb.shape[:2]
    if max(height, width) > encoding.limit:
        raise ImageError(
            f"cannot encode {width} x {height} pixels as {format}, which stores at most "
            f"{encoding.limit} a side; {encoding.larger}"
        )
    bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(encoding.suffix, bgr, [encoding.flag, png_level if format == "png" else quality])
    if not done:
        raise ImageError(f"the {format} encoder refused {width} x {height} pixels; {encoding.larger}")
    encoded = say_srgb(bytes(data)) if srgb else bytes(data)
    return encoded if mark is None else mark_image(encoded, mark)
