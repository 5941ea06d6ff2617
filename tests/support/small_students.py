"""Students with random or ruled weights."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.bundle import Bundle
from ohlora.export.bundle.builder import build_bundle
from ohlora.training.data.parsing_classes import NAMES11
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet


def golden_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """The seeded weight rule of the reference data for students."""
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape).astype(np.float32)
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if len(shape) >= 2:
        return torch.from_numpy(draw * np.float32(np.sqrt(2 / np.prod(shape[1:]))))
    if key.endswith("running_var"):
        return torch.from_numpy(np.abs(draw) + np.float32(0.5))
    if key.endswith(("running_mean", ".bias")):
        return torch.from_numpy(draw * np.float32(0.1))
    return torch.from_numpy(1 + draw * np.float32(0.1))


def random_student(encoder: str, seed: int = 3) -> EffiSegNet:
    """Weights and statistics that are not the initial ones, so that folding has something to get wrong."""
    torch.manual_seed(seed)
    model = EffiSegNet(encoder)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
        elif value.ndim == 1:
            value.copy_(torch.randn_like(value) * 0.2 + (1.0 if key.endswith("weight") else 0.0))
    return model.eval()


def random_parser(classes: int = len(NAMES11)) -> EffiSegNet:
    """Random weights whose decisions are clear: what is tested is the export, not rounding."""
    torch.manual_seed(5)
    model = EffiSegNet(SHIPPED_ENCODER, classes)
    model.decoder.head.weight.data *= 40
    return model.eval()


def parser_bundle(out: Path, weights: Path, **options: Any) -> Bundle:
    """A bundle of a parser's weights file and the demo's hair student."""
    nothing: dict[str, Any] = {"generator": None, "kind": "", "directions": None, "provenance": None}
    return build_bundle(out, hair="demo", name="parser", license="none", parsing=str(weights), **nothing, **options)
