"""Face detection with facenet-pytorch's networks (docs/spec/segmentation.md, section 2)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.installation import install_command
from ohlora.base.types import Rgb
from ohlora.errors import CheckpointError
from ohlora.photos import face_cascade
from ohlora.photos.face_cascade import FACTOR, MIN_FACE, THRESHOLDS, Detections, Floats

State = dict[str, NDArray[Any]]
_NETWORKS = {"proposal": "pnet", "refinement": "rnet", "output": "onet"}


@cache
def published_detector() -> Any:
    """facenet-pytorch's MTCNN with the documented settings and the weights of its wheel, on the CPU, loaded once.

    Raises CheckpointError when the package or its weights cannot be used.
    """
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise CheckpointError(f"facenet-pytorch cannot be used ({error}): {install_command('train')}") from error
    settings = {"min_face_size": MIN_FACE, "thresholds": list(THRESHOLDS), "factor": FACTOR}
    try:
        return MTCNN(**settings, keep_all=True, select_largest=True, device=torch.device("cpu")).eval()
    except Exception as error:  # a damaged weights file raises nearly anything
        raise CheckpointError(f"cannot read facenet-pytorch's weights: {error}; install it again") from error


def published_weights(name: str) -> State:
    """State of the 'proposal', 'refinement' or 'output' network. Raises CheckpointError as `published_detector`."""
    state = getattr(published_detector(), _NETWORKS[name]).state_dict()
    return {key: tensor.numpy() for key, tensor in state.items()}


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
