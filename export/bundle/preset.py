"""A bundle at a preset: synthesis and hair finder in the fastest form that keeps its promise, the rest as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ohlora.base.types import Report
from ohlora.bundle import Bundle, file_sha256
from ohlora.bundle.manifest import GeneratorPart, HairPart, latent_identity
from ohlora.bundle.write import BundleDraft, new_bundle
from ohlora.engines.selftest import load_probe, save_probe
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.mapping import mapping_inputs
from ohlora.export.precision.presets import MASKS, PICTURES, Arrays, Chosen, Preset, Target, choose, run_rows
from ohlora.faces import face_from_seed
from ohlora.photos.segmentation import student_input
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS

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
    Raises EngineError when a network misses its gate, InvalidInputError when `out` is in the way; then `out` is as it
    was.
    """
    bundle = Bundle.open(source)
    manifest = bundle.manifest
    if manifest.generator is None and manifest.hair is None:
        raise InvalidInputError(f"bundle '{bundle.name}' has neither a generator nor a hair finder to put a preset on")
    with new_bundle(out, bundle, overwrite=overwrite) as draft:
        draft.name = name or f"{bundle.name}-{preset.name}"
        draft.provenance += f"; preset {preset.name}"
        pictures = None
        if draft.generator is not None:
            found = lower_synthesis(bundle, preset, precision, seeds, report)
            pictures = found.exact
            _put(draft, found, preset, "generator", draft.generator.synthesis)
        if draft.hair is not None:
            found = lower_hair(bundle, preset, precision, seeds, report, pictures=pictures)
            _put(draft, found, preset, "hair", draft.hair.file)
        if draft.directions is not None and draft.generator is not None:
            # They belong to the same trained weights; those of earlier bundles are bound to files that have changed.
            identity = latent_identity(draft.generator, lambda name: file_sha256(draft.folder / name))
            draft.directions = draft.directions.model_copy(update={"generator_sha256": identity})
    return Bundle.open(out)


def judged_latents(bundle: Bundle, seeds: int) -> tuple[Arrays, Arrays]:
    """(rows that quality is measured on, rows to calibrate on): wp of as many faces, without truncation."""
    part = bundle.generator_part()
    faces = [face_from_seed(FIRST_SEED + i, part.label_size) for i in range(seeds + CALIBRATION_SEEDS)]
    w = run_rows(onnx.load(bundle.file(part.mapping)), {**mapping_inputs(faces)})["w"]
    wp = np.repeat(w[:, None], part.num_layers, axis=1)
    return {"wp": wp[:seeds]}, {"wp": wp[seeds:]}


def lower_synthesis(
    bundle: Bundle, preset: Preset, precision: str | None, seeds: int, report: Report, symmetric: bool = False
) -> Chosen:
    """The chosen form, judged on `seeds` faces."""
    model = onnx.load(bundle.file(bundle.generator_part().synthesis))
    judged, calibration = judged_latents(bundle, seeds)
    target = Target(PICTURES, model, judged, calibration, preset)
    return choose(target, precision=precision, symmetric=symmetric, report=report)


def lower_hair(
    bundle: Bundle,
    preset: Preset,
    precision: str | None,
    seeds: int,
    report: Report,
    symmetric: bool = False,
    pictures: NDArray[np.uint8] | None = None,
) -> Chosen:
    """The chosen form, judged on `pictures`, else on procedural portraits; calibrated on portraits."""
    side = bundle.hair_part().input_size
    drawn = portraits.render(
        portraits.parameters_from_seeds(TEST_SEEDS[: CALIBRATION_SEEDS + (0 if pictures is not None else seeds)]), side
    ).images
    judged = drawn[CALIBRATION_SEEDS:] if pictures is None else np.stack([student_input(one) for one in pictures])
    model = onnx.load(bundle.file(bundle.hair_part().file))
    target = Target(MASKS, model, {"image": judged}, {"image": drawn[:CALIBRATION_SEEDS]}, preset)
    return choose(target, precision=precision, symmetric=symmetric, judged_in_plan=32, report=report)


def _put(draft: BundleDraft, chosen: Chosen, preset: Preset, role: str, file: str) -> None:
    """The chosen form in the place of a part's network, and what the part says of it."""
    part: GeneratorPart | HairPart = getattr(draft, role)
    if chosen.plan is not None and chosen.form.startswith("int8"):
        (draft.folder / file).write_bytes(chosen.model.SerializeToString(deterministic=True))
        networks = [role]
        if isinstance(part, GeneratorPart):
            networks = ["mapping", "synthesis", *(["mapping_end"] if part.mapping_end else [])]
        probes = {network: load_probe(draft.folder / part.probe, network) for network in networks}
        # The probe tests engines, not the preset: it holds what these weights give.
        changed = probes["hair" if role == "hair" else "synthesis"]
        changed.outputs.update(run_rows(chosen.model, changed.inputs))
        save_probe(draft.folder / part.probe, **probes)
    parity = {**part.parity, **chosen.to_json(preset)}
    setattr(draft, role, part.model_copy(update={"parity": parity, "precision": chosen.precision}))
