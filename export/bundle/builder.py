"""Checkpoints -> bundle: rewrite, export, check against the PyTorch module, record what was measured."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle import Bundle
from ohlora.bundle.gallery import GalleryEntry, read_gallery, write_gallery
from ohlora.bundle.manifest import GalleryPart, HairPart
from ohlora.bundle.write import write_bundle
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.bundle.directions import add_directions, load_directions
from ohlora.export.bundle.generator import Report, add_generator, load_generator
from ohlora.export.bundle.parsing import add_parsing
from ohlora.export.graphs.generator import STORAGES, Storage
from ohlora.export.graphs.student import export_student, reference_hair
from ohlora.faces import load_faces
from ohlora.latents.directions import Directions
from ohlora.training import checkpoints
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.nets.stylegan import GeneratorConfig
from ohlora.training.weights.student import load_student

HAIR_TOLERANCE = 0.05  # largest difference of one pixel; float16 weights measured 0.006
PUBLISHED_GALLERY = "ohlora_z_vectors.csv"


def build_bundle(
    out: Path,
    *,
    generator: Path | None,
    kind: str,
    hair: str,
    directions: Path | None,
    name: str,
    license: str,
    provenance: str | None,
    space: str | None = None,
    storage: Storage = "float32",
    gallery: Path | None = None,
    overwrite: bool = False,
    metrics: dict[str, Any] | None = None,
    card: str | None = None,
    parsing: str | None = None,
    parsing_metrics: dict[str, Any] | None = None,
    report: Report = lambda line: None,
) -> Bundle:
    """Compile checkpoints into the bundle `out`. See `ohlora bundle build --help` for the sources.

    space: of the directions, where their folder holds several. storage: of the generator's weights. gallery: faces with
    the columns name, group, v0 ...; None takes those beside published directions. metrics: figures of the student for
    the manifest. card: text of MODEL_CARD.md, written from the parts if None. parsing: a face parser (a student of
    `train parsing`, or another bundle's), None for none.
    Raises InvalidInputError, CheckpointError, EngineError or BundleError; then nothing is left at `out`.
    """
    if directions is None and space is not None:
        raise InvalidInputError(f"--space {space} chooses among the tables of a folder: give --directions FOLDER too")
    for option, given in (("directions", directions), ("gallery", gallery)):
        if given is not None and generator is None:
            raise InvalidInputError(f"--{option} belong to a generator: give --generator too")
    if storage not in STORAGES:
        raise InvalidInputError(f"--storage must be one of {', '.join(STORAGES)}, got '{storage}'")
    found = None if directions is None else load_directions(directions, space)
    if overwrite is False and out.exists() and any(out.iterdir()):
        raise BundleError(f"{out} exists: choose another --out or --overwrite")
    with tempfile.TemporaryDirectory(prefix="ohlora-bundle-") as temporary:
        staging = Path(temporary)
        generator_part = directions_part = gallery_part = None
        if generator is not None:
            # What people get wrong is found before the export, which takes a while.
            module = load_generator(kind, generator)
            if found is not None:
                found.require_generator(module.config, state_sha256(module), generator.name)
            faces = named_faces(gallery, directions, module.config, found)
            generator_part = add_generator(staging, module, kind, storage, report)
            directions_part = None if found is None else add_directions(staging, found, generator_part)
            if faces:
                write_gallery(staging / "gallery.csv", faces)
                gallery_part = GalleryPart(file="gallery.csv", count=len(faces))
        hair_part = add_hair(staging, hair, metrics, report)
        parsing_part = None if parsing is None else add_parsing(staging, parsing, parsing_metrics, report)
        origin = provenance or describe_sources(generator, kind, hair, directions, parsing)
        parts = {
            "hair": hair_part,
            "parsing": parsing_part,
            "generator": generator_part,
            "directions": directions_part,
            "gallery": gallery_part,
        }
        text = card or model_card(name, license, origin, parts)
        (staging / "MODEL_CARD.md").write_text(text, encoding="utf-8")
        return write_bundle(
            out,
            staging=staging,
            name=name,
            license=license,
            provenance=origin,
            description=describe_parts(generator_part is not None, parsing_part is not None),
            hair=hair_part,
            parsing=parsing_part,
            generator=generator_part,
            directions=directions_part,
            gallery=gallery_part,
            overwrite=overwrite,
        )


def describe_parts(generator: bool, parsing: bool) -> str:
    """The networks of a bundle in words."""
    students = "hair and parsing students" if parsing else "hair student"
    return f"generator and {students}" if generator else students


def describe_sources(
    generator: Path | None, kind: str, hair: str, directions: Path | None, parsing: str | None = None
) -> str:
    """File names, never folders: a bundle travels, its builder's directories do not."""
    lines = [f"hair: {Path(hair).name}"]
    lines += [f"parsing: {Path(parsing).name}"] if parsing else []
    lines += [f"generator: {generator.name} ({kind})"] if generator else []
    lines += [f"directions: {directions.name}"] if directions else []
    return "; ".join(lines)


def add_hair(staging: Path, source: str, metrics: dict[str, Any] | None, report: Report) -> HairPart:
    """Put the student into the staging folder: trained here, published, or taken from another bundle."""
    path = Path(source)
    if path.suffix == ".safetensors":
        model = load_student(path)
    elif path.suffix in (".pth", ".pt"):
        loaded = checkpoints.load("effisegnet-v4", path)
        assert isinstance(loaded, EffiSegNet)
        model = loaded
    else:
        bundle = Bundle.open(source)
        part = bundle.hair_part()
        for file in (part.file, part.probe):
            shutil.copyfile(bundle.file(file), staging / file)
        return part
    report(f"hair student: {model.encoder_name}")
    export_student(model, staging / "hair.onnx")
    images = probe_pictures()
    expected = reference_hair(model, images)
    with_engine = open_engine(staging / "hair.onnx", backend="onnxruntime")
    made = with_engine(image=images)["hair"]
    with_engine.close()
    parity: dict[str, Any] = {
        "reference": "PyTorch float32 before rewrites and float16 storage",
        "max_abs_error": float(np.abs(made - expected).max()),
        "mean_abs_error": float(np.abs(made - expected).mean()),
    }
    if parity["max_abs_error"] > HAIR_TOLERANCE:
        raise BundleError(f"the exported student differs from PyTorch by {parity['max_abs_error']:.4f}: not built")
    save_probe(staging / "hair_probe.safetensors", hair=Probe({"image": images[:2]}, {"hair": made[:2]}))
    report(f"  parity: max {parity['max_abs_error']:.1e}, mean {parity['mean_abs_error']:.1e}")
    return HairPart(
        file="hair.onnx",
        probe="hair_probe.safetensors",
        input_size=SIZE,
        architecture=f"EffiSegNet ({model.encoder_name}, 64 channels)",
        parity=parity,
        metrics=metrics or {},
    )


def probe_pictures() -> NDArray[np.uint8]:
    """Three smooth random pictures [3,224,224,3]: nobody's face, and the same on every machine."""
    rng = np.random.Generator(np.random.Philox(key=224))
    coarse = rng.integers(0, 256, (3, 14, 14, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)


def named_faces(
    table: Path | None, folder: Path | None, config: GeneratorConfig, directions: Directions | None
) -> list[GalleryEntry]:
    """The faces of `table`, else the chosen faces that lie beside published directions, else none."""
    if table is not None:
        groups = None if directions is None else directions.groups
        entries = read_gallery(table, config.z_size, config.label_size, groups)
        if not entries:
            raise InvalidInputError(f"the gallery {table} has no faces: give one with faces or leave --gallery out")
        return entries
    published = None if folder is None or directions is None else published_faces(folder, directions.space)
    if published is None or directions is None:
        return []
    # A set without groups is for every face, whatever group other sets put it into.
    grouped = len(directions.groups) > 1
    faces = load_faces([str(published)], config.label_size)
    return [GalleryEntry(face.name, face.group if grouped else None, face.z, face.label) for face in faces]


def published_faces(folder: Path, space: str) -> Path | None:
    """The z-vector table that belongs to the directions of `space`, by its table of group names; None without."""
    for names in sorted(folder.glob(f"ohlora_{space}_group_names*.csv")):
        table = folder / names.name.replace(f"ohlora_{space}_group_names", "ohlora_z_vectors")
        if table.is_file():
            return table
    return folder / PUBLISHED_GALLERY if (folder / PUBLISHED_GALLERY).is_file() else None


def model_card(name: str, license: str, provenance: str, parts: dict[str, Any]) -> str:
    """A plain card: what is inside, where it is from, what was measured."""
    lines = [f"# {name}", "", f"Licence of the weights: {license}", "", f"Made from: {provenance}", ""]
    for role, part in parts.items():
        if part is not None:
            lines += [f"## {role}", ""]
            lines += [f"- {key}: {value}" for key, value in part.model_dump().items() if value not in ("", {}, None)]
            lines.append("")
    return "\n".join(lines)
