"""Property scores: every golden row and edge case, both forms bit for bit, ties against all pairs, normalisation."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ohlora.bench.baselines.properties import DOCUMENTED, opening
from ohlora.kernels.properties import ALGORITHMS, PROPERTIES, normalize, score, statistics
from ohlora.kernels.properties.reference import eye_opening

BACKENDS = ("reference", "cpu")
# Map and picture of each golden table; v1 has the picture that does not lie on its map, as documented.
TABLES = {
    "v1_full": ("full", "full"),
    "v1_crop": ("crop", "full"),
    "v2_full": ("full", "full"),
    "v2_crop": ("crop", "crop"),
    "hairstyle_full": ("full", "full"),
    "hairstyle_crop": ("crop", "crop"),
}
Maps = NDArray[np.uint8]


def table(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names and values of a golden table; NaN for an empty cell."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row[0] for row in rows], np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])


@cache
def inputs(folder: Path, kind: str) -> Maps:
    names, _ = table(folder / "v1_full_raw.csv")
    return np.stack([cv2.imread(str(folder / "inputs" / f"{n}_{kind}.png"), cv2.IMREAD_UNCHANGED) for n in names])


def check(got: NDArray[np.float64], wanted: NDArray[np.float64], what: str) -> None:
    """To the tolerance of tests/golden/README.md, section "properties/": exact, else 1e-12 relative; the same NaN."""
    assert np.array_equal(np.isnan(got), np.isnan(wanted)), what
    worst = np.nanmax(np.abs(got - wanted) - 1e-12 * np.abs(wanted), initial=-1)
    assert worst <= 1e-15, (what, worst)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TABLES)
def test_golden_faces(shared: Path, name: str, backend: str) -> None:
    folder = shared / "golden" / "properties"
    parsing, picture = (
        inputs(folder, f"{kind}_{part}") for kind, part in zip(("map", "img"), TABLES[name], strict=True)
    )
    algorithm = name.partition("_")[0]
    _, wanted = table(folder / f"{name}_raw.csv")
    got = score(parsing, picture, algorithm=algorithm, backend=backend)
    assert got.shape == wanted.shape == (60, len(ALGORITHMS[algorithm]))
    check(got, wanted, name)
    exact = {"v1": [0, 2, 3], "v2": [0], "hairstyle": []}[algorithm]
    assert np.array_equal(got[:, exact], wanted[:, exact], equal_nan=True)
    check_normalization(folder, name, got)


def check_normalization(folder: Path, name: str, got: NDArray[np.float64]) -> None:
    _, figures = table(folder / f"{name}_stats.csv")
    mean, deviation = statistics(got)
    assert np.allclose(mean, figures[:, 0], rtol=1e-12)
    assert np.allclose(deviation, figures[:, 1], rtol=1e-12)
    _, normalized = table(folder / f"{name}_normalized.csv")
    assert np.array_equal(normalize(got), normalized, equal_nan=True)
    assert np.array_equal(normalize(got[:5], mean=mean, std=deviation), normalized[:5], equal_nan=True)


@pytest.mark.parametrize("name", TABLES)
def test_golden_normalization(golden: Path, name: str) -> None:
    """From the stored raw scores of the 60 faces."""
    folder = golden / "properties"
    check_normalization(folder, name, table(folder / f"{name}_raw.csv")[1])


def cases(folder: Path) -> Iterator[tuple[str, Maps, Maps, dict[str, Any]]]:
    """The 43 edge cases and the 20 random maps: name, map, picture, expected."""
    edge = json.loads((folder / "edge_expected.json").read_text())
    with np.load(folder / "edge_maps.npz") as maps:
        for name, expected in edge.items():
            yield name, maps[name], maps["image_bgr"], expected
    with np.load(folder / "random_maps.npz") as maps:
        for name, expected in json.loads((folder / "random_expected.json").read_text()).items():
            yield name, maps[f"{name}_map"], maps[f"{name}_bgr"], expected


def ours(value: Any) -> float:
    """An expected value under our rules: what upstream raises on, leaves out or divides by zero is NaN."""
    return math.nan if value is None or isinstance(value, str | dict) else float(value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_edge_cases_and_random_maps(golden: Path, backend: str) -> None:
    count = 0
    for name, parsing, picture, expected in cases(golden / "properties"):
        v1, v2 = expected["v1"], expected["v2"]
        background = v1["background_mean_std"]
        wanted = {
            "v1": [v1["eyes"], v1["hair_color"], v1["hair_length"], v1["mouth"], v1["pose"], *background],
            "v2": [
                v2["eyes_pose"][0],
                v2["hair_color"],
                v2["hair_length"],
                v2["mouth"],
                v2["eyes_pose"][1],
                *background,
            ],
            "hairstyle": [expected["hairstyle"]],
        }
        for algorithm, values in wanted.items():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                got = score(parsing[None], picture[None], algorithm=algorithm, backend=backend)
            check(got, np.array([[ours(value) for value in values]]), f"{name} {algorithm}")
        count += 1
    assert count == 63


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_hairstyle_of_the_cnn_folder(golden: Path, backend: str) -> None:
    with np.load(golden / "cnn" / "hairstyle_score.npz") as stored:
        got = score(stored["parsing"], stored["face_bgr"], algorithm="hairstyle", backend=backend)
        check(got[:, 0], stored["raw_score"], "cnn/hairstyle_score")
        assert stored["raw_score"][2] == 0.45


# --- properties ---------------------------------------------------------------------------------------------------


@st.composite
def maps(draw: st.DrawFn) -> Maps:
    """A class map: one class, or noise of a few, with rectangles of any size down to a pixel on it."""
    if draw(st.booleans()):
        parsing = np.full((224, 224), draw(st.integers(0, 10)), np.uint8)
    else:
        classes = draw(st.lists(st.integers(0, 10), min_size=1, max_size=5))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        coarse = draw(st.sampled_from([1, 2, 4, 7, 8, 32, 112]))
        noise = rng.choice(np.array(classes, np.uint8), (224 // coarse + 1, 224 // coarse + 1))
        parsing = np.ascontiguousarray(noise.repeat(coarse, 0).repeat(coarse, 1)[:224, :224])
    for _ in range(draw(st.integers(0, 10))):
        y, x = draw(st.integers(0, 223)), draw(st.integers(0, 223))
        height, width = (draw(st.sampled_from([1, 1, 2, 3, 9, 21, 60, 224])) for _ in range(2))
        parsing[y : y + height, x : x + width] = draw(st.sampled_from([0, 4, 4, 5, 5, 6, 7, 8, 9, 10, 10]))
    return parsing


@st.composite
def pictures(draw: st.DrawFn) -> Maps:
    """Noise, few values, a gradient, one colour."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "few", "gradient", "flat"]))
    if kind == "noise":
        return rng.integers(0, 256, (224, 224, 3)).astype(np.uint8)
    if kind == "few":
        return rng.choice(np.array([0, 1, 254, 255], np.uint8), (224, 224, 3))
    if kind == "gradient":
        return np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3)).copy()
    return np.full((224, 224, 3), draw(st.integers(0, 255)), np.uint8)


