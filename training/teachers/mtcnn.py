"""Face detection with facenet-pytorch's networks, and the two ways a teacher is shown a face
(docs/spec/segmentation.md, sections 1 and 2).

variant A   the largest face with a quarter of its size added on each side, squeezed into 224x224
variant B   the whole picture, squeezed into 224x224
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ohlora.base.installation import install_command
from ohlora.base.types import Rgb
from ohlora.errors import CheckpointError, ImageError
from ohlora.photos import face_cascade
from ohlora.photos.face_cascade import FACTOR, MIN_FACE, THRESHOLDS, Detections, Floats

State = dict[str, NDArray[Any]]

SIZE = 224
MARGIN = 0.25  # of the box, on each side; "50 %" upstream
_FILES = {"proposal": "pnet.pt", "refinement": "rnet.pt", "output": "onet.pt"}


def weights_folder() -> Path:
    """Where the wheel keeps its weights; the package itself is not imported for it.

    Raises CheckpointError when facenet-pytorch is not installed.
    """
    found = importlib.util.find_spec("facenet_pytorch")
    if found is None or found.origin is None:
        raise CheckpointError(f"facenet-pytorch is not installed: {install_command('train')}")
    return Path(found.origin).parent / "data"


def published_weights(name: str) -> State:
    """State of the 'proposal', 'refinement' or 'output' network. Raises CheckpointError naming the file."""
    path = weights_folder() / _FILES[name]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(f"cannot read {path}: {error}; install facenet-pytorch again") from error
    return {key: tensor.numpy() for key, tensor in state.items()}


@cache
def published_detector() -> Any:
    """facenet-pytorch's MTCNN with the documented settings, on the CPU, loaded once."""
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise CheckpointError(f"facenet-pytorch cannot be used ({error}): {install_command('train')}") from error
    return MTCNN(
        min_face_size=MIN_FACE,
        thresholds=list(THRESHOLDS),
        factor=FACTOR,
        keep_all=True,
        select_largest=True,
        device=torch.device("cpu"),
    ).eval()


class TorchNetworks:
    """The three PyTorch modules for `face_cascade`."""

    def __init__(self) -> None:
        detector = published_detector()
        self._proposal, self._refinement, self._output = detector.pnet, detector.rnet, detector.onet

    def proposal(self, level: Floats) -> tuple[Floats, Floats]:
        box, classes = self._run(self._proposal, level)
        return classes[0, 1], box[0].transpose(1, 2, 0)

    def refinement(self, crops: Floats) -> tuple[Floats, Floats]:
        box, classes = self._run(self._refinement, crops)
        return classes[:, 1], box

    def output(self, crops: Floats) -> tuple[Floats, Floats, Floats]:
        box, points, classes = self._run(self._output, crops)
        return classes[:, 1], box, points

    @staticmethod
    @torch.no_grad()
    def _run(module: Any, images: Floats) -> list[Floats]:
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return [result.numpy() for result in module((planes - 127.5) * 0.0078125)]


def detect(image: Rgb, *, compat: bool = False) -> Detections:
    """Faces of a uint8 RGB picture [H,W,3], largest first; empty when there is none.

    compat: run facenet-pytorch's own cascade. The difference shows where a candidate box lies outside the picture:
    upstream then gives later boxes each other's scores, or fails (docs/spec/segmentation.md, section 10, item 8).
    Raises CheckpointError when facenet-pytorch or its weights cannot be used.
    """
    if not compat:
        return face_cascade.detect(image, TorchNetworks())
    boxes, probabilities, landmarks = published_detector().detect(image, landmarks=True)
    if boxes is None:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
    arrays = (np.asarray(values, dtype=np.float32) for values in (boxes, probabilities, landmarks))
    return Detections(*arrays)


def crop_box(box: Sequence[float] | NDArray[np.floating[Any]], width: int, height: int) -> tuple[int, int, int, int]:
    """Variant A's crop of a face box x1 y1 x2 y2 in a width x height picture: x0, y0, x1, y1, the last two exclusive.

    Raises ImageError when the crop shows nothing of the picture.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
    left, top = int(max(0.0, x1 - dx)), int(max(0.0, y1 - dy))
    right, bottom = int(min(float(width), x2 + dx)), int(min(float(height), y2 + dy))
    if right <= left or bottom <= top:
        raise ImageError(f"the face box {x1:.0f},{y1:.0f} to {x2:.0f},{y2:.0f} lies outside {width}x{height} pixels")
    return left, top, right, bottom


def crop_face(image: Rgb, found: Detections) -> Rgb:
    """Variant A: the largest face, cropped and resized to uint8 [224,224,3]; its aspect is not kept.

    Raises ImageError when there is no face.
    """
    if not len(found):
        raise ImageError("no face found: variant B takes the whole picture")
    box = crop_box(found.boxes[0], image.shape[1], image.shape[0])
    return _resized(Image.fromarray(image).crop(box))


def whole_frame(image: Rgb) -> Rgb:
    """Variant B: the whole picture resized to uint8 [224,224,3]; its aspect is not kept."""
    return _resized(Image.fromarray(image))


def _resized(picture: Image.Image) -> Rgb:
    # Pillow's bicubic is antialiased when it shrinks, as a tensor resize is not.
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
