"""One epoch of every decoder of the hair zoo with the documented encoders: does the Dice rise, and what does it cost?

    python -m ohlora.bench.studies.hairzoo --out bench/results/hairzoo.json

The pictures are procedural portraits in CelebAMask-HQ's published folders, brought into the zoo's layout by the same
code as the real ones. Networks start from random weights: what rises in one epoch is learned in that epoch. Rows are
written as they come; the same command goes on where a stopped one ended.
"""

from __future__ import annotations

import itertools
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ohlora.base.atomic import make_folder, write_bytes, write_json
from ohlora.bench.runner.machine import machine
from ohlora.bench.runner.study import study
from ohlora.errors import OhloraError
from ohlora.io.images import encode_image
from ohlora.training.data.portrait_faces import png
from ohlora.training.data.portraits import parameters_from_seeds, render
from ohlora.training.hairzoo.celeb import ANNOTATIONS, PICTURES, prepare
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.encoder_weights import start_model
from ohlora.training.hairzoo.loop import evaluate, open_data, run
from ohlora.training.hairzoo.models import DOCUMENTED_DECODERS
from ohlora.training.hairzoo.pipeline import batches

ENCODERS = ("timm-efficientnet-b0", "se_resnext50_32x4d")
FIRST_SEED = 6_000_000  # portraits that no other stage uses


@dataclass(frozen=True)
class Settings:
    """pictures at size x size pixels, a fifth of them held out; `rate` is constant over the one epoch."""

    pictures: int = 240
    size: int = 128
    batch_size: int = 4
    rate: float = 1e-3
    seed: int = 42


def write_published(folder: Path, count: int, size: int) -> None:
    """Portraits as CelebAMask-HQ publishes its pictures, the last one without a hair mask."""
    portraits = render(parameters_from_seeds(np.arange(FIRST_SEED, FIRST_SEED + count)), size)
    annotations = make_folder(folder / ANNOTATIONS / "0")
    make_folder(folder / PICTURES)
    for number in range(count):
        write_bytes(folder / PICTURES / f"{number}.jpg", encode_image(portraits.images[number], "jpeg", 95))
        if number + 1 < count:
            mask = np.where(portraits.hair[number] >= 0.5, 255, 0).astype(np.uint8)
            write_bytes(annotations / f"{number:05d}_hair.png", png(mask))


def one(encoder: str, decoder: str, data: Path, settings: Settings) -> dict[str, Any]:
    """Train one network for an epoch -> its row of the table."""
    # One epoch is too short to warm up in; this schedule's first epoch has the base rate.
    config = ZooConfig(
        encoder_type=encoder, decoder_type=decoder, image_size=settings.size, epochs=1, batch_size=settings.batch_size,
        scheduler="CosineAnnealingLR", encoder_lr=settings.rate, seed=settings.seed,
    )  # fmt: skip
    row: dict[str, Any] = {"encoder": encoder, "decoder": decoder}
    try:
        pictures = open_data(config, [data])
        _, held = pictures.split(config.fold)
        loader = batches(pictures.pictures, held, config, None)
        fresh = start_model(config).to(memory_format=torch.channels_last)
        started = time.perf_counter()
        loss, dice = evaluate(fresh, loader, config.loss, torch.device("cpu"))
        row["ms_per_picture"] = round((time.perf_counter() - started) / len(held) * 1e3, 1)
        row["parameters"] = sum(p.numel() for p in fresh.parameters())
        row["before"] = {"dice": round(dice, 4), "loss": round(loss, 4)}
        del fresh
        with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as out:
            result = run(config, [data], Path(out), accelerator="cpu")
        last = result["log"][-1]
        row["after"] = {"dice": round(last["valid_dice"], 4), "loss": round(last["valid_loss"], 4)}
        row["train_dice"] = round(last["train_dice"], 4)
        row["epoch_seconds"] = last["seconds"]
        row["rises"] = last["valid_dice"] > dice
    except OhloraError as error:
        row["error"] = str(error)
    return row


@study(on=dict, shown=False)
def main(
    out: Path,
    encoders: str = ",".join(ENCODERS),
    decoders: str = ",".join(DOCUMENTED_DECODERS),
    pictures: int = Settings.pictures,
    size: int = Settings.size,
    batch_size: int = Settings.batch_size,
    rate: float = Settings.rate,
    seed: int = Settings.seed,
) -> dict[str, Any]:
    settings = Settings(pictures, size, batch_size, rate, seed)
    earlier = json.loads(out.read_text()) if out.is_file() else {}
    rows = list(earlier["rows"]) if earlier.get("settings") == asdict(settings) else []
    done = {(row["encoder"], row["decoder"]) for row in rows}
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        source, data = Path(folder) / "published", Path(folder) / "zoo"
        write_published(source, settings.pictures + 1, settings.size)
        pairs, _, left_out = prepare(source, data)
        content = {
            "what": "held-out Dice before and after one epoch from random weights; ms_per_picture: evaluation",
            "settings": asdict(settings),
            "data": {"pictures": pairs, "left_out": len(left_out)},
            "machine": {**machine(), "threads": torch.get_num_threads(), "system": platform.system()},
            "rows": rows,
        }
        for wanted in itertools.product(encoders.split(","), decoders.split(",")):
            if wanted not in done:
                rows.append(one(*wanted, data, settings))
                print(json.dumps(rows[-1]), flush=True)
                write_json(out, content)
    rising = [row for row in rows if row.get("rises")]
    print(f"{len(rising)} of {len(rows)} networks rise in one epoch -> {out}")
    return content


if __name__ == "__main__":
    main()