@settings(max_examples=60, deadline=None)
@given(maps(), pictures())
def test_both_forms_agree_bit_for_bit(parsing: Maps, picture: Maps) -> None:
    for algorithm, strict in (("v1", False), ("v2", False), ("hairstyle", False), ("hairstyle", True)):
        slow, fast = (
            score(parsing[None], picture[None], algorithm=algorithm, backend=backend, strict_hairstyle=strict)
            for backend in BACKENDS
        )
        assert slow.view(np.uint64).tolist() == fast.view(np.uint64).tolist() or (
            np.array_equal(slow, fast, equal_nan=True)
        ), (algorithm, slow, fast)


@settings(max_examples=6, deadline=None)
@given(maps(), pictures())
def test_the_documents_loops_give_the_same(parsing: Maps, picture: Maps) -> None:
    parsing = np.where(np.isin(parsing, (4, 5)) & (np.indices((224, 224)).sum(0) % 7 > 0), 1, parsing).astype(np.uint8)
    for algorithm, documented in DOCUMENTED.items():
        got = score(parsing[None], picture[None], algorithm=algorithm)[0]
        wanted = np.array(documented(parsing, picture), float)
        assert np.array_equal(np.isnan(got), np.isnan(wanted)), algorithm
        assert np.allclose(got, wanted, rtol=1e-11, atol=1e-11, equal_nan=True), algorithm


