"""Finds faces in pictures of any size with the compiled networks that ship; no torch."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ohlora.base.reading import read_file
from ohlora.base.types import Rgb
from ohlora.engines.onnxruntime_backend import open_session
from ohlora.errors import EngineError, InvalidInputError
from ohlora.photos import face_cascade
from ohlora.photos.face_cascade import MIN_FACE, THRESHOLDS, AreaSampler, Detections, Floats

# The smallest face looked for in a large picture, as a share of its shorter side: 60 pixels in 12 megapixels, which
# keeps the search below a second. Whoever is smaller than that has hair of a few dozen pixels.
SMALLEST_SHARE = 1 / 50
# A proposal passes at 0.7, as documented. What is dyed unseen should be surer: on the 60 reference portraits the
# weakest face has 0.92.
CONFIDENCE = 0.9
_NAMES = ("proposal", "refinement", "output")


def detector_folder() -> Path:
    """The three ONNX files that ship with the package, and what they are."""
    return Path(str(files("ohlora"))) / "photos" / "detector"


def smallest_face(height: int, width: int) -> float:
    """The default minimum face of a picture, in pixels."""
    return max(float(MIN_FACE), min(height, width) * SMALLEST_SHARE)


class OnnxNetworks:
    """The cascade's networks on ONNX Runtime. One thread per run: results do not depend on the machine's cores.

    Raises EngineError naming the file that is missing, damaged or not the one that shipped.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or detector_folder()
        self.record = _record(folder / "detector.json")
        self._sessions = {name: _session(folder / f"{name}.onnx", self.record) for name in _NAMES}

    def proposal(self, level: Floats) -> tuple[Floats, Floats]:
        probability, box = self._run("proposal", level, ["probability", "box"])
        return probability[0], box[0]

    def refinement(self, crops: Floats) -> tuple[Floats, Floats]:
        probability, box = self._run("refinement", crops, ["probability", "box"])
        return probability, box

    def output(self, crops: Floats) -> tuple[Floats, Floats, Floats]:
        probability, box, landmarks = self._run("output", crops, ["probability", "box", "landmarks"])
        return probability, box, landmarks

    def _run(self, name: str, images: Floats, outputs: list[str]) -> list[Floats]:
        results: list[Floats] = self._sessions[name].run(outputs, {"image": images})
        return results


def _shipped(path: Path) -> bytes:
    return read_file(path, "detector", EngineError, remedy="install the package again")


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_shipped(path))
        joined = "".join(record["files"][f"{name}.onnx"]["sha256"] for name in _NAMES)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} is damaged: install the package again") from error
    return {**record, "sha256": hashlib.sha256(joined.encode()).hexdigest()}


def _session(path: Path, record: dict[str, Any]) -> Any:
    data = _shipped(path)
    if hashlib.sha256(data).hexdigest() != record["files"][path.name]["sha256"]:
        raise EngineError(f"{path} is not the file that detector.json describes: install the package again")
    return open_session(data, threads=1)


class FaceDetector:
    """Faces of uint8 RGB pictures. Networks are opened on first use; calls may come from several threads.

    confidence: faces below are left out; 0.7 gives what the documented cascade gives.
    min_face: smallest face in pixels, None for a share of the picture (`smallest_face`). Below 20 is refused: the
    networks were trained no smaller.
    """

    def __init__(self, *, min_face: float | None = None, confidence: float = CONFIDENCE) -> None:
        if min_face is not None and not min_face >= MIN_FACE:  # true for NaN
            raise InvalidInputError(f"the smallest face must be at least {MIN_FACE} pixels, got {min_face:g}")
        if not THRESHOLDS[2] <= confidence <= 1:
            raise InvalidInputError(f"the confidence must be in [{THRESHOLDS[2]}, 1], got {confidence:g}")
        self.min_face, self.confidence = min_face, confidence

    @cached_property
    def networks(self) -> OnnxNetworks:
        return OnnxNetworks()

    @property
    def identity(self) -> str:
        """Hash of the networks, for metadata."""
        return str(self.networks.record["sha256"])

    def detect(self, image: Rgb) -> Detections:
        """Faces of uint8 RGB [H,W,3], largest first.

        A large picture is searched in a copy shrunk so far that its smallest face has 20 pixels, and the boxes are
        mapped back.
        """
        height, width = image.shape[:2]
        scale = min(1.0, MIN_FACE / (self.min_face or smallest_face(height, width)))
        small = _shrunk(image, scale)
        found = face_cascade.detect(small, self.networks)
        found = found.pick(found.probabilities >= self.confidence)
        return found.scaled(width / small.shape[1], height / small.shape[0])

    def follow(self, image: Rgb, face: Detections) -> Detections:
        """Where a face of the frame before is now; empty when it is lost.

        Two runs of the last network: the search costs a millisecond where a whole cascade takes a hundred. A face that
        moved by more than about a quarter of its size is lost.
        """
        # The networks see 48 pixels a face, so nothing is gained above about 100.
        smallest = float((face.boxes[:, 2:] - face.boxes[:, :2]).min())
        small = _shrunk(image, min(1.0, 100.0 / max(smallest, 1.0)))
        x, y = small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]
        sampler, now = AreaSampler(small), face.scaled(x, y)
        for _ in range(2):  # the second look is centred where the first one found the face
            now = face_cascade.finish(sampler, self.networks, face_cascade.square(now.boxes[:1]), THRESHOLDS[2])
        return now.scaled(1 / x, 1 / y)


def _shrunk(image: Rgb, scale: float) -> Rgb:
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
