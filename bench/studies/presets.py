"""Presets against the documented arithmetic in eager PyTorch, in one run: generator and student, speed beside quality.

    python -m tests.support.golden_weights --kind stylegan-celeba256 --out full.pth
    python -m ohlora.bench.studies.presets --checkpoint full.pth --kind stylegan-celeba256 \
        --out bench/results/presets.json

The full-size generator has seeded weights here, as published ones cannot be had: its pictures are noise, which is
harder on low precision than faces are. The demo bundle's generator and student are trained. Every engine is measured in
rounds with the baseline beside it; medians.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ohlora.bench.baselines.networks import documented_upsampling
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import seconds_of
from ohlora.bench.suites.engines import eager
from ohlora.bundle import Bundle
from ohlora.engines import usable_cores
from ohlora.export.bundle.builder import build_bundle
from ohlora.export.bundle.preset import judged_latents, preset_bundle
from ohlora.export.graphs.generator import ByteSynthesis
from ohlora.export.networks.registry import load_network
from ohlora.export.precision.presets import PRESETS
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, SIZE, EffiSegNet
from ohlora.training.nets.stylegan import Generator

EAGER = "eager PyTorch, documented, batch {}"
BATCH, ROUNDS = 8, 7
Works = dict[str, tuple[int, Callable[[], Any]]]  # pictures of a call, and the call


def measure(bundle: Bundle, generator: nn.Module | None, student: nn.Module | None, seeds: int) -> list[dict[str, Any]]:
    """Rows of the synthesis network, and with `student` of the hair finder, at every preset."""
    wp = judged_latents(bundle, BATCH)[0]["wp"]
    pictures = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:BATCH]), SIZE).images
    x = (pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5) - 1
    works: dict[str, Works] = {"synthesis": {}, "hair": {}}
    for role, module, rows in (("synthesis", generator, wp), ("hair", student, x)):
        if module is not None:
            works[role] = {EAGER.format(n): (n, partial(eager(module), rows[:n])) for n in (1, BATCH)}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ohlora-presets-")))
        for preset in PRESETS.values():
            made = preset_bundle(bundle.path, preset, folder / preset.name, seeds=seeds)
            part, hair = made.generator_part(), made.hair_part()
            networks = [("synthesis", made.synthesis_engine(), {"wp": wp}, part.synthesis, part.parity)]
            if student is not None:
                networks.append(("hair", made.hair_engine(), {"image": pictures}, hair.file, hair.parity))
            for role, engine, inputs, file, parity in networks:
                stack.callback(engine.close)
                one = {name: value[:1] for name, value in inputs.items()}
                works[role][preset.name] = BATCH, partial(engine, **inputs)
                works[role][f"{preset.name}, one picture"] = 1, partial(engine, **one)
                facts[role, preset.name] = {
                    "engine": f"{engine.backend} {engine.precision}",
                    "megabytes": round(made.file(file).stat().st_size / 1e6, 1),
                    **{key: parity[key] for key in ("form", "quality", "int8") if key in parity},
                }
        measured = [row for role, chosen in works.items() for row in rates(role, chosen)]
    return [row | facts.get((row["network"], row["what"]), {}) for row in measured]


def rates(role: str, works: Works) -> Iterator[dict[str, Any]]:
    """A row of each work, measured in turn, round by round."""
    times = seconds_of({name: call for name, (_, call) in works.items()}, ROUNDS)
    speeds = {name: works[name][0] / float(np.median(taken)) for name, taken in times.items()}
    for name, speed in speeds.items():
        row: dict[str, Any] = {"network": role, "what": name}
        row |= {"images_per_second": round(speed, 2), "ms_per_image": round(1e3 / speed, 2)}
        for base in (1, BATCH):
            if EAGER.format(base) in speeds:
                row[f"against_batch_{base}"] = round(speed / speeds[EAGER.format(base)], 2)
        yield row


@study(shown=False, checkpoint="of a full-size generator")
def main(checkpoint: Path | None = None, kind: str = "stylegan-celeba256", seeds: int = 200) -> dict[str, Any]:
    torch.manual_seed(0)
    student = EffiSegNet(SHIPPED_ENCODER).eval()  # eager speed does not depend on the weights
    result: dict[str, Any] = {"demo": measure(Bundle.open("demo"), None, student, seeds)}
    if checkpoint:
        generator = cast(Generator, load_network("generator", kind, checkpoint))
        module = ByteSynthesis(documented_upsampling(generator)).eval()
        with tempfile.TemporaryDirectory() as folder:
            bundle = build_bundle(
                Path(folder) / "full", generator=checkpoint, kind=kind, hair="demo", directions=None,
                name="full", license="none", provenance="seeded weights",
            )  # fmt: skip
            result["full_size"] = measure(bundle, module, None, seeds)
    for section, rows in result.items():
        for row in rows:
            ratio = row.get("against_batch_1", "")
            print(f"{section:10}{row['network']:11}{row['what']:38}{row['ms_per_image']:9} ms {ratio:>7}x "
                  f"{row.get('form', '')} {row.get('quality', '')}")  # fmt: skip
    return {"threads": usable_cores(), "seeds": seeds, **result}


if __name__ == "__main__":
    main()