# Small grids are full of equal distances.
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14, unique=True)


@settings(max_examples=150, deadline=None)
@given(points, st.sampled_from([1, 2, 9]))
def test_ties_of_the_longest_chord(eye: list[tuple[int, int]], spread: int) -> None:
    parsing = np.ones((1, 224, 224), np.uint8)
    pixels = sorted((80 + spread * x, 100 + spread * y) for x, y in eye)
    for x, y in pixels:
        parsing[0, y, x] = 4
    wanted = opening(pixels)  # all pairs, in the documented order
    image = np.zeros((1, 224, 224, 3), np.uint8)
    assert [score(parsing, image, backend=backend)[0, 0] for backend in BACKENDS] == [wanted, wanted]
    assert eye_opening(parsing[0] == 4) == wanted


def scene(count: int) -> tuple[Maps, Maps]:
    rng = np.random.default_rng(3)
    parsing = rng.integers(0, 11, (count, 28, 28)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    return parsing, rng.integers(0, 256, (count, 224, 224, 3)).astype(np.uint8)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threads_batches_and_memory_layout_do_not_matter(algorithm: str) -> None:
    parsing, picture = scene(37)
    whole = score(parsing, picture, algorithm=algorithm, threads=1)
    assert np.array_equal(whole, score(parsing, picture, algorithm=algorithm, threads=3), equal_nan=True)
    assert np.array_equal(whole[5:6], score(parsing[5:6], picture[5:6], algorithm=algorithm), equal_nan=True)
    assert np.array_equal(whole[::-2], score(parsing[::-2], picture[::-2], algorithm=algorithm), equal_nan=True)
    turned = np.asfortranarray(parsing), picture[..., ::-1]  # BGR is as good as RGB
    assert np.array_equal(whole, score(*turned, algorithm=algorithm), equal_nan=True)
    unaligned = np.empty(parsing.size + 3, np.uint8)[3:].reshape(parsing.shape)
    unaligned[:] = parsing
    if algorithm == "hairstyle":  # Numba compiles everything again for read-only arrays
        unaligned.flags.writeable = picture.flags.writeable = False
    assert np.array_equal(whole, score(unaligned, picture, algorithm=algorithm), equal_nan=True)
    assert score(parsing[:0], picture[:0], algorithm=algorithm).shape == (0, len(ALGORITHMS[algorithm]))


def test_strict_hairstyle_asks_for_whole_blocks() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    hair = np.full((1, 224, 224), 10, np.uint8)
    values = {}
    for name, holes in (("whole", None), ("holes", (slice(113, 224, 4), slice(1, 224, 2)))):
        if holes:
            hair[0][holes] = 1
        for strict in (False, True):
            found = [
                score(hair, picture, algorithm="hairstyle", backend=b, strict_hairstyle=strict)[0, 0] for b in BACKENDS
            ]
            assert found[0] == found[1]
            values[name, strict] = found[0]
    assert values["whole", True] == values["whole", False]  # where all is hair both rules take every position
    assert values["holes", True] == 0.45  # every block has a hole
    assert values["holes", False] not in (0.45, values["whole", False])


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_input(backend: str) -> None:
    parsing, picture = scene(3)
    for bad, image, message in (
        (parsing[:, :200], picture, r"parsing must be a uint8 array \[N,224,224\], got uint8 \(3, 200, 224\)"),
        (parsing, picture[:, :, :223], r"images must be a uint8 array \[N,224,224,3\]"),
        (parsing[0], picture, "parsing must be"),
        (parsing.astype(np.int64), picture, "got int64"),
        (parsing.tolist(), picture, "got list"),
        (parsing[:2], picture, "2 maps and 3 images"),
    ):
        with pytest.raises(ValueError, match=message):
            score(bad, image, backend=backend)  # type: ignore[arg-type]
    parsing[1, 7, 7] = 17
    for algorithm in ALGORITHMS:
        with pytest.raises(ValueError, match=r"map 1 holds class 17: classes are 0 to 10"):
            score(parsing, picture, algorithm=algorithm, backend=backend)


def test_wrong_names() -> None:
    parsing, picture = scene(1)
    with pytest.raises(ValueError, match="algorithm must be one of v1, v2, hairstyle, got 'v3'"):
        score(parsing, picture, algorithm="v3")
    with pytest.raises(ValueError, match="backend must be one of auto, cpu, cuda, reference, got 'gpu'"):
        score(parsing, picture, backend="gpu")
    with pytest.raises(ValueError, match="threads must be at least 1"):
        score(parsing, picture, threads=0)
    with pytest.raises(ValueError, match="strict_hairstyle belongs to"):
        score(parsing, picture, strict_hairstyle=True)


# --- normalisation ------------------------------------------------------------------------------------------------

EXAMPLE = [100, 250, 120, 180, 210]  # of the documents


def test_the_documents_example() -> None:
    assert normalize(EXAMPLE, ddof=0, decimals=3).tolist() == [-1.294, 1.402, -0.935, 0.144, 0.683]
    assert normalize(EXAMPLE, decimals=3).tolist() == [-1.157, 1.254, -0.836, 0.129, 0.611]
    mean, deviation = statistics(EXAMPLE, ddof=0)
    assert (mean[0], round(deviation[0], 3)) == (172.0, 55.642)


def test_nan_is_skipped_and_constant_columns_are_nan() -> None:
    nan = math.nan
    values = np.array([[1, 0.1, nan, nan], [3, 0.1, nan, 5], [nan, 0.1, nan, nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, deviation = statistics(values)
        z = normalize(values, decimals=None)
        assert normalize(np.zeros((0, 7))).shape == (0, 7)
    assert np.array_equal(mean, [2, 0.1, nan, 5], equal_nan=True) or abs(mean[1] - 0.1) < 1e-16
    assert np.array_equal(deviation, [math.sqrt(2), 0, nan, nan], equal_nan=True)
    assert np.array_equal(z, [[-1 / math.sqrt(2), nan, nan, nan], [1 / math.sqrt(2), nan, nan, nan], [nan] * 4], True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.sampled_from([0, 1]), st.integers(0, 6))
def test_normalized_is_centred_and_rounded_as_python_rounds(values: list[float], ddof: int, decimals: int) -> None:
    exact = normalize(values, ddof=ddof, decimals=None)
    rounded = normalize(values, ddof=ddof, decimals=decimals)
    for a, b in zip(exact.tolist(), rounded.tolist(), strict=True):
        assert (math.isnan(a) and math.isnan(b)) or round(a, decimals) == b
    if not np.isnan(exact).any() and np.std(values) > 1e-6 * max(map(abs, values)):
        assert abs(exact.mean()) < 1e-6
        assert abs(exact.std(ddof=ddof) - 1) < 1e-6


def test_wrong_normalisation() -> None:
    values = np.zeros((4, 7))
    for arguments, message in (
        ({"mean": np.zeros(7)}, "mean and std belong together"),
        ({"mean": np.zeros(3), "std": np.ones(3)}, "must have 7 values each, got 3 and 3"),
        ({"mean": np.zeros(7), "std": -np.ones(7)}, "std must not be negative"),
        ({"ddof": 2}, "ddof must be 0 or 1"),
    ):
        with pytest.raises(ValueError, match=message):
            normalize(values, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"scores must be \[N,C\]"):
        normalize(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="finite"):
        normalize([1.0, math.inf])


def test_columns_are_the_published_ones() -> None:
    from ohlora.scores.table import PROPERTY_COLUMNS

    assert tuple(f"{name}_score" for name in PROPERTIES) == PROPERTY_COLUMNS
