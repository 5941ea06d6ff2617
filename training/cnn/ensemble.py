"""Classifiers of a folder as scorers: those of one attribute, one per fold, and all as a monitor of trainings
(docs/spec/cnn.md, sections 5 and 6).

monitor = Monitor.load(folder_of_models)
scores = monitor.score(images)                    # {"gender": [N,5], "quality": [N,5], ...}
monitor.write(out / "inference_test_result.csv", scores)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from ohlora.base.types import check_choice
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.cnn.loop import EVALUATION_BATCH
from ohlora.training.cnn.pictures import Images, network_input
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import write_table
from ohlora.training.loop.precision import lightning_precision
from ohlora.training.nets.score_cnns import ATTRIBUTES, ClassifierCnn, at_cnn_size

Scores = Mapping[str, NDArray[np.float64]]  # attribute -> [N, models]
MODELS = "models"  # where a training writes them in its folder
RESULT_FILE = "inference_test_result.csv"
NAME = r"(?:cnn_ohlora_v3_)?{}_model_([0-9]+)\.(pt|safetensors)"  # both documented names


def find_models(folder: Path, attribute: str) -> tuple[Path, ...]:
    """Files of the models 0, 1, ... of `attribute`; of a .pt and a .safetensors file of one model the latter.

    Raises InvalidInputError when there is none, when one is missing in between, and when two sets are mixed.
    """
    models: dict[int, Path] = {}
    for number, path in _models(folder, check_choice("attribute", attribute, ATTRIBUTES)):
        other = models.get(number, path)
        if other.stem != path.stem:
            raise InvalidInputError(
                f"{other} and {path.name} are both model {number}: keep one set of models in a folder"
            )
        models[number] = path  # sorted: .safetensors comes after .pt
    if not models:
        raise InvalidInputError(
            f"no {attribute}_model_N.pt in {folder}: train them with `ohlora train classifier {attribute}`"
        )
    last = max(models)
    for number in range(last):
        if number not in models:
            raise InvalidInputError(f"{folder} has {attribute} models up to {last}, but none with number {number}")
    return tuple(path for _, path in sorted(models.items()))


def _models(folder: Path, attribute: str) -> Iterator[tuple[int, Path]]:
    """Number and file of every model of `attribute`, sorted by name; those of a training's folder lie in its MODELS."""
    within = Path(folder) / MODELS
    for path in sorted((within if within.is_dir() else Path(folder)).glob("*")):
        if match := re.fullmatch(NAME.format(attribute), path.name):
            yield int(match[1]), path


def present(folder: Path) -> tuple[str, ...]:
    """The attributes that have at least one model file in `folder`."""
    return tuple(attribute for attribute in ATTRIBUTES if any(_models(folder, attribute)))


@dataclass(frozen=True)
class Ensemble:
    """Classifiers of one attribute. identity: what tells them from any other set."""

    attribute: str
    networks: tuple[ClassifierCnn, ...]
    identity: str
    fabric: Fabric

    @classmethod
    def load(cls, folder: Path, attribute: str, *, accelerator: str = "auto", precision: str = "fp32") -> Ensemble:
        """All models of `attribute` in `folder`, in evaluation mode. Raises InvalidInputError, CheckpointError."""
        files = find_models(folder, attribute)
        fabric = make_fabric(accelerator, precision=precision)
        networks = [
            checkpoints.load_as(ClassifierCnn, f"cnn-{attribute}", path)
            .to(memory_format=torch.channels_last)
            .to(fabric.device)
            for path in files
        ]
        identity = " ".join([attribute, lightning_precision(precision), *(file_sha256(path)[:16] for path in files)])
        return cls(attribute, tuple(networks), identity, fabric)

    @torch.inference_mode()
    def score(self, images: Images) -> NDArray[np.float64]:
        """uint8 [N,H,W,3] RGB, any size -> probabilities [N, models] of every model, not rounded."""
        parts = []
        for start in range(0, len(images), EVALUATION_BATCH):
            part = np.ascontiguousarray(images[start : start + EVALUATION_BATCH])
            pixels = at_cnn_size(network_input(part, self.fabric.device, signed=False))
            with self.fabric.autocast():
                logits = torch.cat([network.logits(pixels).float() for network in self.networks], 1)
            parts.append(torch.sigmoid(logits).double().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.networks)))


@dataclass(frozen=True)
class Monitor:
    """The classifiers of a folder, documented 4 x 5, that watch a generator while it trains (FineTune-v8 and v9)."""

    ensembles: tuple[Ensemble, ...]

    @classmethod
    def load(
        cls,
        folder: Path,
        attributes: Sequence[str] | None = None,
        *,
        accelerator: str = "auto",
        precision: str = "fp32",
    ) -> Monitor:
        """All attributes that have models in `folder`, or those named. Raises InvalidInputError when there is none."""
        names = present(folder) if attributes is None else tuple(attributes)
        if not names:
            raise InvalidInputError(
                f"no models of {', '.join(ATTRIBUTES)} in {folder}: train them with `ohlora train classifier`"
            )
        return cls(tuple(Ensemble.load(folder, a, accelerator=accelerator, precision=precision) for a in names))

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(ensemble.attribute for ensemble in self.ensembles)

    def score(self, images: Images) -> dict[str, NDArray[np.float64]]:
        """uint8 [N,H,W,3] RGB, any square size -> attribute -> [N, models], rounded to 4 decimals as documented."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InvalidInputError(
                f"the monitor takes uint8 pictures [N,H,W,3], got {images.dtype} {list(images.shape)}"
            )
        return {ensemble.attribute: np.round(ensemble.score(images), 4) for ensemble in self.ensembles}

    @staticmethod
    def means(scores: Scores) -> dict[str, float]:
        """Attribute -> mean over pictures and models: one number each for a curve."""
        return {attribute: float(values.mean()) for attribute, values in scores.items()}

    @staticmethod
    def write(path: Path, scores: Scores) -> None:
        """The documented table: img_no, {attribute}_score (mean of the rounded scores), {attribute}_score_cnn_{k}."""
        single = [f"{a}_score_cnn_{k}" for a, values in scores.items() for k in range(values.shape[1])]
        images = enumerate(zip(*scores.values(), strict=True))
        rows = ([i, *(part.mean() for part in image), *chain(*image)] for i, image in images)
        write_table(path, ["img_no", *(f"{a}_score" for a in scores), *single], rows)
