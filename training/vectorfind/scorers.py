"""What judges pictures in a search: a score CNN, a face parser with the property kernels, or the portrait reader.

Every scorer gives named columns in fixed units and never depends on the batch that a picture came in, up to float
rounding; networks are in evaluation mode (dropout would make passing a matter of chance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.text import first_of
from ohlora.base.types import Rgb
from ohlora.bundle import Bundle
from ohlora.bundle.files import file_sha256
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.kernels.properties import PROPERTIES as KERNEL_COLUMNS
from ohlora.kernels.properties import SIZE as PARSED_SIZE
from ohlora.kernels.properties import score as kernel_score
from ohlora.photos.segmentation import documented_classes, parse_faces, resize_area
from ohlora.training import checkpoints
from ohlora.training.cnn.pictures import network_input
from ohlora.training.directions.reader import Reader, load_reader
from ohlora.training.nets.score_cnns import PROPERTY_PARTS, MergedCnn, PropertyCnn, at_cnn_size

Scores = NDArray[np.float64]

CNN_BATCH = 50  # one face's test pictures
CNN_COLUMNS = (*KERNEL_COLUMNS, "hairstyle")
NETWORKS: tuple[tuple[type[PropertyCnn | MergedCnn], str, str], ...] = (
    (MergedCnn, "cnn-merged", "merged CNN"),
    (PropertyCnn, "cnn-property", "property CNN"),
)
# The property CNN's background network has two outputs.
_PARTS = {name: (name, 0) for name in PROPERTY_PARTS} | {
    "background_mean": ("background", 0),
    "background_std": ("background", 1),
}


class Scorer(Protocol):
    """columns: what it can score. identity: of its weights; kind: in words. `score` computes only what is asked for."""

    columns: tuple[str, ...]
    identity: str
    kind: str

    def score(self, images: Rgb, columns: Sequence[str]) -> Scores:
        """uint8 RGB [N,R,R,3] -> float64 [N, len(columns)]; NaN where a score does not exist."""


@dataclass
class CnnScorer:
    """Property CNN (7 columns) or merged CNN (8), at any picture size (docs/spec/cnn.md, sections 7 and 10)."""

    network: PropertyCnn | MergedCnn
    identity: str
    kind: str
    device: torch.device

    def __post_init__(self) -> None:
        self.columns: tuple[str, ...] = CNN_COLUMNS if isinstance(self.network, MergedCnn) else KERNEL_COLUMNS
        self.network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def score(self, images: Rgb, columns: Sequence[str]) -> Scores:
        rows = []
        for first in range(0, len(images), CNN_BATCH):
            picture = at_cnn_size(network_input(images[first : first + CNN_BATCH], self.device, signed=True))
            rows.append(cnn_columns(self.network, picture, columns).double().cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, len(columns)))


def cnn_columns(network: PropertyCnn | MergedCnn, picture: torch.Tensor, columns: Sequence[str]) -> torch.Tensor:
    """picture [N,3,256,256] in [-1,1] -> scores [N, len(columns)]; parts that no column needs are not computed."""
    properties = network.properties if isinstance(network, MergedCnn) else network
    found = {part: properties.only(picture, (part,)) for part in sorted({_PARTS[n][0] for n in columns if n in _PARTS})}
    if isinstance(network, MergedCnn) and "hairstyle" in columns:
        found["hairstyle"] = network.hairstyle(picture)
    picked = [_PARTS.get(name, (name, 0)) for name in columns]
    return torch.stack([found[part][:, index] for part, index in picked], 1)


@dataclass
class ParsingScorer:
    """Class maps of a parser and the property kernels, algorithm v2 (docs/spec/properties.md);
    raw scores, not normalised.

    parse: uint8 [N,224,224,3] -> class maps uint8 [N,224,224] (0 background ... 10 hair).
    """

    parse: Callable[[Rgb], NDArray[np.uint8]]
    identity: str
    kind: str = "parsing"
    columns: tuple[str, ...] = KERNEL_COLUMNS

    def score(self, images: Rgb, columns: Sequence[str]) -> Scores:
        if not len(images):
            return np.zeros((0, len(columns)))
        at_size = np.stack([resize_area(image, (PARSED_SIZE, PARSED_SIZE)) for image in images])
        scores = kernel_score(self.parse(at_size), at_size, algorithm="v2")
        return np.ascontiguousarray(scores[:, [KERNEL_COLUMNS.index(name) for name in columns]])


@dataclass
class ReaderScorer:
    """The portrait reader, for generators of drawn portraits: eyes, mouth and the head's tilt, in standard
    deviations."""

    reader: Reader
    identity: str
    kind: str = "portrait reader"
    columns: tuple[str, ...] = ("eyes", "mouth", "pose")
    readings: tuple[str, ...] = ("eye_opening", "mouth_opening", "tilt")

    def score(self, images: Rgb, columns: Sequence[str]) -> Scores:
        names = list(self.reader.names)
        index = [names.index(self.readings[self.columns.index(name)]) for name in columns]
        mean, spread = self.reader.mean.double().numpy(), self.reader.spread.double().numpy()
        return np.ascontiguousarray(((self.reader.read(images) - mean) / spread)[:, index])


def load_scorer(source: str | Path, device: torch.device | str = "cpu") -> Scorer:
    """A property or merged CNN (.pth, .safetensors), a portrait reader (.safetensors), or "parsing:BUNDLE".

    A folder stands for the one network in it.

    Raises InvalidInputError for what is none of these, BundleError for a bundle without a face parser.
    """
    if str(source).startswith("parsing:"):
        bundle = Bundle.open(str(source).removeprefix("parsing:"))
        engine = bundle.parsing_engine()

        def parse(images: Rgb) -> NDArray[np.uint8]:
            return documented_classes(np.stack(parse_faces(engine, list(images))))

        return ParsingScorer(parse, bundle.engine_hashes["parsing"])
    path = Path(source)
    if path.is_dir():
        path = only_network(path)
    if not path.is_file():
        raise InvalidInputError(
            f"no scorer {path}: give a property or merged CNN, a portrait reader, or parsing:BUNDLE"
        )
    identity, place = file_sha256(path), torch.device(device)
    reasons = []
    for network, kind, name in NETWORKS:
        try:
            return CnnScorer(checkpoints.load_as(network, kind, path), identity, name, place)
        except CheckpointError as error:
            reasons.append(f"{kind}: {error}")
    try:
        return ReaderScorer(load_reader(path), identity)
    except CheckpointError:
        raise InvalidInputError(
            f"{path} scores no faces: it is no property CNN, merged CNN or portrait reader ({reasons[1]})"
        ) from None


def only_network(folder: Path) -> Path:
    """The one .safetensors file of a folder, or else its one .pth file. Raises InvalidInputError for another number."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.pth"))
    if len(files) != 1:
        names = f"{len(files)} networks ({first_of([file.name for file in files])})" if files else "no network"
        raise InvalidInputError(f"{folder} holds {names}: give the file of one scorer")
    return files[0]


def require_columns(scorer: Scorer, columns: Sequence[str]) -> None:
    """Raises InvalidInputError naming the columns that the scorer does not have."""
    missing = [name for name in columns if name not in scorer.columns]
    if missing:
        raise InvalidInputError(
            f"the {scorer.kind} has no score {', '.join(missing)} (it has {', '.join(scorer.columns)}): take a merged "
            "CNN for hairstyle, or leave the groups and protected scores out"
        )
