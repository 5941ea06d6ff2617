"""A small network that reads portrait parameters off a picture: eyes, mouth, tilt, turn.

It is trained on procedural portraits, whose truth is known, and measures what changed in pictures whose truth is not:
a generator's. Portraits are blurred, recoloured and mirrored in training, so that it looks at shapes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.data import portraits
from ohlora.training.directions.recipes import ReaderConfig
from ohlora.training.loop.fits import fit_rows
from ohlora.training.weights.files import read_tensors, write_tensors

FORMAT = "ohlora-portrait-reader-1"
READ = ("eye_opening", "mouth_opening", "tilt", "turn")
MIRRORED = ("tilt", "turn")  # change sign in a mirror
READ_BATCH = 64
PAINTED_AT_ONCE = 500  # the renderer also returns maps that are not needed here


def paint_portraits(parameters: NDArray[np.float32], resolution: int) -> NDArray[np.uint8]:
    """parameters [N, LATENTS], resolution -> images uint8 [N,R,R,3]."""
    images = np.empty((len(parameters), resolution, resolution, 3), np.uint8)
    for start in range(0, len(parameters), PAINTED_AT_ONCE):
        part = slice(start, start + PAINTED_AT_ONCE)
        images[part] = portraits.render(parameters[part], resolution).images
    return images


class Reader(nn.Module):
    """images [N,3,size,size] in [-1,1] -> standardised parameters [N, len(names)].

    mean, spread: of each parameter among portraits; `read` gives the parameters themselves.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, size: int = 128, width: int = 24, names: Sequence[str] = READ) -> None:
        super().__init__()
        self.size, self.width, self.names = size, width, tuple(names)
        widths = [3, width, 2 * width, 3 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.SiLU(),
            ]
        self.features = nn.Sequential(*layers)
        # Where things are is the answer: the last map is read position by position, not averaged.
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(4 * width * (size // 32) ** 2, 128), nn.SiLU(), nn.Linear(128, len(self.names))
        )
        self.register_buffer("mean", torch.zeros(len(self.names)))
        self.register_buffer("spread", torch.ones(len(self.names)))

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.features(images))
        return result

    @torch.no_grad()
    def read(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """images uint8 [N,H,W,3] RGB, square, any size -> parameters float64 [N, len(names)], in their own units."""
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
            raise InvalidInputError(f"the reader takes uint8 [N,H,H,3], got {images.dtype} {list(images.shape)}")
        self.eval()
        parts = [self(self.prepared(images[i : i + READ_BATCH])) for i in range(0, len(images), READ_BATCH)]
        values = torch.cat(parts) if parts else torch.zeros(0, len(self.names))
        return (values * self.spread + self.mean).double().numpy()

    def prepared(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 [N,H,H,3] -> float [N,3,size,size] in [-1,1]."""
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        if x.shape[-1] == self.size:
            return x
        return F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True)


def train_reader(
    config: ReaderConfig | None = None,
    *,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> tuple[Reader, dict[str, Any]]:
    """Paint portraits, train, judge on held-out ones -> (reader in evaluation mode, figures).

    figures: r2 (held out, per parameter: 1 - mean squared error / variance), seconds, config.
    """
    config = config or ReaderConfig()
    if config.pictures < config.batch_size:
        raise InvalidInputError(f"--pictures must be at least {config.batch_size}, a batch, got {config.pictures}")
    started = time.perf_counter()
    parameters = sample_parameters(config.pictures + config.held_out, config.seed)
    columns = [portraits.index(name) for name in READ]
    truth = torch.from_numpy(parameters[:, columns])
    pictures = paint_portraits(parameters, config.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        reader = Reader(config.size, config.width)
        seen = truth[: config.pictures]
        reader.mean.copy_(seen.mean(0))
        reader.spread.copy_(seen.std(0) + 1e-6)
        standard = (seen - reader.mean) / reader.spread
        signs = torch.tensor([-1.0 if name in MIRRORED else 1.0 for name in reader.names])
        # A mirror turns the parameter's value, so its standardised value moves by twice the mean.
        shift = torch.where(signs < 0, -2.0 * reader.mean / reader.spread, torch.zeros(()))

        def loss(rows: Tensor) -> Tensor:
            images, flipped = mirrored(reader.prepared(pictures[rows.numpy()]))
            target = torch.where(flipped[:, None], standard[rows] * signs + shift, standard[rows])
            return F.smooth_l1_loss(reader(disturbed(images)), target)

        fit_rows(
            reader, loss, config.pictures, epochs=config.epochs, batch_size=config.batch_size,
            rate=config.learning_rate,
            report=lambda epoch, loss: report({"epoch": epoch, "epochs": config.epochs, "loss": loss}),
        )  # fmt: skip
    held = truth[config.pictures :].double().numpy()
    error = reader.read(pictures[config.pictures :]) - held
    r2 = 1.0 - (error**2).mean(0) / np.maximum(held.var(0), 1e-12)
    figures = {
        "r2": {name: round(float(value), 4) for name, value in zip(READ, r2, strict=True)},
        "held_out": config.held_out,
        "seconds": round(time.perf_counter() - started, 1),
        "config": asdict(config),
    }
    return reader, figures


def sample_parameters(count: int, seed: int) -> NDArray[np.float32]:
    """Parameters [count, LATENTS] of random people, apart from those of any face seed."""
    stream = np.random.Generator(np.random.Philox(key=[seed, 0x726561646572]))
    return portraits.parameters_from_latents(stream.standard_normal((count, portraits.LATENTS)))


def mirrored(images: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the pictures [N,3,H,W] as in a mirror, and which [N]."""
    flipped = torch.rand(len(images)) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images), flipped


def disturbed(images: Tensor) -> Tensor:
    """Pictures as a generator might draw them: softer, of other brightness and contrast, noisy. [N,3,H,W]."""
    count = len(images)
    side = images.shape[-1]
    smaller = int(side * float(torch.empty(()).uniform_(0.35, 1.0)))
    soft = F.interpolate(images, size=(smaller, smaller), mode="bilinear", align_corners=False, antialias=True)
    soft = F.interpolate(soft, size=(side, side), mode="bilinear", align_corners=False)
    share = torch.rand(count, 1, 1, 1)
    images = torch.lerp(images, soft, share)
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.75, 1.25)
    light = torch.empty(count, 3, 1, 1).uniform_(-0.15, 0.15)
    return images * contrast + light + torch.randn_like(images) * 0.03


def save_reader(path: Path | str, reader: Reader) -> None:
    """Write weights and shape as safetensors; `load_reader` reads them back. Atomic."""
    metadata = {
        "format": FORMAT,
        "size": str(reader.size),
        "width": str(reader.width),
        "names": json.dumps(reader.names),
    }
    write_tensors(path, reader.state_dict(), metadata)


def load_reader(path: Path | str) -> Reader:
    """Read what `save_reader` wrote; evaluation mode. Raises CheckpointError naming the file."""
    metadata, state = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no portrait reader of `ohlora train reader` (metadata {json.dumps(metadata)})"
        )
    try:
        reader = Reader(int(metadata["size"]), int(metadata["width"]), json.loads(metadata["names"]))
        reader.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no valid portrait reader: {error}") from error
    return reader.eval()
