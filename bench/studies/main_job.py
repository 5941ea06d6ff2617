"""The main job end to end: `ohlora render` and `ohlora recolor` as a user runs them, beside the documented way.

    python -m ohlora.bench.studies.main_job --bundle BUNDLE --generator X.pth --kind stylegan-celeba256 \
        --student student.safetensors --photos FOLDER --out bench/results/main_job.json

Whole commands are timed in fresh processes, start-up included in `wall_s`; `images_per_second` is the rate the command
itself reports, after its engines are open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.atomic import write_bytes
from ohlora.bench.baselines.documented import DocumentedWay
from ohlora.bench.runner.machine import machine
from ohlora.bundle import Bundle
from ohlora.training import checkpoints
from ohlora.training.nets.stylegan import Generator
from ohlora.training.weights.student import load_student


def command(*arguments: str) -> dict[str, Any]:
    """Run one `ohlora` command in an empty folder; its own summary and the wall time around it."""
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "ohlora", *arguments, "--out", folder, "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        wall = time.perf_counter() - started
    summary = json.loads(done.stdout)
    keep = ("images", "written", "failed", "without_hair", "generator_runs", "seconds", "images_per_second")
    return {"command": " ".join(arguments), "wall_s": round(wall, 2), **{k: summary[k] for k in keep if k in summary}}


def baseline(generator: Path, kind: str, student: Path, count: int) -> dict[str, Any]:
    """The documented way, seconds per dyed portrait: median over `count` after three to warm up."""
    module = checkpoints.load(kind, generator)
    assert isinstance(module, Generator)
    way = DocumentedWay(module, load_student(student))
    times = []
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        for seed in range(count + 3):
            started = time.perf_counter()
            way.render([seed], 0.5, Path(folder))
            times.append(time.perf_counter() - started)
    median = float(np.median(times[3:]))
    spread = [round(float(v) * 1e3, 1) for v in np.percentile(times[3:], [25, 75])]
    return {
        "what": "eager PyTorch float32, batch 1, loaded once, NumPy ombre, one JPEG at a time",
        "threads": torch.get_num_threads(),
        "images": count,
        "median_ms": round(median * 1e3, 1),
        "quartiles_ms": spread,
        "images_per_second": round(1 / median, 2),
    }


def accuracy(bundle: str, precision: str) -> dict[str, Any]:
    """The engine's own probe: portraits of the engine against the unrewritten PyTorch module's."""
    mapping, synthesis = Bundle.open(bundle).generator_engines("auto", precision)
    figures = synthesis.selftest["probe"]["image"]
    for engine in (mapping, synthesis):
        engine.close()
    return {"backend": synthesis.backend, "precision": precision, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--kind", default="stylegan-celeba256")
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    render = ("render", "--bundle", given.bundle)
    result: dict[str, Any] = {
        "machine": machine(),
        "documented": baseline(given.generator, given.kind, given.student, 24),
        "seeds_x_1": command(*render, "--faces", f"0-{given.seeds - 1}", "--color", "0.5"),
        "50_seeds_x_40": command(*render, "--faces", "0-49", "--color", "0:0.975:40"),
        "recolor_folder": command("recolor", given.photos),
        "recolor_folder_whole": command("recolor", given.photos, "--detect", "whole"),
    }
    for name, precision in (("seeds_x_1_bf16", "bf16"), ("50_seeds_x_40_bf16", "bf16")):
        source = result[name.removesuffix("_bf16")]["command"].split()
        try:
            result[name] = command(*source, "--precision", precision)
            result[name]["accuracy"] = accuracy(given.bundle, precision)
        except subprocess.CalledProcessError as error:  # a CPU without bf16: the row is kept, with its reason
            result[name] = {"error": error.stderr.strip()}
    for name in ("seeds_x_1", "50_seeds_x_40"):
        result[name]["accuracy"] = accuracy(given.bundle, "fp32")
    base = result["documented"]["images_per_second"]
    for row in result.values():  # recolouring runs no generator: its rate has no counterpart in the baseline
        if "generator_runs" in row:
            row["times_documented"] = round(row["images_per_second"] / base, 2)
    result["recolor_folder"]["command"] = "recolor FOLDER"
    result["recolor_folder_whole"]["command"] = "recolor FOLDER --detect whole"
    for row in result.values():
        if isinstance(row, dict) and "command" in row:
            row["command"] = row["command"].replace(given.bundle, "BUNDLE")
    write_bytes(given.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
