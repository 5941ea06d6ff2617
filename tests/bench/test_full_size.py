"""The full-size generator that benches run: the published shape, the demo's portraits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import ohlora
from ohlora.bench.runner import full_size
from ohlora.faces import face_from_seed
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import CONFIGS


def test_it_draws_the_demos_portraits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "FITTED_FACES", 200)
    generator = full_size.full_size_generator()
    assert generator.config == CONFIGS["original"]
    seeds = range(100, 104)
    z = torch.from_numpy(np.stack([face_from_seed(seed).z for seed in seeds]))
    with torch.inference_mode():
        made = generator.synthesis(generator.truncate(generator.mapping(z)), lod=0.0)
    pictures = as_bytes(made)
    wanted = ohlora.Renderer().render(ohlora.SeedRange(seeds[0], seeds[-1]))
    for picture, small in zip(pictures, wanted, strict=True):
        values = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
        for color in range(3):  # mean and contrast are fitted, the rest is carried through
            assert np.corrcoef(values[..., color].ravel(), small[..., color].ravel())[0, 1] > 0.97
