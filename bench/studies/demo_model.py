"""Procedural portraits and a bundle trained on them: contact sheets to look at, and what rendering costs.

    python -m ohlora.bench.studies.demo_model --bundle my-bundle --pictures pictures --out demo_model.json
    python -m ohlora.bench.studies.demo_model --portraits-only --pictures docs/images --out bench/results/portraits.json

Commands are timed in fresh processes. "cold" has an empty engine cache, as on a newly installed machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ohlora
from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.values import Expression, Ombre
from ohlora.bench.runner.machine import machine
from ohlora.bench.studies.main_job import accuracy, command
from ohlora.faces import SeedRange, face_from_seed, load_faces
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image

EXPRESSIONS = (
    ("as drawn", Expression()),
    ("eyes -1.2", Expression(eyes=-1.2)),
    ("eyes 1.2", Expression(eyes=1.2)),
    ("mouth -1.8", Expression(mouth=-1.8)),
    ("pose -1.8", Expression(pose=-1.8)),
    ("pose 1.8", Expression(pose=1.8)),
)
COLORS = (0.0, 0.1, 0.25, 0.4, 0.5, 0.65, 0.8, 0.92)
PORTRAITS = 256  # timed
CLASS_COLORS = np.array(
    [(32, 32, 36), (236, 188, 160), (150, 90, 40), (190, 120, 60), (60, 120, 220), (90, 180, 240), (250, 220, 120),
     (200, 60, 80), (90, 10, 20), (230, 100, 120), (110, 60, 150)], dtype=np.uint8,
)  # fmt: skip


def save(folder: Path, name: str, sheet: NDArray[np.uint8]) -> None:
    write_bytes(folder / name, encode_image(sheet, "jpeg", quality=88))


def pictures(folder: Path, bundle: str) -> None:
    """Contact sheets of what a bundle makes."""
    with ohlora.Renderer(bundle) as renderer:
        seeds = renderer.render(SeedRange(0, 99, renderer.label_size))
        save(folder, "demo-seeds.jpg", contact_sheet(seeds, columns=10, cell=128, gap=2))
        gallery = list(load_faces(["gallery"], renderer.label_size, renderer.bundle))
        shown = renderer.render(gallery)
        names = [str(face.name) for face in gallery]
        save(folder, "demo-gallery.jpg", contact_sheet(shown, columns=8, cell=128, gap=4, captions=names))
        faces = gallery[:5]
        looks = renderer.render(faces, expressions=[look for _, look in EXPRESSIONS])
        captions = [name for name, _ in EXPRESSIONS] * len(faces)
        save(folder, "demo-expressions.jpg", contact_sheet(looks, columns=len(EXPRESSIONS), captions=captions))
        dyes = [Ombre(color, 0.75, 0.5) for color in COLORS]
        dyed = renderer.render([face_from_seed(seed, renderer.label_size) for seed in (1, 4, 10, 13)], ombres=dyes)
        save(folder, "demo-ombres.jpg", contact_sheet(dyed, columns=len(COLORS)))


def portrait_pictures(folder: Path) -> None:
    """What the procedural renderer draws for the first seeds, picture, classes and hair."""
    from ohlora.training.data import portraits

    truth = portraits.render(portraits.parameters_from_seeds(range(24)), 256)
    save(folder, "portraits.jpg", contact_sheet(truth.images, columns=6, cell=160, gap=2))
    rows = []
    for i in range(6):
        hair = np.repeat((truth.hair[i] * 255).astype(np.uint8)[..., None], 3, axis=2)
        rows += [truth.images[i], CLASS_COLORS[truth.parsing[i]], hair]
    save(folder, "portraits-truth.jpg", contact_sheet(rows, columns=6, cell=160, gap=2))


def portrait_rate() -> dict[str, float]:
    """Portraits per minute by resolution, all cores, compiled before the clock starts."""
    from ohlora.training.data import portraits

    parameters = portraits.parameters_from_seeds(range(PORTRAITS))
    rates: dict[str, float] = {}
    for size in (128, 256):
        portraits.render(parameters[:4], size)
        started = time.perf_counter()
        portraits.render(parameters, size)
        rates[f"{size}_px_per_minute"] = round(60 * PORTRAITS / (time.perf_counter() - started))
    return rates


def first_image(bundle: str) -> dict[str, float]:
    """Seconds from the start of the process to one portrait on disk: empty engine cache, then a filled one."""
    times = {}
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        environment = os.environ | {"OHLORA_CACHE_DIR": f"{folder}/cache"}
        for name in ("cold_s", "warm_s"):
            started = time.perf_counter()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ohlora",
                    "render",
                    "--bundle",
                    bundle,
                    "--faces",
                    "7",
                    "--out",
                    f"{folder}/{name}",
                ],
                check=True,
                capture_output=True,
                env=environment,
            )
            times[name] = round(time.perf_counter() - started, 2)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--portraits-only", action="store_true", help="Leave the bundle out.")
    parser.add_argument("--pictures", type=Path, help="Write the contact sheets here.")
    parser.add_argument("--out", type=Path, help="Measure, and write the figures here.")
    given = parser.parse_args()
    if given.pictures:
        make_folder(given.pictures)
        portrait_pictures(given.pictures)
        if not given.portraits_only:
            pictures(given.pictures, given.bundle)
    if given.out and given.portraits_only:
        rates = {"machine": machine(), "procedural_portraits": portrait_rate()}
        write_bytes(given.out, (json.dumps(rates, indent=1) + "\n").encode())
    elif given.out:
        render = ("render", "--bundle", given.bundle)
        result: dict[str, Any] = {
            "machine": machine(),
            "procedural_portraits": portrait_rate(),
            "first_image": first_image(given.bundle),
        }
        jobs = {
            "count_1000": ("--count", "1000"),
            "count_1000_dyed": ("--count", "1000", "--color", "0.5"),
            "50_seeds_x_40_dyes": ("--faces", "0-49", "--color", "0:0.975:40"),
        }
        for precision in ("fp32", "bf16"):
            for name, options in jobs.items():
                try:
                    result[f"{name}_{precision}"] = command(*render, *options, "--precision", precision)
                except subprocess.CalledProcessError as error:  # no bf16 here: the row is kept, with its reason
                    result[f"{name}_{precision}"] = {"error": error.stderr.strip()}
            if "error" not in result[f"count_1000_{precision}"]:
                result[f"accuracy_{precision}"] = accuracy(given.bundle, precision)
        write_bytes(given.out, (json.dumps(result, indent=1) + "\n").encode())
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
