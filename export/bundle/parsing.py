"""The face parser of a bundle: exported, compared with the PyTorch module on portraits, with its probe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle import Bundle
from ohlora.bundle.manifest import ParsingPart
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BundleError
from ohlora.export.bundle.generator import Report
from ohlora.export.graphs.student import export_student, reference_logits
from ohlora.training.data import portraits
from ohlora.training.data.parsing_classes import NAMES11
from ohlora.training.data.portrait_faces import TEST_SEEDS
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.weights.student import load_student

# Rounded weights move edges by a fraction of a pixel: share of the pixels that may get another class.
DIFFERENT = 0.01
CANDIDATES = 8  # portraits that parity is measured on, one of which becomes the probe


def add_parsing(staging: Path, source: str, metrics: dict[str, Any] | None, report: Report) -> ParsingPart:
    """Put the parser into the staging folder: a student of `train parsing`, or another bundle's.

    Raises CheckpointError for a file of another kind, BundleError when the export differs too much from the module.
    """
    path = Path(source)
    if path.suffix != ".safetensors":
        bundle = Bundle.open(source)
        part = bundle.parsing_part()
        for file in (part.file, part.probe):
            shutil.copyfile(bundle.file(file), staging / file)
        return part
    model = load_student(path, outputs=len(NAMES11))
    report(f"parsing student: {model.encoder_name}, {model.outputs} classes")
    export_student(model, staging / "parsing.onnx")
    images = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:CANDIDATES]), SIZE).images
    logits = reference_logits(model, images)
    engine = open_engine(staging / "parsing.onnx", backend="onnxruntime")
    made = engine(image=images)["parsing"]
    engine.close()
    parity: dict[str, Any] = {
        "reference": "PyTorch float32 before rewrites and float16 storage",
        "share_different": float((made != logits.argmax(1)).mean()),
    }
    if parity["share_different"] > DIFFERENT:
        raise BundleError(
            f"the exported parser gives {parity['share_different']:.2%} of the pixels another class than PyTorch does "
            f"(allowed {DIFFERENT:.0%}): not built"
        )
    clearest = int(np.argmax(smallest_margin(logits)))
    rows = slice(clearest, clearest + 1)
    probe = Probe({"image": images[rows]}, {"parsing": made[rows]})
    save_probe(staging / "parsing_probe.safetensors", parsing=probe)
    report(f"  parity: {parity['share_different']:.3%} of the pixels differ")
    return ParsingPart(
        file="parsing.onnx",
        probe="parsing_probe.safetensors",
        input_size=SIZE,
        classes=list(NAMES11),
        architecture=f"EffiSegNet ({model.encoder_name}, 64 channels, {model.outputs} classes)",
        parity=parity,
        metrics=metrics or {},
    )


def smallest_margin(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each picture [N,C,H,W], how far its closest decision is from a tie. The probe must not hang on rounding."""
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray((best[:, 1] - best[:, 0]).min((1, 2)), np.float32)
