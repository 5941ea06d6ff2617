"""CUDA kernels against the reference, in Numba's simulator; on a device with OHLORA_TEST_GPU=1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import cuda

from ohlora.kernels.gpu import arrays as cuda_arrays
from ohlora.kernels.gpu.arrays import Place
from ohlora.kernels.gpu.images import fit_pictures, hair_facts
from ohlora.kernels.gpu.resize_taps import area_taps, cubic_taps
from ohlora.kernels.ombre import HairMask, apply_ombre, blend_ombre, hue_table, prepare_hair
from ohlora.kernels.ombre.cuda_kernels import DARKER, OWN, TINT
from ohlora.kernels.properties import score

ROOT = Path(__file__).resolve().parents[2]
# Of 255, after the contrast, which multiplies by 4: float64 differs from OpenCV's float32 cubic by up to 1.7e-4 (for a
# handful of pixels, whose positions OpenCV rounds most; 5e-5 from 224 to 256).
COVERAGE = 1e-3
simulator_only = pytest.mark.skipif(
    not cuda_arrays.simulated(), reason="memory of the host stands for a device's: only in the simulator"
)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def up(array: np.ndarray) -> Any:
    return cuda.to_device(np.ascontiguousarray(array))


def host_mask(mask: Any) -> HairMask:
    """A device's mask as the host's functions take it."""
    rows = mask.rows.copy_to_host()
    top, bottom = rows[:, :, 0].min(1), rows[:, :, 1].max(1)
    return HairMask(mask.coverage.copy_to_host(), np.where(bottom < 0, -1, top).astype(np.int32), bottom)


def maps(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Hair maps: what a finder gives, and extremes."""
    noise = rng.random(shape, np.float32)
    if kind == "soft":
        return np.clip(0.6 + 0.5 * noise, 0, 1).astype(np.float32)
    if kind == "hard":
        return (noise > 0.5).astype(np.float32)
    if kind == "weak":  # hair, but no row of it
        return (0.76 + 0.1 * noise).astype(np.float32)
    if kind == "one row":
        made = np.zeros(shape, np.float32)
        made[:, shape[1] // 2] = 1
        return made
    return np.full(shape, float(kind), np.float32)


@FEW
@given(
    st.integers(1, 22), st.integers(1, 22), st.integers(1, 22), st.integers(1, 22),
    st.sampled_from(["soft", "hard", "weak", "one row", "0", "1"]), st.integers(1, 3), st.booleans(),
    st.sampled_from(["truncate", "nearest"]), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_ombre_is_the_references(
    h: int, w: int, height: int, width: int, kind: str, count: int, sweep: bool, rounding: str, unweighted: bool,
    seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    pictures = 1 if sweep else count
    images = rng.integers(0, 256, (pictures, height, width, 3), np.uint8)
    hair = maps(kind, (pictures, h, w), rng)
    dyes = rng.choice([0.0, 0.25, 0.5, 1.0, 0.37], (3, count))
    mask = prepare_hair(up(hair), (height, width))
    found = host_mask(mask)
    wanted_mask = prepare_hair(hair, (height, width), backend="reference")
    assert abs(found.coverage - wanted_mask.coverage).max() <= COVERAGE
    options: dict[str, Any] = {"rounding": rounding, "compat_unweighted": unweighted}
    wanted = blend_ombre(images, found, *dyes, backend="reference", **options)
    made = blend_ombre(up(images), mask, *dyes, **options).copy_to_host()
    assert np.array_equal(made, wanted), "bit for bit, given one mask"
    at_once = apply_ombre(up(images), up(hair), *dyes, **options).copy_to_host()
    assert np.array_equal(at_once, made), "interpolating again gives the same mask"


def test_hair_rows_are_the_references() -> None:
    rng = np.random.default_rng(0)
    hair = rng.random((3, 20, 30), np.float32)
    hair[0, :7], hair[1, 5:], hair[2] = 0.2, 0.3, 0.7
    found, wanted = host_mask(prepare_hair(up(hair), (23, 17))), prepare_hair(hair, (23, 17), backend="reference")
    assert np.array_equal(found.top, wanted.top)
    assert np.array_equal(found.bottom, wanted.bottom)
    assert wanted.bottom[2] == -1


def test_what_the_dye_is_truncated_to() -> None:
    """The kernel tints in float32; the reference in float64: the same byte for every byte and every hue."""
    value, tint = np.arange(256), hue_table()[:, None, :].astype(np.float64)
    exact = value[None, :, None] + ((0.35 * value[None, :, None] + 0.25 * tint) - 38.25)
    single = value.astype(np.float32)[None, :, None]
    low = single + ((OWN * single + TINT * tint.astype(np.float32)) + DARKER)
    assert low.dtype == np.float32
    assert np.array_equal(np.clip(exact, 0, 255).astype(np.uint8), np.clip(low, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["all_255_0", "all_255_1", "bottom_strip_0", "bottom_strip_1"])
def test_golden_points(golden: Path, name: str) -> None:
    """Hair maps that are the same in every column: eight columns of the picture are enough."""
    case = json.loads((golden / "ombre" / "special.json").read_text())[name]
    with np.load(golden / "ombre" / "special_points.npz") as stored:
        rows, first = np.unique(stored["yx"][:, 0], return_index=True)
        hair = stored[f"mask_{name.rpartition('_')[0]}"][None, :, :7].astype(np.float32) / np.float32(255)
        points, wanted = stored["rgb"][first], stored[f"out_{name}"][first]
    images = np.zeros((1, 256, 8, 3), np.uint8)
    images[0, rows] = points[:, None]
    dye = (case["color"], case["ombre_height"], case["ombre_grad_height"])
    made = apply_ombre(up(images), up(hair), *dye).copy_to_host()
    assert (wanted != points).any()
    assert np.array_equal(made[0, rows], np.broadcast_to(wanted[:, None], (len(rows), 8, 3)))


def test_golden_hairstyles(golden: Path) -> None:
    with np.load(golden / "cnn" / "hairstyle_score.npz") as stored:
        made = score(up(stored["parsing"]), up(stored["face_bgr"]), algorithm="hairstyle").copy_to_host()
        np.testing.assert_allclose(made[:, 0], stored["raw_score"], rtol=1e-12)


def test_golden_dyes(shared: Path) -> None:
    """A strip of a golden face: the whole picture takes the simulator minutes."""
    folder = shared / "golden" / "ombre"
    cases = json.loads((folder / "cases.json").read_text())
    name, listed = next(iter(cases.items()))
    picture = cv2.imread(str(folder / f"{name}_rgb256.png"))[..., ::-1]
    hair = cv2.imread(str(folder / f"{name}_hair224.png"), cv2.IMREAD_GRAYSCALE).astype(np.float32) / np.float32(255)
    columns, images = slice(100, 108), np.ascontiguousarray(picture[None, :, 96:104])
    strip = np.ascontiguousarray(hair[None, :, columns])
    case = listed[0]
    dye = (case["color"], case["ombre_height"], case["ombre_grad_height"])
    wanted = apply_ombre(images, strip, *dye, backend="reference")
    made = apply_ombre(up(images), up(strip), *dye).copy_to_host()
    assert (wanted != images).any()
    assert abs(made.astype(int) - wanted).max() <= 1
    assert (made != wanted).mean() <= 0.001


def test_more_pictures_than_a_launch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    images, hair = rng.integers(0, 256, (5, 9, 12, 3), np.uint8), maps("soft", (5, 7, 7), rng)
    dyes = rng.random((3, 5))
    at_once = apply_ombre(up(images), up(hair), *dyes).copy_to_host()
    swept = apply_ombre(up(images[:1]), up(hair[:1]), *dyes).copy_to_host()
    parsing, faces = np.stack([face(), cross()]), rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    monkeypatch.setattr("ohlora.kernels.ombre.cuda.MOST_PICTURES", 2)
    monkeypatch.setattr("ohlora.kernels.properties.cuda.MOST_PICTURES", 1)
    assert np.array_equal(apply_ombre(up(images), up(hair), *dyes).copy_to_host(), at_once)
    assert np.array_equal(apply_ombre(up(images[:1]), up(hair[:1]), *dyes).copy_to_host(), swept)
    wanted = score(parsing, faces, backend="reference")
    assert np.array_equal(score(up(parsing), up(faces)).copy_to_host(), wanted, equal_nan=True)


def test_nothing_gives_nothing() -> None:
    images, hair = up(np.zeros((0, 9, 12, 3), np.uint8)), up(np.zeros((0, 7, 7), np.float32))
    assert apply_ombre(images, hair, 0.5, 1.0, 0.5).shape == (0, 9, 12, 3)
    parsing, faces = up(np.zeros((0, 224, 224), np.uint8)), up(np.zeros((0, 224, 224, 3), np.uint8))
    assert score(parsing, faces).shape == (0, 7)
    assert score(parsing, faces, algorithm="hairstyle").shape == (0, 1)


def test_in_place_and_into_an_array() -> None:
    rng = np.random.default_rng(3)
    images, hair = rng.integers(0, 256, (2, 9, 12, 3), np.uint8), maps("soft", (2, 7, 7), rng)
    wanted = apply_ombre(up(images), up(hair), 0.5, 1.0, 0.5).copy_to_host()
    own, other = up(images), up(np.zeros_like(images))
    assert apply_ombre(own, up(hair), 0.5, 1.0, 0.5, out=own) is own
    assert apply_ombre(up(images), up(hair), 0.5, 1.0, 0.5, out=other) is other
    assert np.array_equal(own.copy_to_host(), wanted)
    assert np.array_equal(other.copy_to_host(), wanted)


class Foreign:
    """A library's array that only offers the interface."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self._array = array
        found = array.__array_interface__
        strides = None if array.flags.c_contiguous else array.strides
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": found["typestr"], "data": found["data"], "version": 3,
            "strides": strides, **changes,
        }  # fmt: skip


@simulator_only
def test_arrays_of_other_libraries_are_not_copied() -> None:
    rng = np.random.default_rng(4)
    images, hair = rng.integers(0, 256, (2, 9, 12, 3), np.uint8), maps("soft", (2, 7, 7), rng)
    out = np.zeros_like(images)
    target = Foreign(out)
    assert apply_ombre(Foreign(images), Foreign(hair), 0.5, 1.0, 0.5, out=target) is target
    assert np.array_equal(out, apply_ombre(up(images), up(hair), 0.5, 1.0, 0.5).copy_to_host()), "written in place"


@simulator_only
def test_arrays_that_do_not_fit_are_named() -> None:
    images, hair = up(np.zeros((2, 8, 8, 3), np.uint8)), up(np.zeros((2, 7, 7), np.float32))
    mask = prepare_hair(hair, (8, 8))
    host = np.zeros((2, 8, 8, 3), np.uint8)
    gaps = Foreign(np.zeros((2, 8, 16, 3), np.uint8)[:, :, ::2])
    for work, words in (
        (lambda: apply_ombre(images, np.zeros((2, 7, 7), np.float32), 0.5, 1, 0), "hair is in the host's memory"),
        (lambda: apply_ombre(host, hair, 0.5, 1, 0, backend="cuda"), "images is in the host's memory"),
        (lambda: apply_ombre(images, up(np.zeros((2, 7, 7))), 0.5, 1, 0), r"hair must be float32 \[2, any, any\]"),
        (lambda: apply_ombre(images, up(np.zeros((3, 7, 7), np.float32)), 0.5, 1, 0), r"got float32 \[3, 7, 7\]"),
        (lambda: apply_ombre(gaps, hair, 0.5, 1, 0), "images has gaps between its elements"),
        (lambda: blend_ombre(host, mask, 0.5, 1, 0), "the mask is on a device and images are not"),
        (lambda: blend_ombre(images, prepare_hair(np.zeros((2, 7, 7), np.float32), (8, 8)), 0.5, 1, 0),
         "images are on a device and the mask is not"),
        (lambda: blend_ombre(images, prepare_hair(hair, (9, 8)), 0.5, 1, 0), r"mask must be float32 \[2, 8, 8\]"),
        (lambda: apply_ombre(images, hair, [0.1, 0.2, 0.3], 1, 0), "3 dyes for 2 pictures"),
        (lambda: apply_ombre(images, hair, up(np.zeros(2)), 1, 0), "color is on a device"),
        (lambda: apply_ombre(images, hair, 1.5, 1, 0), r"color must be in \[0, 1\]"),
        (lambda: apply_ombre(images, hair, 0.5, 1, 0, rounding="up"), "rounding must be one of"),
        (lambda: apply_ombre(images, hair, 0.5, 1, 0, stream="first"), "stream must be a CUDA stream"),
        (lambda: score(images, images), "parsing must be uint8"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            work()


def test_one_picture_of_a_sweep_is_not_overwritten() -> None:
    images, hair = up(np.zeros((1, 8, 8, 3), np.uint8)), up(np.zeros((1, 7, 7), np.float32))
    pair = up(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="out must not overlap images"):
        apply_ombre(pair[:1], hair, [0.1, 0.2], 1, 0, out=pair)
    assert apply_ombre(images, hair, [0.1, 0.2], 1, 0).shape == (2, 8, 8, 3)


class Placed(Foreign):
    def __init__(self, array: np.ndarray, device: int) -> None:
        super().__init__(array)
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._device)


@simulator_only
def test_arrays_on_two_devices_are_refused() -> None:
    images, hair = Placed(np.zeros((1, 8, 8, 3), np.uint8), 0), Placed(np.zeros((1, 7, 7), np.float32), 1)
    with pytest.raises(ValueError, match="one device, got images on cuda:0, hair on cuda:1"):
        apply_ombre(images, hair, 0.5, 1, 0)


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kernel: Any) -> Any:
        raise RuntimeError("[222] Call to cuLinkAddData results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION")

    monkeypatch.setattr(cuda_arrays.require_cuda(), "jit", refuse)
    with pytest.raises(
        cuda_arrays.CudaUnavailableError, match=r"do not run on cuda:0 .*UNSUPPORTED_PTX_VERSION.*update the driver"
    ):
        cuda_arrays.require_kernels.__wrapped__(0)


def test_streams_of_other_libraries() -> None:
    class Torch:
        cuda_stream = 7

    class Protocol:
        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, 8)

    assert [cuda_arrays._stream_pointer(s) for s in (5, Torch(), Protocol())] == [5, 7, 8]


# Property scores ---------------------------------------------------------------------------------------------------


def blocky(seed: int) -> np.ndarray:
    """A map of squares of 16 pixels: every class, everywhere."""
    small = np.random.default_rng(seed).integers(0, 11, (14, 14)).astype(np.uint8)
    return np.kron(small, np.ones((16, 16), np.uint8))


def face() -> np.ndarray:
    parsing = np.zeros((224, 224), np.uint8)
    parsing[80:95, 60:90], parsing[82:99, 130:160], parsing[100:140, 100:120] = 4, 5, 6
    parsing[150:154, 90:130], parsing[154:160, 95:125], parsing[160:170, 92:128] = 7, 8, 9
    parsing[5:60, 20:200], parsing[60:, :50], parsing[60:, 180:] = 10, 10, 10
    return parsing


def cross() -> np.ndarray:
    """A plus-shaped eye, whose longest chords tie; lone pixels elsewhere."""
    parsing = np.full((224, 224), 1, np.uint8)
    parsing[100, 90:111], parsing[90:111, 100], parsing[100, 150] = 4, 4, 5
    parsing[0, 0], parsing[223, 3], parsing[120, 120] = 0, 10, 6
    return parsing


def test_scores_are_the_references() -> None:
    rng = np.random.default_rng(5)
    parsing = np.stack([face(), cross(), blocky(0), np.full((224, 224), 10, np.uint8), np.zeros((224, 224), np.uint8)])
    images = rng.integers(0, 256, (len(parsing), 224, 224, 3), np.uint8)
    images[4] = 200
    for algorithm in ("v1", "v2"):
        made = score(up(parsing), up(images), algorithm=algorithm).copy_to_host()
        wanted = score(parsing, images, algorithm=algorithm, backend="reference")
        assert np.array_equal(made, wanted, equal_nan=True), algorithm
    for strict in (False, True):
        options = {"algorithm": "hairstyle", "strict_hairstyle": strict}
        made = score(up(parsing[:3]), up(images[:3]), **options).copy_to_host()
        wanted = score(parsing[:3], images[:3], backend="reference", **options)
        np.testing.assert_allclose(made, wanted, rtol=1e-13)
        assert len(set(made[:, 0])) > 1


@pytest.mark.parametrize("algorithm", ["v1", "v2"])
def test_edge_cases_are_scored_as_by_the_reference(golden: Path, algorithm: str) -> None:
    """The maps of the golden edge cases, for which the reference is tested against their scores."""
    with np.load(golden / "properties" / "edge_maps.npz") as found:
        names = [name for name in found.files if name != "image_bgr"]
        parsing, picture = np.stack([found[name] for name in names]), found["image_bgr"]
    assert len(names) >= 40
    images = np.ascontiguousarray(np.broadcast_to(picture, (len(names), *picture.shape)))
    made = score(up(parsing), up(images), algorithm=algorithm).copy_to_host()
    wanted = score(parsing, images, algorithm=algorithm, backend="reference")
    assert np.array_equal(made, wanted, equal_nan=True)


def test_a_face_is_scored_as_by_the_reference(shared: Path) -> None:
    folder = shared / "golden" / "properties" / "inputs"
    path = sorted(folder.glob("*_map_crop.png"))[0]
    parsing = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[None]
    images = cv2.imread(str(path).replace("_map_", "_img_"))[None]
    for algorithm in ("v1", "v2"):
        made = score(up(parsing), up(images), algorithm=algorithm).copy_to_host()
        wanted = score(parsing, images, algorithm=algorithm, backend="reference")
        assert np.array_equal(made, wanted, equal_nan=True), algorithm
    made = score(up(parsing), up(images), algorithm="hairstyle").copy_to_host()
    np.testing.assert_allclose(made, score(parsing, images, algorithm="hairstyle", backend="reference"), rtol=1e-13)


def test_an_unknown_class_makes_its_row_nan() -> None:
    parsing = np.stack([face(), face()])
    parsing[0, 200, 200] = 11
    images = np.zeros((2, 224, 224, 3), np.uint8)
    made = score(up(parsing), up(images)).copy_to_host()
    assert np.isnan(made[0]).all()
    assert np.array_equal(made[1:], score(parsing[1:], images[1:], backend="reference"), equal_nan=True)


# Between generator, hair finder and dye ----------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "fitted"), [(32, 28), (30, 13), (24, 12), (8, 24), (16, 16)])
def test_pictures_are_fitted_as_on_the_host(side: int, fitted: int) -> None:
    images = np.random.default_rng(6).integers(0, 256, (2, side, side, 3), np.uint8)
    out = cuda.device_array((2, fitted, fitted, 3), np.uint8)
    fit_pictures(up(images), out, Place(0, 0))
    shrinks = cv2.INTER_AREA if side > fitted else cv2.INTER_CUBIC
    wanted = np.stack([cv2.resize(image, (fitted, fitted), interpolation=shrinks) for image in images])
    difference = abs(out.copy_to_host().astype(int) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005, "only where a sum is nearly a half"


def test_facts_of_hair_maps() -> None:
    hair = maps("soft", (2, 9, 11), np.random.default_rng(7))
    hair[1] = 0.2
    mask = prepare_hair(up(hair), (10, 12))
    facts = up(np.zeros((2, 3), np.int32))
    hair_facts(up(hair), mask.rows, facts, Place(0, 0))
    wanted = prepare_hair(hair, (10, 12), backend="reference")
    assert facts.copy_to_host().tolist() == [
        [int((hair[i] >= 0.5).sum()), int(wanted.bottom[i]), int((hair[i] > 0.75).sum())] for i in range(2)
    ]


def test_taps_are_opencvs() -> None:
    line = np.random.default_rng(8).random((1, 40), np.float32)
    for target in (57, 40, 23):
        pixels, weights = cubic_taps(40, target)
        wanted = cv2.resize(line, (target, 1), interpolation=cv2.INTER_CUBIC)[0]
        np.testing.assert_allclose((line[0][pixels] * weights).sum(1), wanted, atol=1e-5)
    for target in (40, 23, 20, 7, 1):
        first, weights = area_taps(40, target)
        pixels = np.minimum(first[:, None] + np.arange(weights.shape[1]), 39)
        wanted = cv2.resize(line, (target, 1), interpolation=cv2.INTER_AREA)[0]
        np.testing.assert_allclose((line[0][pixels] * weights).sum(1), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="an area resize shrinks"):
        area_taps(20, 30)
