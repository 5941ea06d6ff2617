"""A property CNN that is good enough to judge directions of the demo generator.

    python -m ohlora.bench.studies.vectorfind_scorer --base
    runs/pipeline/property-cnn/stylegan_gen_fine_tuned_v2_cnn.safetensors \
        --out runs/scorer

The property CNN of `train pipeline --preset demo` learns from 468 pictures: enough for hair and background (held-out
correlations .90 to .99), not for eyes, mouth and pose (.63 to .79). Here its three small networks for those learn
again,
from thousands of the demo generator's pictures, labelled with the property scores (v2) of the portrait that each seed
stands for. Label noise is in the held-out figures: the generator draws not quite that portrait.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohlora.base.atomic import write_json
from ohlora.bench.runner.study import study
from ohlora.io.numbered_images import numbered_images
from ohlora.scores import score_folder
from ohlora.training import checkpoints
from ohlora.training.cnn.loop import save_network
from ohlora.training.cnn.pictures import network_input, read_all
from ohlora.training.loop.fits import fit_rows
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.pipeline.maps import portrait_maps
from ohlora.training.sampling.recipes import SampleSettings
from ohlora.training.sampling.sample import sample_images
from ohlora.training.unbundle.generator import generator_from_bundle

FIRST_SEED = 3_000_000  # none of these faces is searched or tested with
PARTS = ("eyes", "mouth", "pose")
HELD_OUT = 240
BATCH, RATE = 32, 1e-3


def make_scorer(base: Path, out: Path, pictures: int, epochs: int) -> dict[str, Any]:
    """Sample, label, train -> held-out figures; the weights are OUT/property_cnn.safetensors."""
    started = time.perf_counter()
    settings = SampleSettings(count=pictures, first_seed=FIRST_SEED, batch=8)
    sample_images(generator_from_bundle("demo"), out / "sampled", settings)
    found = numbered_images(out / "sampled")
    portrait_maps(found, FIRST_SEED, out / "maps")
    table = score_folder(out / "maps", out / "scores", ("v2",), pictures=found).normalized["v2"]
    complete = table.rows(table.numbers[~np.isnan(table.values).any(1)])
    images = read_all([found[int(number)] for number in complete.numbers])
    labels = np.stack([complete.column(f"{name}_score") for name in PARTS], 1).astype(np.float32)
    network = checkpoints.load_as(PropertyCnn, "cnn-property", base)
    fit(network, images[HELD_OUT:], torch.from_numpy(labels[HELD_OUT:]), epochs)
    save_network(network, out / "property_cnn.pth", out / "property_cnn.safetensors", "cnn-property")
    read = scored(network, images[:HELD_OUT])
    figures: dict[str, Any] = {
        "pictures": len(images) - HELD_OUT,
        "epochs": epochs,
        "held_out_correlation": {
            name: round(float(np.corrcoef(read[:, i], labels[:HELD_OUT, i])[0, 1]), 4) for i, name in enumerate(PARTS)
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(out / "scorer.json", figures)
    return figures


def fit(network: PropertyCnn, images: NDArray[np.uint8], labels: torch.Tensor, epochs: int) -> None:
    """Train the three parts from fresh weights; the others stay."""
    torch.manual_seed(0)
    for name in PARTS:
        for module in network.parts[name].modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    for name, part in network.parts.items():
        part.requires_grad_(name in PARTS)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        picture = network_input(images[rows.numpy()], torch.device("cpu"), signed=True)
        return nn.functional.mse_loss(network.only(picture, PARTS), labels[rows])

    fit_rows(
        network, loss, len(images), epochs=epochs, batch_size=BATCH, rate=RATE, weight_decay=0.01,
        report=lambda epoch, loss: print(f"epoch {epoch}/{epochs}: loss {loss:.4f}", flush=True),
    )  # fmt: skip


@torch.inference_mode()
def scored(network: PropertyCnn, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    cpu = torch.device("cpu")
    return np.concatenate([network.only(network_input(part, cpu, signed=True), PARTS).numpy() for part in parts])


@study(result="result", on=dict)
def main(base: Path, out: Path = Path("runs/scorer"), pictures: int = 2400, epochs: int = 14) -> dict[str, Any]:
    return make_scorer(base, out, pictures, epochs)


if __name__ == "__main__":
    main()
