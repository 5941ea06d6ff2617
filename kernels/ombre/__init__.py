"""Ombre hair dye (docs/spec/ombre.md): prepare a hair map once, blend any number of dyes with it.

    mask = prepare_hair(hair, (256, 256))                       # resize, contrast, hair rows: per picture
    dyed = blend_ombre(images, mask, color, height, grad_height)  # per dye

Three forms behind the same functions: `reference` (NumPy, the definition), `cpu` (Numba) and `cuda` (Numba-CUDA, for
arrays that lie on a device). They agree bit for bit, given one mask.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, overload

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohlora.kernels.choices import Backend, Rounding, backend_module, check, check_threads
from ohlora.kernels.gpu.arrays import DeviceArray, lies_on_device
from ohlora.kernels.threads import for_each

# B = clip((255 H - 191.25) * 4, 0, 255): nothing below H = 0.75, everything at H = 1 (docs/spec/ombre.md, section 3).
THRESHOLD, CONTRAST = np.float32(191.25), np.float32(4.0)
ONE_AS_BITS = np.float32(1.0).view(np.uint32)
# A call of so many pixels is NumPy's, four pictures of 256x256: 12 ms there. Numba takes 1 ms, but 0.3 to 0.6 s before
# it, to be imported and to load these functions from its cache; 1.5 s where the cache is empty.
SMALL_PIXELS = 4 << 16
HAIR_ROW = np.float32(191.25)  # a row with such a B is a hair row (docs/spec/ombre.md, section 4)

# What comes out is of the kind that went in.
ImagesT = TypeVar("ImagesT", bound="NDArray[np.uint8] | DeviceArray")


@dataclass(frozen=True)
class HairMask:
    """Hair maps of N pictures, ready to blend.

    coverage: float32 [N,H,W], 0..255 ("B" before weighting, docs/spec/ombre.md, section 3).
    top, bottom: int32 [N], first and last hair row; -1 where no row is strong enough to count as hair.
    """

    coverage: NDArray[np.float32]
    top: NDArray[np.int32]
    bottom: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.coverage)

    def rows(self, i: int) -> tuple[int, int]:
        """First and last hair row of picture i."""
        return int(self.top[i]), int(self.bottom[i])


@dataclass(frozen=True)
class DeviceMask:
    """Hair maps of N pictures on a device, ready to blend.

    coverage: float32 [N,H,W], 0..255. rows: int32 [N,T,2], first and last hair row of each of T tiles, H and -1 for
    none: a picture's are rows[:,:,0].min() and rows[:,:,1].max().
    """

    coverage: Any
    rows: Any

    def __len__(self) -> int:
        return int(self.coverage.shape[0])


@dataclass(frozen=True)
class Dyes:
    """M validated dyes: hue table entries uint8 [M,3], heights float64 [M]. nearest, unweighted: how they are blended
    (`rounding` and `compat_unweighted` of `blend_ombre`).
    """

    colors: NDArray[np.uint8]
    height: NDArray[np.float64]
    grad_height: NDArray[np.float64]
    nearest: bool = False
    unweighted: bool = False

    def __len__(self) -> int:
        return len(self.colors)


@cache
def hue_table() -> NDArray[np.uint8]:
    """uint8 [360,3]: RGB of hue i degrees at full saturation, truncated
    (docs/spec/ombre.md, section 2; tabled, not computed).
    """
    path = Path(__file__).with_name("hue_table.json")
    table = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.uint8)
    table.flags.writeable = False
    return table


@overload
def prepare_hair(
    hair: DeviceArray, size: Sequence[int], *, backend: Backend = ..., threads: int | None = ..., stream: Any = ...
) -> DeviceMask: ...
@overload
def prepare_hair(
    hair: ArrayLike, size: Sequence[int], *, backend: Backend = ..., threads: int | None = ..., stream: Any = ...
) -> HairMask: ...
def prepare_hair(
    hair: Any, size: Sequence[int], *, backend: Backend = "auto", threads: int | None = None, stream: Any = None
) -> HairMask | DeviceMask:
    """Hair maps -> mask for pictures of `size`.

    hair: float32 [N,h,w] in [0,1], any h and w. size: (H, W) of the pictures. Cubic resize (a = -0.75, borders
    replicated, not clamped), contrast, hair rows. backend, threads, stream: as for `blend_ombre`.
    Raises ValueError for other shapes, dtypes, values or backends. Values on a device are not looked at, which would
    wait for it: NaN is no hair there.
    """
    height, width = (int(v) for v in size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width) of at least 1, got {tuple(size)}")
    if _on_device(backend, hair):
        return cast("DeviceMask", backend_module("ombre", "cuda").prepare(hair, (height, width), stream))
    maps = _checked_hair(hair, threads)
    return _masks(maps, (height, width), _form(backend, len(maps) * height * width), threads)


def blend_ombre(
    images: ImagesT,
    mask: HairMask | DeviceMask,
    color: ArrayLike,
    height: ArrayLike,
    grad_height: ArrayLike,
    *,
    out: ImagesT | None = None,
    rounding: Rounding = "truncate",
    backend: Backend = "auto",
    threads: int | None = None,
    compat_unweighted: bool = False,
    stream: Any = None,
) -> ImagesT:
    """Dye M pictures; uint8 RGB [M,H,W,3].

    images: uint8 RGB [N,H,W,3]; mask: of N pictures of that size. color, height, grad_height: scalars or [M], each
    in [0, 1]; color 1 is red again. N must be M, or 1: a sweep of M dyes over one picture.
    out: receives the result; may be `images` itself when N = M. rounding: "truncate" or "nearest" (half to even).
    backend: "reference" (NumPy), "cpu" (Numba), "cuda", or "auto": by where the arrays lie, and on the host by the size
    of this call alone: up to four pictures of 256x256 are NumPy's, which need not wait for Numba to load. Whoever dyes
    many small pictures one by one should say "cpu", which is ten times as fast once it is loaded. Bytes are equal.
    threads: pictures in parallel (host only), default the usable cores; results never depend on it.
    stream: of a device, an address or any library's stream; default the one that `images`' library is on. Nothing
    waits: the result is there when the stream is.
    compat_unweighted: where no hair row qualifies, dye what lies above H = 0.75 without height limit, as the
    documented system does; by default such a picture is left unchanged.
    Pixels outside the hair are exactly the input. Raises ValueError naming the argument.
    """
    check_threads(threads)
    on_device = _on_device(backend, images)
    if on_device is isinstance(mask, HairMask):
        raise ValueError(
            "images are on a device and the mask is not: make it by prepare_hair of a map on the device"
            if on_device
            else "the mask is on a device and images are not: make it by prepare_hair of a map in host memory"
        )
    dyes = make_dyes((color, height, grad_height), _count(images), rounding, compat_unweighted)
    if on_device:
        return cast(ImagesT, backend_module("ombre", "cuda").blend(images, mask, dyes, out, stream))
    return cast(ImagesT, blend_dyes(cast(Any, images), cast(HairMask, mask), dyes, out, backend, threads))


def blend_dyes(
    images: NDArray[np.uint8],
    mask: HairMask,
    dyes: Dyes,
    out: Any = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """As `blend_ombre`, on the host, for dyes that were validated before (`Dyes`): N = len(dyes), or 1."""
    pixels = _checked("images", images)
    if mask.coverage.shape != pixels.shape[:3]:
        raise ValueError(f"mask is of shape {mask.coverage.shape}, images are {pixels.shape}: they must be of one size")
    target = _target(pixels, dyes, out)
    form = _form(backend, target.size // 3)

    def one(i: int) -> None:
        source = i if len(pixels) > 1 else 0
        form.dye(pixels[source], mask.coverage[source], mask.rows(source), dyes, i, target[i])

    for_each(one, len(dyes), target.size // 3, threads)
    return target


def apply_ombre(
    images: ImagesT,
    hair: ArrayLike | DeviceArray,
    color: ArrayLike,
    height: ArrayLike,
    grad_height: ArrayLike,
    *,
    out: ImagesT | None = None,
    backend: Backend = "auto",
    rounding: Rounding = "truncate",
    threads: int | None = None,
    compat_unweighted: bool = False,
    stream: Any = None,
) -> ImagesT:
    """`prepare_hair` and `blend_ombre` in one call; arguments and errors as there.

    Faster than the two with one dye a picture, and on a device: masks are not stored.
    """
    check_threads(threads)
    dyes = make_dyes((color, height, grad_height), _count(images), rounding, compat_unweighted)
    if _on_device(backend, images):
        return cast(ImagesT, backend_module("ombre", "cuda").apply(images, hair, dyes, out, stream))
    pixels, maps = _checked("images", images), _checked_hair(hair, threads)
    size = (pixels.shape[1], pixels.shape[2])
    form = _form(backend, max(len(dyes), len(pixels)) * size[0] * size[1])
    if not len(maps) == len(pixels) == len(dyes):
        return cast(ImagesT, blend_dyes(pixels, _masks(maps, size, form, threads), dyes, out, backend, threads))
    target = _target(pixels, dyes, out)
    local = threading.local()

    def one(i: int) -> None:
        # A mask stays in the cache of the core that made it.
        if not hasattr(local, "maps"):
            local.maps = tuple(np.empty(shape, np.float32) for shape in (maps.shape[1:], size, size))
        scaled, enlarged, coverage = local.maps
        # Not in place: the loop would not be vectorised.
        rows = form.cover(resized_map(maps[i], size, (scaled, enlarged)), coverage)
        form.dye(pixels[i], coverage, rows, dyes, i, target[i])

    for_each(one, len(dyes), target.size // 3, threads)
    return cast(ImagesT, target)


def gradient_rows(top: int, bottom: int, height: float, grad_height: float) -> tuple[int, int]:
    """G0, G1: first row of the gradient and first fully dyed row (docs/spec/ombre.md, section 4,
    products in this order).
    """
    first = int(top + (bottom - top) * (1.0 - height))
    return first, int(first + (bottom - first) * grad_height)


def _on_device(backend: Backend, images: Any) -> bool:
    """Whether the CUDA form is meant: asked for, or by the place where `images` are."""
    return lies_on_device(images) if backend == "auto" else backend == "cuda"


def _count(images: Any) -> int:
    interface = getattr(images, "__cuda_array_interface__", {})  # some offer nothing else
    shape: Sequence[int] = getattr(images, "shape", None) or interface.get("shape", ())
    if len(shape) != 4:
        raise ValueError(f"images must be a uint8 RGB array [N,H,W,3], got shape {tuple(shape)}")
    return int(shape[0])


def _checked(name: str, images: Any) -> NDArray[np.uint8]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{name} must be a uint8 RGB array [N,H,W,3], got {got}")
    return images


def _checked_hair(hair: Any, threads: int | None) -> NDArray[np.float32]:
    maps = np.asarray(hair)
    if maps.ndim != 3 or not all(maps.shape[1:]):
        raise ValueError(f"hair must be [N,h,w] with h, w >= 1, got shape {maps.shape}")
    if maps.dtype != np.float32:
        raise ValueError(f"hair must be float32 in [0, 1], got dtype {maps.dtype}")
    inside = np.empty(len(maps), dtype=bool)

    def look(i: int) -> None:
        # As whole numbers, floats from 0 to 1 are the smallest: one pass says it all, but for -0.0. NaN fails both.
        one = maps[i]
        quick = one.flags.c_contiguous and one.view(np.uint32).max() <= ONE_AS_BITS
        inside[i] = quick or (one.min() >= 0.0 and one.max() <= 1.0)

    for_each(look, len(maps), maps.size, threads)
    if not inside.all():
        raise ValueError(f"hair must be in [0, 1] without NaN, got {maps.min():g} to {maps.max():g}")
    return maps


def _target(pixels: NDArray[np.uint8], dyes: Dyes, out: Any) -> NDArray[np.uint8]:
    """`out`, checked, or a new array for the result."""
    shape = (len(dyes), *pixels.shape[1:])
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    target = _checked("out", out)
    if target.shape != shape or not target.flags.writeable:
        raise ValueError(f"out must be a writable uint8 array of shape {shape}, got {target.shape}")
    if len(pixels) != len(dyes) and np.shares_memory(target, pixels):
        raise ValueError("out must not overlap images when one picture takes several dyes")
    return target


def _masks(maps: NDArray[np.float32], size: tuple[int, int], form: Any, threads: int | None) -> HairMask:
    """Masks of checked maps."""
    coverage = np.empty((len(maps), *size), dtype=np.float32)
    top, bottom = np.full((2, len(maps)), -1, dtype=np.int32)

    def one(i: int) -> None:
        top[i], bottom[i] = form.cover(resized_map(maps[i], size), coverage[i])

    for_each(one, len(maps), coverage.size, threads)
    return HairMask(coverage, top, bottom)


def resized_map(
    hair: NDArray[np.float32], size: tuple[int, int], into: tuple[Any, Any] = (None, None)
) -> NDArray[np.float32]:
    """255 H at `size` (height, width). into: arrays of the map's and of that size to use, or None."""
    # OpenCV's cubic is the definition the reference data were made with.
    scaled = np.multiply(hair, np.float32(255), out=into[0])
    made: NDArray[np.float32] = cv2.resize(scaled, (size[1], size[0]), dst=into[1], interpolation=cv2.INTER_CUBIC)
    return made.reshape(size)


