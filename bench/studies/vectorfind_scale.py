"""Memory of a search does not grow with its samples: one command at two sizes, killed in the middle and resumed.

    python -m ohlora.bench.studies.vectorfind_scale --out runs/scale --samples 100000 --result
    bench/results/vectorfind_scale.json

The generator draws 16 x 16 pixels, so that the run measures the search itself (codes, w of 512, columns on disk, SVM)
and not the drawing; how many of the demo generator's pictures are drawn and scored in a second is in
`bench/results/vectorfind.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ohlora.base.atomic import write_bytes
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    networks = save_networks(given.out)
    small = given.samples // 20
    result: dict[str, Any] = {"samples": given.samples, "small_samples": small}
    result["small"] = search(networks, given.out / "small", small)
    result["killed"] = search(networks, given.out / "killed", given.samples, kill_at=given.samples // 2000)
    parts = len(list((given.out / "killed").glob("samples/scores/part-*.arrow")))
    result["samples_there_when_killed"] = 1000 * parts
    result["resumed"] = search(networks, given.out / "killed", given.samples)
    summary = json.loads((given.out / "killed" / "vectorfind.json").read_text())
    result["seconds_by_step_of_the_resumed_run"] = summary["seconds"]
    done_now = given.samples - 1000 * parts
    result["samples_per_second"] = round(done_now / summary["seconds"]["samples"], 1)
    result["memory_ratio"] = round(result["resumed"]["peak_mb"] / result["small"]["peak_mb"], 3)
    result["bytes_on_disk"] = sum(p.stat().st_size for p in (given.out / "killed" / "samples").rglob("*.arrow"))
    result["directions_sha256"] = file_sha256(given.out / "killed" / "directions.safetensors")
    if given.result is not None:
        write_bytes(given.result, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
