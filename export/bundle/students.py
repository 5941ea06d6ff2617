"""The students of a bundle, hair finder and face parser: exported, compared with the module, with their probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Report
from ohlora.bundle import Bundle
from ohlora.bundle.manifest import HairPart, ParsingPart
from ohlora.bundle.write import BundleDraft
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BundleError
from ohlora.export.graphs.student import Role, export_student, reference_hair, reference_logits
from ohlora.training import checkpoints
from ohlora.training.data import portraits
from ohlora.training.data.parsing_classes import NAMES13
from ohlora.training.data.portrait_faces import TEST_SEEDS
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.weights.student import load_parser, load_student

HAIR_TOLERANCE = 0.05  # largest difference of one pixel; float16 weights measured 0.006
# Rounded weights move edges by a fraction of a pixel: share of the pixels that may get another class.
DIFFERENT = 0.01
CANDIDATES = 8  # portraits that a parser's parity is measured on, one of which becomes the probe

OWN = ".safetensors"
# Of weights, by role; any other source is a bundle.
SUFFIXES = {"hair": (OWN, ".pth", ".pt"), "parsing": (OWN,)}


def add_student(draft: BundleDraft, role: Role, source: str, metrics: dict[str, Any] | None, report: Report) -> None:
    """Put hair finder or face parser into the draft: trained here, published, or taken from another bundle.

    Raises CheckpointError for a file of another kind, BundleError when the export differs too much from the module.
    """
    path = Path(source)
    if path.suffix not in SUFFIXES[role]:
        bundle = Bundle.open(source)
        part = bundle.hair_part() if role == "hair" else bundle.parsing_part()
        draft.take(bundle, part.file, part.probe)
        setattr(draft, role, part)
        return
    if path.suffix == OWN:  # the hair of a parsing student is as good as a hair student's
        model = load_student(path, outputs=None) if role == "hair" else load_parser(path)
    else:
        model = checkpoints.load_as(EffiSegNet, "effisegnet-v4", path)
    channels = "64 channels" if model.outputs == 1 else f"64 channels, {model.outputs} classes"
    report(f"{role} student: {model.encoder_name}, {channels}")
    file, probe = f"{role}.onnx", f"{role}_probe.safetensors"
    export_student(model, draft.folder / file, role)
    judge = _judged_hair if role == "hair" else _judged_parsing
    images, made, rows, parity = judge(model, draft.folder / file, report)
    save_probe(draft.folder / probe, **{role: Probe({"image": images[rows]}, {role: made[rows]})})
    said: dict[str, Any] = {
        "file": file,
        "probe": probe,
        "input_size": SIZE,
        "architecture": f"EffiSegNet ({model.encoder_name}, {channels})",
        "parity": {"reference": "PyTorch float32 before rewrites and float16 storage", **parity},
        "metrics": metrics or {},
    }
    if role == "hair":
        draft.hair = HairPart(**said)
    else:
        draft.parsing = ParsingPart(classes=list(NAMES13[: model.outputs]), **said)


Judged = tuple[NDArray[np.uint8], NDArray[Any], slice, dict[str, float]]  # images, results, rows of the probe, parity


def _judged_hair(model: EffiSegNet, path: Path, report: Report) -> Judged:
    images = probe_pictures()
    made = _run(path, images)["hair"]
    difference = np.abs(made - reference_hair(model, images))
    parity = {"max_abs_error": float(difference.max()), "mean_abs_error": float(difference.mean())}
    if parity["max_abs_error"] > HAIR_TOLERANCE:
        raise BundleError(f"the exported student differs from PyTorch by {parity['max_abs_error']:.4f}: not built")
    report(f"  parity: max {parity['max_abs_error']:.1e}, mean {parity['mean_abs_error']:.1e}")
    return images, made, slice(2), parity


def _judged_parsing(model: EffiSegNet, path: Path, report: Report) -> Judged:
    images = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:CANDIDATES]), SIZE).images
    logits = reference_logits(model, images)
    made = _run(path, images)["parsing"]
    different = float((made != logits.argmax(1)).mean())
    if different > DIFFERENT:
        raise BundleError(
            f"the exported parser gives {different:.2%} of the pixels another class than PyTorch does "
            f"(allowed {DIFFERENT:.0%}): not built"
        )
    report(f"  parity: {different:.3%} of the pixels differ")
    clearest = int(np.argmax(smallest_margin(logits)))
    return images, made, slice(clearest, clearest + 1), {"share_different": different}


def _run(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    with open_engine(path, backend="onnxruntime") as engine:
        return engine(image=images)


def probe_pictures() -> NDArray[np.uint8]:
    """Three smooth random pictures [3,224,224,3]: nobody's face, and the same on every machine."""
    rng = np.random.Generator(np.random.Philox(key=224))
    coarse = rng.integers(0, 256, (3, 14, 14, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)


def smallest_margin(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each picture [N,C,H,W], how far its closest decision is from a tie. The probe must not hang on rounding."""
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray((best[:, 1] - best[:, 0]).min((1, 2)), np.float32)
