"""The main job end to end: `ohlora render` and `ohlora recolor` as a user runs them, beside the documented way.

    python -m ohlora.bench.studies.main_job --bundle BUNDLE --generator X.pth --kind stylegan-celeba256 \
        --student student.safetensors --photos FOLDER --out bench/results/main_job.json

Whole commands are timed in fresh processes, start-up included in `wall_s`; `images_per_second` is the rate the command
itself reports, after its engines are open.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch

from ohlora.base.types import PrecisionChoice
from ohlora.bench.baselines.documented import DocumentedWay
from ohlora.bench.runner.processes import FailedError, measured_command
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import quartiles, seconds_of
from ohlora.bundle import Bundle
from ohlora.training import checkpoints
from ohlora.training.nets.stylegan import Generator
from ohlora.training.weights.student import load_student

KEPT = ("images", "written", "failed", "without_hair", "generator_runs", "seconds", "images_per_second")


def command(*arguments: str) -> dict[str, Any]:
    """Run one `ohlora` command in an empty folder; its own summary and the wall time around it."""
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        done = measured_command([*arguments, "--out", folder])
    kept = {key: done.summary[key] for key in KEPT if key in done.summary}
    return {"command": " ".join(arguments), "wall_s": round(done.wall_s, 2), **kept}


def command_or_error(*arguments: str) -> dict[str, Any]:
    """The same; of a command that cannot run here (a CPU without bf16), its reason."""
    try:
        return command(*arguments)
    except FailedError as error:
        return {"error": str(error)}


def baseline(generator: Path, kind: str, student: Path, count: int) -> dict[str, Any]:
    """The documented way, seconds per dyed portrait: median over `count` after three to warm up."""
    way = DocumentedWay(checkpoints.load_as(Generator, kind, generator), load_student(student))
    seeds = itertools.count()
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        times = seconds_of({"": lambda: way.render([next(seeds)], 0.5, Path(folder))}, count, warm=3)
    low, median, high = quartiles(times[""])
    return {
        "what": "eager PyTorch float32, batch 1, loaded once, NumPy ombre, one JPEG at a time",
        "threads": torch.get_num_threads(),
        "images": count,
        "median_ms": round(median * 1e3, 1),
        "quartiles_ms": [round(low * 1e3, 1), round(high * 1e3, 1)],
        "images_per_second": round(1 / median, 2),
    }


def accuracy(bundle: str, precision: PrecisionChoice) -> dict[str, Any]:
    """The engine's own probe: portraits of the engine against the unrewritten PyTorch module's."""
    with Bundle.open(bundle).synthesis_engine("auto", precision) as synthesis:
        figures = synthesis.selftest["probe"]["image"]
    return {"backend": synthesis.backend, "precision": precision, **figures}


@study()
def main(
    bundle: str,
    generator: Path,
    student: Path,
    photos: str,
    out: Path,
    kind: str = "stylegan-celeba256",
    seeds: int = 1000,
) -> dict[str, Any]:
    jobs = {
        "seeds_x_1": ("--faces", f"0-{seeds - 1}", "--color", "0.5"),
        "50_seeds_x_40": ("--faces", "0-49", "--color", "0:0.975:40"),
    }
    render = ("render", "--bundle", bundle)
    result: dict[str, Any] = {"documented": baseline(generator, kind, student, 24)}
    result |= {name: command(*render, *job) for name, job in jobs.items()}
    for name, options in (("recolor_folder", ()), ("recolor_folder_whole", ("--detect", "whole"))):
        result[name] = command("recolor", photos, *options)
        result[name]["command"] = " ".join(("recolor FOLDER", *options))
    result |= {f"{name}_bf16": command_or_error(*render, *job, "--precision", "bf16") for name, job in jobs.items()}
    for name in jobs:
        precision: PrecisionChoice
        for key, precision in ((name, "fp32"), (f"{name}_bf16", "bf16")):
            if "error" not in result[key]:
                result[key]["accuracy"] = accuracy(bundle, precision)
    for row in result.values():  # recolouring runs no generator: its rate has no counterpart in the baseline
        if "generator_runs" in row:
            row["times_documented"] = round(row["images_per_second"] / result["documented"]["images_per_second"], 2)
        if "command" in row:
            row["command"] = row["command"].replace(bundle, "BUNDLE")
    return result


if __name__ == "__main__":
    main()
