"""Presets against the documented arithmetic in eager PyTorch, in one run: generator and student, speed beside quality.

    python -m tests.support.golden_weights --kind stylegan-celeba256 --out full.pth
    python -m ohlora.bench.studies.presets --checkpoint full.pth --kind stylegan-celeba256 \
        --out bench/results/presets.json

The full-size generator has seeded weights here, as published ones cannot be had: its pictures are noise, which is
harder on low precision than faces are. The demo bundle's generator and student are trained. Every engine is measured in
rounds with the baseline beside it; medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ohlora.bench.baselines.networks import PlainUpConv
from ohlora.bench.runner.machine import machine
from ohlora.bundle import Bundle, HairPart
from ohlora.engines import usable_cores
from ohlora.export.bundle.builder import build_bundle
from ohlora.export.bundle.generator import load_generator
from ohlora.export.bundle.preset import judged_latents, preset_bundle
from ohlora.export.graphs.generator import ByteSynthesis
from ohlora.export.precision.presets import PRESETS
from ohlora.export.rewrites.generator import synthesis_layers
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, SIZE, EffiSegNet
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_layers import UpConv

BATCH, ROUNDS = 8, 7


def documented(module: Generator) -> nn.Module:
    """Nearest upsampling, 3x3 convolution and blur as they are documented; bytes out."""
    plain = copy.deepcopy(module)
    for layer in synthesis_layers(plain):
        if isinstance(getattr(layer, "conv", None), UpConv):
            layer.conv = PlainUpConv(layer.conv)  # type: ignore[arg-type]
    return ByteSynthesis(plain).eval()


def per_second(works: dict[str, tuple[int, Callable[[], Any]]]) -> dict[str, float]:
    """images/s of each work (pictures, call), measured in turn, round by round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _, call in works.values():
        call()
    for _ in range(ROUNDS):
        for name, (pictures, call) in works.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) / pictures)
    return {name: 1 / statistics.median(values) for name, values in times.items()}


def eager(module: nn.Module, rows: np.ndarray) -> Callable[[], Any]:
    given = torch.from_numpy(rows)

    def call() -> None:
        with torch.inference_mode():
            module(given)

    return call


def measure(bundle: Bundle, generator: nn.Module | None, student: nn.Module | None, seeds: int) -> list[dict[str, Any]]:
    """Rows of the synthesis network, and with `student` of the hair finder, at every preset."""
    wp = judged_latents(bundle, BATCH)[0]["wp"]
    pictures = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:BATCH]), SIZE).images
    works: dict[str, dict[str, tuple[int, Callable[[], Any]]]] = {"synthesis": {}, "hair": {}}
    if generator is not None:
        works["synthesis"] |= {
            f"eager PyTorch, documented, batch {n}": (n, eager(generator, wp[:n])) for n in (1, BATCH)
        }
    if student is not None:
        x = (pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5) - 1
        works["hair"] |= {f"eager PyTorch, documented, batch {n}": (n, eager(student, x[:n])) for n in (1, BATCH)}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    opened = []
    with tempfile.TemporaryDirectory(prefix="ohlora-presets-") as folder:
        for preset in PRESETS.values():
            made = preset_bundle(bundle.path, preset, Path(folder) / preset.name, seeds=seeds)
            mapping, synthesis = made.generator_engines()
            hair = made.hair_engine()
            opened += [mapping, synthesis, hair]
            for role, part, engine, inputs in (
                ("synthesis", made.generator_part(), synthesis, {"wp": wp}),
                ("hair", made.hair_part(), hair, {"image": pictures}),
            ):
                if role == "hair" and student is None:
                    continue
                one = {name: value[:1] for name, value in inputs.items()}
                works[role][f"{preset.name}"] = (BATCH, lambda e=engine, i=inputs: e(**i))  # type: ignore[misc]
                works[role][f"{preset.name}, one picture"] = (1, lambda e=engine, i=one: e(**i))  # type: ignore[misc]
                file = part.file if isinstance(part, HairPart) else part.synthesis
                facts[role, preset.name] = {
                    "engine": f"{engine.backend} {engine.precision}",
                    "megabytes": round(made.file(file).stat().st_size / 1e6, 1),
                    **{key: part.parity[key] for key in ("form", "quality", "int8") if key in part.parity},
                }
        rows: list[dict[str, Any]] = []
        for role, chosen in works.items():
            speeds = per_second(chosen)
            for name, speed in speeds.items():
                row = {"network": role, "what": name, "images_per_second": round(speed, 2),
                       "ms_per_image": round(1e3 / speed, 2)}  # fmt: skip
                for base in (1, BATCH):
                    key = f"eager PyTorch, documented, batch {base}"
                    if key in speeds:
                        row[f"against_batch_{base}"] = round(speed / speeds[key], 2)
                rows.append(row | facts.get((role, name), {}))
        for engine in opened:
            engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="of a full-size generator")
    parser.add_argument("--kind", default="stylegan-celeba256")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    student = EffiSegNet(SHIPPED_ENCODER).eval()  # eager speed does not depend on the weights
    result: dict[str, Any] = {"machine": machine(), "threads": usable_cores(), "seeds": options.seeds}
    result["demo"] = measure(Bundle.open("demo"), None, student, options.seeds)
    if options.checkpoint:
        module = load_generator(options.kind, options.checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            bundle = build_bundle(
                Path(folder) / "full", generator=options.checkpoint, kind=options.kind, hair="demo", directions=None,
                name="full", license="none", provenance="seeded weights",
            )  # fmt: skip
            result["full_size"] = measure(bundle, documented(module), None, options.seeds)
    for section in ("demo", "full_size"):
        for row in result.get(section, []):
            ratio = row.get("against_batch_1", "")
            print(f"{section:10}{row['network']:11}{row['what']:38}{row['ms_per_image']:9} ms {ratio:>7}x "
                  f"{row.get('form', '')} {row.get('quality', '')}")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
