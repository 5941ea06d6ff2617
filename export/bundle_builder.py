"""Checkpoints -> bundle: rewrite, export, check against the PyTorch module, record what was measured."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from ohlora.bundle import Bundle, generator_identity_of, write_bundle
from ohlora.bundle_manifest import DirectionsPart, GalleryPart, GeneratorPart, HairPart
from ohlora.directions import Directions, read_published_directions
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BadRequest, BundleError
from ohlora.export.onnx import export_generator
from ohlora.export.student_onnx import export_student, reference_hair
from ohlora.faces import face_from_seed, load_faces
from ohlora.params import PROPERTIES
from ohlora.render.producers import truncate
from ohlora.training import checkpoints
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.nets.stylegan import Generator
from ohlora.training.student import load_student

PROBE_SEEDS = (11, 29)
HAIR_TOLERANCE = 0.05  # largest difference of one pixel; float16 weights measured 0.006
IMAGE_TOLERANCE = (1, 0.001)  # grey levels, share of values that may differ by one

Report = Callable[[str], None]


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
    overwrite: bool = False,
    metrics: dict[str, Any] | None = None,
    card: str | None = None,
    report: Report = lambda line: None,
) -> Bundle:
    """Compile checkpoints into the bundle `out`. See `ohlora bundle build --help` for the sources.

    metrics: figures of the student for the manifest. card: text of MODEL_CARD.md, written from the parts if None.
    Raises BadRequest, CheckpointError or BundleError; then nothing is left at `out`.
    """
    if directions is not None and generator is None:
        raise BadRequest("--directions belong to a generator: give --generator too")
    published = None if directions is None else read_published_directions(directions)
    if overwrite is False and out.exists() and any(out.iterdir()):
        raise BundleError(f"{out} exists: choose another --out or --overwrite")
    with tempfile.TemporaryDirectory(prefix="ohlora-bundle-") as temporary:
        staging = Path(temporary)
        hair_part = add_hair(staging, hair, metrics, report)
        generator_part = None if generator is None else add_generator(staging, generator, kind, report)
        directions_part = gallery_part = None
        if published is not None and generator_part is not None:
            directions_part = add_directions(staging, published, generator_part)
            gallery_part = add_gallery(staging, Path(str(directions)), generator_part)
        origin = provenance or describe_sources(generator, kind, hair, directions)
        parts = {
            "hair": hair_part,
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
            description="generator and hair student" if generator_part else "hair student",
            hair=hair_part,
            generator=generator_part,
            directions=directions_part,
            gallery=gallery_part,
            overwrite=overwrite,
        )


def describe_sources(generator: Path | None, kind: str, hair: str, directions: Path | None) -> str:
    """File names, never folders: a bundle travels, its builder's directories do not."""
    lines = [f"hair: {Path(hair).name}"]
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


@torch.no_grad()
def add_generator(staging: Path, checkpoint: Path, kind: str, report: Report) -> GeneratorPart:
    """Export mapping and synthesis, compare with the module on seeded faces, store probes and constants."""
    module = checkpoints.load(kind, checkpoint)
    if not isinstance(module, Generator):
        raise BadRequest(f"'{kind}' is no generator: a bundle renders with a generator checkpoint")
    config = module.config
    report(f"generator: {kind}, {config.resolution} px, {config.label_size} label values")
    export_generator(module, staging)
    faces = [face_from_seed(seed, config.label_size) for seed in PROBE_SEEDS]
    z = np.stack([face.z for face in faces])
    label = np.stack([face.label for face in faces])
    inputs = {"z": z, "label": label} if config.label_size else {"z": z}
    w = module.mapping(torch.from_numpy(z), torch.from_numpy(label) if config.label_size else None).numpy()
    w_avg = np.asarray(module.w_avg.detach().numpy(), dtype=np.float32)
    wp = truncate(w, w_avg, config.layers, 1.0, 0)
    image = module.synthesis(torch.from_numpy(wp)).double().numpy()
    expected = np.floor(np.clip((image + 1) * 127.5 + 0.5, 0, 255)).astype(np.uint8).transpose(0, 2, 3, 1)
    mapping = open_engine(staging / "mapping.onnx", backend="onnxruntime")
    synthesis = open_engine(staging / "synthesis.onnx", backend="onnxruntime")
    made_w, made = mapping(**inputs)["w"], synthesis(wp=wp)["image"]
    for engine in (mapping, synthesis):
        engine.close()
    difference = np.abs(made.astype(int) - expected)
    parity: dict[str, Any] = {
        "reference": "PyTorch float32 before rewrites",
        "w_max_abs_error": float(np.abs(made_w - w).max()),
        "image_max_grey_levels": int(difference.max()),
        "image_share_different": float((difference > 0).mean()),
    }
    levels, share = IMAGE_TOLERANCE
    if parity["image_max_grey_levels"] > levels or parity["image_share_different"] > share:
        raise BundleError(f"the exported generator differs from PyTorch, {parity}: not built")
    report(
        f"  parity: {parity['image_max_grey_levels']} grey levels on {parity['image_share_different']:.4%} of values"
    )
    (staging / "generator_constants.safetensors").write_bytes(save({"w_avg": w_avg}))
    save_probe(
        staging / "generator_probe.safetensors",
        mapping=Probe(inputs, {"w": w}),
        synthesis=Probe({"wp": wp}, {"image": expected}),
    )
    return GeneratorPart(
        kind=kind,
        mapping="mapping.onnx",
        synthesis="synthesis.onnx",
        probe="generator_probe.safetensors",
        constants="generator_constants.safetensors",
        z_size=config.z_size,
        label_size=config.label_size,
        w_size=config.w_size,
        num_layers=config.layers,
        resolution=config.resolution,
        parity=parity,
    )


def add_directions(staging: Path, directions: Directions, part: GeneratorPart) -> DirectionsPart:
    """Store directions bound to this generator."""
    groups = directions.groups
    arrays = {name: np.stack([directions.vectors[name][group] for group in groups]) for name in PROPERTIES}
    (staging / "directions.safetensors").write_bytes(save(arrays))
    identity = generator_identity_of(*(staging / name for name in (part.mapping, part.synthesis, part.constants)))
    return DirectionsPart(
        file="directions.safetensors",
        generator_sha256=identity,
        groups=groups,
        properties=list(PROPERTIES),
        source=directions.source,
    )


def add_gallery(staging: Path, folder: Path, part: GeneratorPart) -> GalleryPart | None:
    """The chosen faces that lie beside published directions (`ohlora_z_vectors.csv`), if any."""
    table = folder / "ohlora_z_vectors.csv"
    if not table.is_file():
        return None
    faces = load_faces([str(table)], part.label_size)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "group", *(f"v{i}" for i in range(part.z_size + part.label_size))])
    for face in faces:
        values = np.concatenate([face.z, face.label])
        writer.writerow([face.name, face.group or "", *(repr(float(value)) for value in values)])
    (staging / "gallery.csv").write_text(text.getvalue(), encoding="utf-8")
    return GalleryPart(file="gallery.csv", count=len(faces))


def model_card(name: str, license: str, provenance: str, parts: dict[str, Any]) -> str:
    """A plain card: what is inside, where it is from, what was measured."""
    lines = [f"# {name}", "", f"Licence of the weights: {license}", "", f"Made from: {provenance}", ""]
    for role, part in parts.items():
        if part is not None:
            lines += [f"## {role}", ""]
            lines += [f"- {key}: {value}" for key, value in part.model_dump().items() if value not in ("", {}, None)]
            lines.append("")
    return "\n".join(lines)
