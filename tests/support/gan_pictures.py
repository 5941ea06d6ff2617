"""A stand-in for the portrait renderer: smooth colour waves that the first latents decide. Fast at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.training.gan.config import GanConfig, Phase
from ohlora.training.gan.data import PortraitSource

LATENTS = 6


def waves(z: NDArray[np.float32], resolution: int) -> NDArray[np.uint8]:
    """z [N, >= LATENTS] -> uint8 [N, R, R, 3]."""
    y, x = (np.mgrid[0:resolution, 0:resolution] + 0.5) / resolution
    phase, height = z[:, :3, None, None], z[:, 3:6, None, None]
    planes = 127 + 45 * np.sin(4 * x + phase) + 25 * height * (y - 0.5)
    return np.clip(planes, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def wave_source(count: int = 40) -> PortraitSource:
    return PortraitSource(count, first_seed=1000, renderer=waves, latents=LATENTS)


def tiny_recipe(**changes: object) -> GanConfig:
    """8 pixels by regression, then 16 with everything: fading in, discriminator, lazy penalty, augmentation."""
    settings: dict[str, object] = {
        "phases": (
            Phase(8, 0.024, 4, pixel=1.0),
            Phase(16, 0.032, 4, pixel=0.5, adversarial=0.5, fade=0.5, final_rate=0.1),
        ),
        "images": 40,
        "linear_latents": -1,
        "readout": 1.0,
        "w_size": 24,
        "channel_base": 64,
        "channel_max": 8,
        "mapping_layers": 2,
        "group": 4,
        "r1_every": 3,
        "augment": ("color", "translation"),
        "random_noise": True,
        "mixing": 0.5,
        "precision": "fp32",
        "compile": False,
        **changes,
    }
    return GanConfig(**settings)  # type: ignore[arg-type]


def train_for_a_signal(out: Path) -> None:
    """A run that is far too long, for a test to end: see tests/training/gan/test_loop.py."""
    from ohlora.training.gan.loop import Watch, run

    phases = (Phase(8, 40.0, 4, pixel=1.0, adversarial=0.5),)
    result = run(tiny_recipe(phases=phases), out, wave_source(), accelerator="cpu", watch=Watch(log_every=1))
    assert result["stopped"]
