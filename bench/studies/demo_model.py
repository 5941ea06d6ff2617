"""Procedural portraits and a bundle trained on them: contact sheets to look at, and what rendering costs.

    python -m ohlora.bench.studies.demo_model --bundle my-bundle --pictures pictures --out demo_model.json
    python -m ohlora.bench.studies.demo_model --portraits-only --pictures docs/images --out bench/results/portraits.json

Commands are timed in fresh processes. "cold" has an empty engine cache, as on a newly installed machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ohlora
from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.base.values import Expression, Ombre
from ohlora.bench.runner.jobs import Folders
from ohlora.bench.runner.processes import measured_command
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import seconds_of
from ohlora.bench.studies.main_job import accuracy, command_or_error
from ohlora.faces import SeedRange, face_from_seed, load_faces
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.training.data import portraits

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
JOBS = {
    "count_1000": ("--count", "1000"),
    "count_1000_dyed": ("--count", "1000", "--color", "0.5"),
    "50_seeds_x_40_dyes": ("--faces", "0-49", "--color", "0:0.975:40"),
}


def save(path: Path, sheet: Rgb) -> None:
    write_bytes(path, encode_image(sheet, "jpeg", quality=88))


def bundle_pictures(folder: Path, bundle: str) -> None:
    """Contact sheets of what a bundle makes."""
    with ohlora.Renderer(bundle) as renderer:
        seeds = renderer.render(SeedRange(0, 99, renderer.label_size))
        save(folder / "demo-seeds.jpg", contact_sheet(seeds, columns=10, cell=128, gap=2))
        gallery = list(load_faces(["gallery"], renderer.label_size, renderer.bundle))
        names = [str(face.name) for face in gallery]
        sheet = contact_sheet(renderer.render(gallery), columns=8, cell=128, gap=4, captions=names)
        save(folder / "demo-gallery.jpg", sheet)
        moved = renderer.render(gallery[:5], expressions=[expression for _, expression in EXPRESSIONS])
        captions = [name for name, _ in EXPRESSIONS] * len(gallery[:5])
        save(folder / "demo-expressions.jpg", contact_sheet(moved, columns=len(EXPRESSIONS), captions=captions))
        dyes = [Ombre(color, 0.75, 0.5) for color in COLORS]
        dyed = renderer.render([face_from_seed(seed, renderer.label_size) for seed in (1, 4, 10, 13)], ombres=dyes)
        save(folder / "demo-ombres.jpg", contact_sheet(dyed, columns=len(COLORS)))


def portrait_pictures(folder: Path) -> None:
    """What the procedural renderer draws for the first seeds, picture, classes and hair."""
    truth = portraits.render(portraits.parameters_from_seeds(range(24)), 256)
    save(folder / "portraits.jpg", contact_sheet(truth.images, columns=6, cell=160, gap=2))
    rows = []
    for i in range(6):
        hair = np.repeat((truth.hair[i] * 255).astype(np.uint8)[..., None], 3, axis=2)
        rows += [truth.images[i], CLASS_COLORS[truth.parsing[i]], hair]
    save(folder / "portraits-truth.jpg", contact_sheet(rows, columns=6, cell=160, gap=2))


def portrait_rate() -> dict[str, float]:
    """Portraits per minute by resolution, all cores, compiled before the clock starts."""
    parameters = portraits.parameters_from_seeds(range(PORTRAITS))
    portraits.render(parameters[:4], 128)
    calls = {size: lambda size=size: portraits.render(parameters, size) for size in (128, 256)}
    times = seconds_of({f"{size}_px_per_minute": call for size, call in calls.items()}, 1, warm=0)
    return {name: round(60 * PORTRAITS / taken[0]) for name, taken in times.items()}


def first_image(bundle: str) -> dict[str, float]:
    """Seconds from the start of the process to one portrait on disk: empty engine cache, then a filled one."""
    with Folders() as folders:
        command, cache = ["render", "--bundle", bundle, "--faces", "7", "--out"], folders.new()
        times = (measured_command([*command, str(folders.new())], cache).wall_s for _ in range(2))
        return {name: round(wall, 2) for name, wall in zip(("cold_s", "warm_s"), times, strict=True)}


@study(portraits_only="Leave the bundle out.", pictures="Write the contact sheets here.", out="Measure: JSON file.")
def main(
    bundle: str = "demo", portraits_only: bool = False, pictures: Path | None = None, out: Path | None = None
) -> dict[str, Any] | None:
    if pictures:
        make_folder(pictures)
        portrait_pictures(pictures)
        if not portraits_only:
            bundle_pictures(pictures, bundle)
    if not out:
        return None
    result: dict[str, Any] = {"procedural_portraits": portrait_rate()}
    if portraits_only:
        return result
    result["first_image"] = first_image(bundle)
    for precision in ("fp32", "bf16"):
        for name, options in JOBS.items():
            command = ("render", "--bundle", bundle, *options, "--precision", precision)
            result[f"{name}_{precision}"] = command_or_error(*command)
        if "error" not in result[f"count_1000_{precision}"]:
            result[f"accuracy_{precision}"] = accuracy(bundle, precision)
    return result


if __name__ == "__main__":
    main()