def make_dyes(
    values: Sequence[ArrayLike], pictures: int, rounding: Rounding = "truncate", unweighted: bool = False
) -> Dyes:
    """color, height, grad_height, checked."""
    check("rounding", rounding, get_args(Rounding))
    arrays = []
    for name, value in zip(("color", "height", "grad_height"), values, strict=True):
        if lies_on_device(value):
            raise ValueError(f"{name} is on a device: dyes are checked, so give numbers in host memory")
        array = np.asarray(value, dtype=np.float64)
        if array.ndim > 1:
            raise ValueError(f"{name} must be a number or a vector, got shape {array.shape}")
        if array.size and not (array.min() >= 0.0 and array.max() <= 1.0):
            raise ValueError(f"{name} must be in [0, 1] without NaN, got {array.min():g} to {array.max():g}")
        arrays.append(array)
    lengths = {len(array) for array in arrays if array.ndim}
    if len(lengths) > 1:
        raise ValueError(f"color, height and grad_height must have one length, got {sorted(lengths)}")
    count = lengths.pop() if lengths else pictures
    if pictures not in (1, count):
        raise ValueError(f"{count} dyes for {pictures} pictures: give one dye, one per picture, or one picture")
    color, height, grad_height = (np.ascontiguousarray(np.broadcast_to(array, (count,))) for array in arrays)
    return Dyes(
        hue_table()[(color * 360.0).astype(np.int64) % 360], height, grad_height, rounding == "nearest", unweighted
    )


def _form(backend: Backend, pixels: int) -> Any:
    """The module of a backend on the host; "auto": by the pixels of the call."""
    return backend_module("ombre", backend, "reference" if pixels <= SMALL_PIXELS else "cpu")
