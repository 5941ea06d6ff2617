"""The generator of a bundle: exported, compared with the PyTorch module on seeded faces, with probes and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.numpy import save

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Report
from ohlora.bundle.manifest import GeneratorPart
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.generator import Storage, synthesis_sources
from ohlora.export.graphs.half_storage import store_half
from ohlora.export.graphs.mapping import mapping_inputs
from ohlora.export.networks.compare import EXACT, Comparison, Figures, figures
from ohlora.export.networks.entry import Arrays
from ohlora.export.networks.registry import SAMPLES, Graph, module_graphs
from ohlora.export.rewrites.generator import Collapse
from ohlora.faces import face_from_seed
from ohlora.render.sources import truncate
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

PROBE_SEEDS = (11, 29)
HALF_FACES = 8  # random faces on which float16 weights are judged
# Rounded weights move many values a little: random generators measured 0.25 levels and 52 dB. At edges single
# values move far (14 levels at 128 px, 26 at 256), which nobody sees: that figure is recorded, not judged.
HALF = Comparison({"mean_grey_levels": 0.5}, {"psnr_db": 45.0})
FIGURES = ("mean_grey_levels", "max_grey_levels", "psnr_db")


@torch.no_grad()
def write_generator(
    module: Generator, folder: Path, storage: Storage = "float32", collapse: Collapse = "transposed"
) -> tuple[dict[str, Graph], dict[str, float]]:
    """Write mapping.onnx, synthesis.onnx and, of a split mapping, mapping_end.onnx, compared with the module.

    collapse: form of the upsampling convolutions; "transposed" is the faster in OpenVINO, "subpixel" in ONNX Runtime's
        CPU provider. storage: of the weights; "float16" takes about a third of the space (noise maps and upsampling
    kernels are stored as what they are made from) and is judged by its own, looser gate.
    Returns the graphs, and what float16 weights do to whole pictures, for a manifest; empty for float32. Raises
    InvalidInputError for a generator that is not finished (level of detail above 0), EngineError when a graph differs
    from the module (then nothing is written), OutputError.
    """
    graphs = {name: make() for name, make in module_graphs("generator", module, {"collapse": collapse}).items()}
    found = {}
    if storage == "float16":
        for name, graph in graphs.items():
            store_half(graph.model, synthesis_sources(module, collapse) if name == "synthesis" else None)
            onnx.checker.check_model(graph.model, full_check=True)
        found = _half_figures(module.config, graphs)
    for name, graph in graphs.items():
        write_bytes(folder / f"{name}.onnx", graph.model.SerializeToString(deterministic=True))
    return graphs, found


def _half_figures(config: GeneratorConfig, graphs: dict[str, Graph]) -> dict[str, float]:
    """Whole pictures of random faces from graphs with float16 weights. Raises EngineError when they are too far off."""
    inputs = _drawn(config, HALF_FACES, seed=2)
    w, made_w = graphs["mapping"].eager(inputs)["w"], run_graph(graphs["mapping"].model, inputs)[0]
    exact, wp = ({"wp": np.repeat(each[:, None], config.layers, axis=1)} for each in (w, made_w))
    found = figures("image", run_graph(graphs["synthesis"].model, wp)[0], graphs["synthesis"].eager(exact)["image"])
    HALF.require("the generator with weights stored as float16 (float32 storage is exact)", found)
    if "mapping_end" in graphs:
        # Weights of the last layers must be rounded alike in both files.
        whole, split1 = run_graph(graphs["mapping"].model, _drawn(config, SAMPLES, seed=0))
        end = run_graph(graphs["mapping_end"].model, {"mapping_split1": split1})[0]
        EXACT["latent"].require("mapping_end.onnx", figures("latent", end, whole))
    return {"w_max_abs_error": float(np.abs(made_w - w).max())} | _image_figures(found, FIGURES)


def _image_figures(found: Figures, names: tuple[str, ...]) -> dict[str, float]:
    """As a manifest says them."""
    return {f"image_{name}": int(found[name]) if name == "max_grey_levels" else found[name] for name in names}


def _drawn(config: GeneratorConfig, count: int, seed: int) -> Arrays:
    """Random latents, as inputs of the mapping graph."""
    stream = torch.Generator().manual_seed(seed)
    sizes = {"z": config.z_size} | ({"label": config.label_size} if config.label_size else {})
    return {name: torch.randn(count, size, generator=stream).numpy() for name, size in sizes.items()}


@torch.no_grad()
def add_generator(folder: Path, module: Generator, kind: str, storage: Storage, report: Report) -> GeneratorPart:
    """Put mapping, its end where it is split, synthesis, probes and constants into `folder`.

    Raises EngineError or BundleError when the exported networks are too far from the module.
    """
    config = module.config
    report(f"generator: {kind}, {config.resolution} px, {config.label_size} label values, weights as {storage}")
    graphs, half = write_generator(module, folder, storage)
    inputs: Arrays = {**mapping_inputs([face_from_seed(seed, config.label_size) for seed in PROBE_SEEDS])}
    exact = graphs["mapping"].eager(inputs)
    if config.split_size:
        ends = graphs["mapping_end"].eager({"mapping_split1": exact["mapping_split1"]})
        exact["mapping_split2"] = ends["mapping_split2"]
    latents = {name: value.astype(np.float32) for name, value in exact.items()}
    w_avg = np.asarray(module.w_avg.detach().numpy(), dtype=np.float32)
    wp = truncate(latents["w"], w_avg, config.layers, 1.0, 0)
    expected = graphs["synthesis"].eager({"wp": wp})["image"]
    made_latents, made = _run(folder, "mapping", inputs), _run(folder, "synthesis", {"wp": wp})["image"]
    parity: dict[str, Any] = {"reference": "PyTorch float64 before rewrites", "storage": storage}
    if storage == "float32":
        found = figures("image", made, expected)
        parity["w_max_abs_error"] = float(np.abs(made_latents["w"] - latents["w"]).max())
        parity |= _image_figures(found, ("max_grey_levels", "share_different"))
        EXACT["image"].require("the exported generator", found)
        different = parity["image_share_different"]
        report(f"  parity: {parity['image_max_grey_levels']} grey levels on {different:.4%} of values")
    else:
        # The probe tests engines, not storage: it holds what these stored weights give, so that it stays sharp.
        latents, expected = {**latents, **made_latents}, made
        parity |= half
        report(
            f"  parity: {parity['image_mean_grey_levels']:.3f} grey levels on average, "
            f"{parity['image_max_grey_levels']} at most, {parity['image_psnr_db']:.1f} dB"
        )
    (folder / "generator_constants.safetensors").write_bytes(save({"w_avg": w_avg}))
    probes = {
        "mapping": Probe(inputs, {name: latents[name] for name in made_latents}),
        "synthesis": Probe({"wp": wp}, {"image": expected}),
    }
    if config.split_size:
        split1 = {"mapping_split1": latents["mapping_split1"]}
        ends = _run(folder, "mapping_end", split1)
        if storage == "float32":
            parity["mapping_end_max_abs_error"] = max(
                float(np.abs(ends[name] - latents[name]).max()) for name in ("w", "mapping_split2")
            )
            ends = {name: latents[name] for name in ends}
        probes["mapping_end"] = Probe(split1, ends)
    save_probe(folder / "generator_probe.safetensors", **probes)
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


def _run(folder: Path, name: str, inputs: Arrays) -> Arrays:
    with open_engine(folder / f"{name}.onnx", backend="onnxruntime") as engine:
        return engine(**inputs)
