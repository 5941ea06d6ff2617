"""The generator of a bundle: exported, compared with the PyTorch module on seeded faces, with probes and constants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from ohlora.bundle.manifest import GeneratorPart
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.graphs.generator import Storage, as_levels, exact_reference, export_generator
from ohlora.export.graphs.mapping import MappingEnd, SplitMapping
from ohlora.faces import face_from_seed
from ohlora.render.sources import truncate
from ohlora.training import checkpoints
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.stylegan import Generator

PROBE_SEEDS = (11, 29)
IMAGE_TOLERANCE = (1, 0.001)  # grey levels, share of values that may differ by one

Report = Callable[[str], None]


def load_generator(kind: str, checkpoint: Path) -> Generator:
    """Raises CheckpointError for a wrong file, InvalidInputError for a kind that is no generator."""
    module = checkpoints.load(kind, checkpoint)
    if not isinstance(module, Generator):
        raise InvalidInputError(f"'{kind}' is no generator: a bundle renders with a generator checkpoint")
    return module


@torch.no_grad()
def add_generator(staging: Path, module: Generator, kind: str, storage: Storage, report: Report) -> GeneratorPart:
    """Put mapping, its end where it is split, synthesis, probes and constants into the staging folder.

    Raises EngineError or BundleError when the exported networks are too far from the module.
    """
    config = module.config
    report(f"generator: {kind}, {config.resolution} px, {config.label_size} label values, weights as {storage}")
    exported = export_generator(module, staging, storage=storage)
    faces = [face_from_seed(seed, config.label_size) for seed in PROBE_SEEDS]
    z = np.stack([face.z for face in faces])
    label = np.stack([face.label for face in faces])
    inputs = {"z": z, "label": label} if config.label_size else {"z": z}
    exact = exact_reference(module)
    exact_label = torch.from_numpy(label).double() if config.label_size else None
    latents = {name: value.float().numpy() for name, value in _exact_latents(exact, z, exact_label).items()}
    w = latents["w"]
    w_avg = np.asarray(module.w_avg.detach().numpy(), dtype=np.float32)
    wp = truncate(w, w_avg, config.layers, 1.0, 0)
    expected = as_levels(exact.synthesis(torch.from_numpy(wp).double()))
    made_latents = _run(staging / "mapping.onnx", inputs)
    made_w, made = made_latents["w"], _run(staging / "synthesis.onnx", {"wp": wp})["image"]
    parity: dict[str, Any] = {"reference": "PyTorch float64 before rewrites", "storage": storage}
    if storage == "float32":
        difference = np.abs(made.astype(int) - expected)
        parity |= {
            "w_max_abs_error": float(np.abs(made_w - w).max()),
            "image_max_grey_levels": int(difference.max()),
            "image_share_different": float((difference > 0).mean()),
        }
        levels, share = IMAGE_TOLERANCE
        if parity["image_max_grey_levels"] > levels or parity["image_share_different"] > share:
            raise BundleError(f"the exported generator differs from PyTorch, {parity}: not built")
        different = parity["image_share_different"]
        report(f"  parity: {parity['image_max_grey_levels']} grey levels on {different:.4%} of values")
    else:
        # The probe tests engines, not storage: it holds what these stored weights give, so that it stays sharp.
        latents, expected = {**latents, **made_latents}, made
        parity |= exported.parity()
        report(
            f"  parity: {parity['image_mean_grey_levels']:.3f} grey levels on average, "
            f"{parity['image_max_grey_levels']} at most, {parity['image_psnr_db']:.1f} dB"
        )
    (staging / "generator_constants.safetensors").write_bytes(save({"w_avg": w_avg}))
    probes = {
        "mapping": Probe(inputs, {name: latents[name] for name in made_latents}),
        "synthesis": Probe({"wp": wp}, {"image": expected}),
    }
    if config.split_size:
        split1 = {"mapping_split1": latents["mapping_split1"]}
        ends = _run(staging / "mapping_end.onnx", split1)
        if storage == "float32":
            parity["mapping_end_max_abs_error"] = max(
                float(np.abs(ends[name] - latents[name]).max()) for name in ("w", "mapping_split2")
            )
            ends = {name: latents[name] for name in ends}
        probes["mapping_end"] = Probe(split1, ends)
    save_probe(staging / "generator_probe.safetensors", **probes)
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
        state_sha256=state_sha256(module),
        mapping_end="mapping_end.onnx" if config.split_size else None,
        split_size=config.split_size,
        parity=parity,
    )


def _exact_latents(exact: Generator, z: NDArray[np.float32], label: Tensor | None) -> dict[str, Tensor]:
    """'w' [N,W] of the float64 module; of a split mapping 'mapping_split1' [N,W+S] and 'mapping_split2' [N,2W] too."""
    first = torch.from_numpy(z).double()
    if not exact.config.split_size:
        return {"w": exact.mapping(first, label)}
    w, split1 = SplitMapping(exact.mapping)(first, label)
    return {"w": w, "mapping_split1": split1, "mapping_split2": MappingEnd(exact.mapping)(split1)[1]}


def _run(path: Path, inputs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    with open_engine(path, backend="onnxruntime") as engine:
        return engine(**inputs)
