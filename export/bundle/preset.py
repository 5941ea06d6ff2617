"""A bundle at a preset: synthesis and hair finder in the fastest form that keeps its promise, the rest as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ohlora.bundle import Bundle, generator_identity_of
from ohlora.bundle.manifest import DirectionsPart, GeneratorPart, HairPart
from ohlora.bundle.write import write_bundle
from ohlora.engines.selftest import load_probe, save_probe
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.precision.presets import Arrays, Chosen, Preset, choose, mask_subject, picture_subject, run_rows
from ohlora.export.precision.quality import MaskQuality, PictureQuality
from ohlora.faces import face_from_seed
from ohlora.photos.segmentation import student_input
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS

Report = Callable[[str], None]

JUDGED_SEEDS = 200
FIRST_SEED = 7_000_000  # far from seeds that people type
CALIBRATION_SEEDS = 8


def preset_bundle(
    source: str | Path,
    preset: Preset,
    out: Path,
    *,
    precision: str | None = None,
    seeds: int = JUDGED_SEEDS,
    name: str | None = None,
    overwrite: bool = False,
    report: Report = print,
) -> Bundle:
    """Write the bundle `source` to `out` at `preset`.

    seeds: faces that quality is measured on. precision: only this form, see `presets.choose`.
    Raises EngineError when a network misses its gate, BundleError when `out` is in the way; then nothing is written.
    """
    bundle = Bundle.open(source)
    manifest = bundle.manifest
    if manifest.generator is None and manifest.hair is None:
        raise InvalidInputError(f"bundle '{bundle.name}' has neither a generator nor a hair finder to put a preset on")
    if out.exists() and not overwrite and any(out.iterdir()):
        raise BundleError(f"{out} exists: choose another --out or --overwrite")
    with tempfile.TemporaryDirectory(prefix="ohlora-bundle-") as temporary:
        staging = Path(temporary)
        for file in manifest.files:
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(file), staging / file)
        pictures = None
        generator = manifest.generator
        if generator is not None:
            found = lower_synthesis(bundle, preset, precision, seeds, report)
            pictures = found.exact
            generator = _with_synthesis(staging, generator, found, preset)
        hair = manifest.hair
        if hair is not None:
            finder = lower_hair(bundle, preset, precision, seeds, pictures, report)
            hair = _with_hair(staging, hair, finder, preset)
        return write_bundle(
            out,
            staging=staging,
            name=name or f"{bundle.name}-{preset.name}",
            license=manifest.license,
            provenance=f"{manifest.provenance}; preset {preset.name}",
            description=manifest.description,
            hair=hair,
            parsing=manifest.parsing,
            generator=generator,
            directions=_bound(staging, manifest.directions, generator),
            gallery=manifest.gallery,
            overwrite=overwrite,
        )


def judged_latents(bundle: Bundle, seeds: int) -> tuple[Arrays, Arrays]:
    """(rows that quality is measured on, rows to calibrate on): wp of as many faces, without truncation."""
    part = bundle.generator_part()
    faces = [face_from_seed(FIRST_SEED + i, part.label_size) for i in range(seeds + CALIBRATION_SEEDS)]
    inputs = {"z": np.stack([face.z for face in faces])}
    if part.label_size:
        inputs["label"] = np.stack([face.label for face in faces])
    w = run_rows(onnx.load(bundle.file(part.mapping)), inputs)["w"]
    wp = np.repeat(w[:, None], part.num_layers, axis=1)
    return {"wp": wp[:seeds]}, {"wp": wp[seeds:]}


def lower_synthesis(
    bundle: Bundle, preset: Preset, precision: str | None, seeds: int, report: Report, symmetric: bool = False
) -> Chosen[PictureQuality]:
    """The chosen form, judged on `seeds` faces."""
    model = onnx.load(bundle.file(bundle.generator_part().synthesis))
    judged, calibration = judged_latents(bundle, seeds)
    subject = picture_subject(model, judged, calibration, preset)
    return choose(subject, precision=precision, symmetric=symmetric, report=report)


def lower_hair(
    bundle: Bundle,
    preset: Preset,
    precision: str | None,
    seeds: int,
    pictures: NDArray[np.uint8] | None,
    report: Report,
    symmetric: bool = False,
) -> Chosen[MaskQuality]:
    """The chosen form, judged on `pictures`, else on procedural portraits; calibrated on portraits."""
    side = bundle.hair_part().input_size
    drawn = portraits.render(
        portraits.parameters_from_seeds(TEST_SEEDS[: CALIBRATION_SEEDS + (0 if pictures is not None else seeds)]), side
    ).images
    judged = drawn[CALIBRATION_SEEDS:] if pictures is None else np.stack([student_input(one) for one in pictures])
    model = onnx.load(bundle.file(bundle.hair_part().file))
    subject = mask_subject(model, {"image": judged}, {"image": drawn[:CALIBRATION_SEEDS]}, preset)
    return choose(subject, precision=precision, symmetric=symmetric, judged_in_plan=32, report=report)


def _with_synthesis(
    staging: Path, part: GeneratorPart, chosen: Chosen[PictureQuality], preset: Preset
) -> GeneratorPart:
    if chosen.plan is not None and chosen.form.startswith("int8"):
        _write_network(staging / part.synthesis, chosen.model)
        networks = ["mapping", "synthesis", *(["mapping_end"] if part.mapping_end else [])]
        probes = {network: load_probe(staging / part.probe, network) for network in networks}
        # The probe tests engines, not the preset: it holds what these weights give.
        probes["synthesis"].outputs.update(run_rows(chosen.model, probes["synthesis"].inputs))
        save_probe(staging / part.probe, **probes)
    return part.model_copy(update={"parity": {**part.parity, **chosen.to_json(preset)}, "precision": chosen.precision})


def _with_hair(staging: Path, part: HairPart, chosen: Chosen[MaskQuality], preset: Preset) -> HairPart:
    if chosen.plan is not None and chosen.form.startswith("int8"):
        _write_network(staging / part.file, chosen.model)
        probe = load_probe(staging / part.probe, "hair")
        probe.outputs.update(run_rows(chosen.model, probe.inputs))
        save_probe(staging / part.probe, hair=probe)
    return part.model_copy(update={"parity": {**part.parity, **chosen.to_json(preset)}, "precision": chosen.precision})


def _write_network(path: Path, model: onnx.ModelProto) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


def _bound(staging: Path, directions: DirectionsPart | None, generator: GeneratorPart | None) -> DirectionsPart | None:
    """The directions, which belong to the same trained weights, bound to the generator's files as they are now."""
    if directions is None or generator is None:
        return None
    identity = generator_identity_of(*(staging / name for name in generator.files()))
    return directions.model_copy(update={"generator_sha256": identity})
