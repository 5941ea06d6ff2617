"""Engines for a search of directions: the scoring CNN and a checkpoint's synthesis, compiled for this machine.

Scoring is a large part of a search's work on a CPU; compiled, it takes a third of the time that PyTorch takes
(bench/studies/vectorfind.py measures it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.engines import Engine
from ohlora.errors import EngineError
from ohlora.export.graphs.from_torch import open_model, to_onnx
from ohlora.export.graphs.pictures import PictureGraph, score_scale
from ohlora.export.networks.registry import module_graphs
from ohlora.training.nets.families import AnyGenerator
from ohlora.training.nets.score_cnns import SIZE
from ohlora.training.nets.stylegan import Generator
from ohlora.training.vectorfind.portrayer import Portrayer, engine_portrayer
from ohlora.training.vectorfind.scorers import CnnScorer, cnn_columns

TOLERANCE = 1e-4  # largest difference of a score between engine and PyTorch
CHECKED = 3


@dataclass
class EngineScorer:
    """A `CnnScorer` whose networks run compiled, for pictures of one size. Other columns than compiled go to
    PyTorch."""

    scorer: CnnScorer
    engine: Engine
    compiled: tuple[str, ...]

    def __post_init__(self) -> None:
        self.columns: tuple[str, ...] = self.scorer.columns
        self.identity, self.kind = self.scorer.identity, self.scorer.kind

    def score(self, images: NDArray[np.uint8], columns: Sequence[str]) -> NDArray[np.float64]:
        if not set(columns) <= set(self.compiled):
            return self.scorer.score(images, columns)
        index = [self.compiled.index(name) for name in columns]
        return np.ascontiguousarray(self.engine(image=images)["scores"].astype(np.float64)[:, index])


def compiled_scorer(scorer: CnnScorer, resolution: int, columns: Sequence[str], backend: str = "auto") -> EngineScorer:
    """Compile `columns` of a score CNN for pictures of `resolution`.

    Raises EngineError when no engine works here, or when its scores differ from PyTorch's.
    """
    if resolution > SIZE:
        raise EngineError(
            f"pictures of {resolution} pixels are scored in PyTorch: the shrinking resize has no ONNX form"
        )
    example = torch.zeros(2, resolution, resolution, 3, dtype=torch.uint8)
    network = scorer.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def read(x: Tensor) -> Tensor:
        if resolution != SIZE:
            x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False)
        return cnn_columns(network, x, columns)  # only the parts that the columns need

    model = to_onnx(PictureGraph(read, score_scale, network=network), {"image": example}, "scores")
    engine = open_model(model, backend=backend)
    made = EngineScorer(scorer, engine, tuple(columns))
    noise = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (CHECKED, resolution, resolution, 3))
    images = noise.astype(np.uint8)
    error = float(np.abs(made.score(images, columns) - scorer.score(images, columns)).max())
    if not error <= TOLERANCE:
        engine.close()
        raise EngineError(f"the compiled scorer differs from PyTorch by {error:.2g}: use --engine torch")
    return made


def compiled_portrayer(generator: AnyGenerator, backend: str = "auto", precision: str = "fp32") -> Portrayer:
    """A checkpoint's generator, its synthesis exported (parity-checked) and compiled. Raises EngineError."""
    network = "generator" if isinstance(generator, Generator) else "mobilestylegan"
    synthesis = module_graphs(network, generator)["synthesis"]()
    return engine_portrayer(generator, open_model(synthesis.model, backend=backend, precision=precision))
