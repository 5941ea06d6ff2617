"""Memory of a search does not grow with its samples: one command at two sizes, killed in the middle and resumed.

    python -m ohlora.bench.studies.vectorfind_scale --out runs/scale --samples 100000 --result
    bench/results/vectorfind_scale.json

The generator draws 16 x 16 pixels, so that the run measures the search itself (codes, w of 512, columns on disk, SVM)
and not the drawing; how many of the demo generator's pictures are drawn and scored in a second is in
`bench/results/vectorfind.json`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ohlora.bench.runner.study import study
from ohlora.bundle.files import file_sha256
from ohlora.training import checkpoints
from ohlora.training.nets.score_cnns import PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig


def save_networks(out: Path) -> list[str]:
    """Random weights; returns the arguments that name them."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(resolution=16, channel_base=128, channel_max=8)).eval()
    checkpoints.save(generator, out / "generator.safetensors", "stylegan")
    checkpoints.save(PropertyCnn(PropertyCnnConfig(0.0625)).eval(), out / "scorer.safetensors", "cnn-property")
    return ["--generator", str(out / "generator.safetensors"), "--scorer", str(out / "scorer.safetensors")]


def search(networks: list[str], out: Path, samples: int, kill_at: int | None = None) -> dict[str, Any]:
    """One run in a fresh process; with kill_at, SIGKILLed when that many parts of samples are there."""
    command = [
        sys.executable, "-m", "ohlora", "train", "vectorfind", "v7", *networks, "--out", str(out), "--samples",
        str(samples), "--codes", "1", "--set", "groups=", "--set", "cutoffs=", "--set", "identity=false", "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    if kill_at is not None:
        while process.poll() is None and len(list(out.glob("samples/scores/part-*.arrow"))) < kill_at:
            time.sleep(0.05)
        if process.poll() is not None:
            raise SystemExit(f"the search ended by itself with status {process.returncode}, before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "exit": process.returncode,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": usage.ru_maxrss // 1024,
    }


@study(result="result", on=dict)
def main(out: Path = Path("runs/scale"), samples: int = 100_000) -> dict[str, Any]:
    networks, small, killed = save_networks(out), samples // 20, out / "killed"
    found: dict[str, Any] = {"samples": samples, "small_samples": small}
    found["small"] = search(networks, out / "small", small)
    found["killed"] = search(networks, killed, samples, kill_at=samples // 2000)
    there = 1000 * len(list(killed.glob("samples/scores/part-*.arrow")))
    found["samples_there_when_killed"] = there
    found["resumed"] = search(networks, killed, samples)
    seconds = json.loads((killed / "vectorfind.json").read_text())["seconds"]
    found["seconds_by_step_of_the_resumed_run"] = seconds
    found["samples_per_second"] = round((samples - there) / seconds["samples"], 1)
    found["memory_ratio"] = round(found["resumed"]["peak_mb"] / found["small"]["peak_mb"], 3)
    found["bytes_on_disk"] = sum(path.stat().st_size for path in (killed / "samples").rglob("*.arrow"))
    found["directions_sha256"] = file_sha256(killed / "directions.safetensors")
    return found


if __name__ == "__main__":
    main()
