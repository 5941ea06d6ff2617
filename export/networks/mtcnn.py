"""The three face networks as entries of the table: facenet-pytorch's modules, and the graphs written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ohlora.errors import InvalidInputError
from ohlora.export.graphs.mtcnn import NETS, SOURCE, build
from ohlora.export.networks.inputs import faces
from ohlora.training.teachers.mtcnn import published_detector

Options = Mapping[str, str]
Arrays = dict[str, NDArray[Any]]

FREE_SIDES = (60, 73)  # of the proposal network's probe; neither square nor even, as the levels of its pyramid are


class FaceNetworks(nn.Module):
    """proposal, refinement, output: facenet-pytorch's PNet, RNet, ONet."""

    def __init__(self, proposal: nn.Module, refinement: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.proposal, self.refinement, self.output = proposal, refinement, output


def load(kind: str, path: Path | None) -> nn.Module:
    """The published weights, which are files of the package. Raises InvalidInputError when another file is given."""
    if path is not None:
        raise InvalidInputError(f"the face networks' weights come with {SOURCE}: give no file, got {path}")
    detector = published_detector()
    return FaceNetworks(detector.pnet, detector.rnet, detector.onet)


def builder(name: str) -> Callable[[FaceNetworks, Options], onnx.ModelProto]:
    def made(module: FaceNetworks, options: Options) -> onnx.ModelProto:
        network: nn.Module = getattr(module, name)
        return build(NETS[name], {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()})

    return made


def reference(name: str) -> Callable[[FaceNetworks, Arrays, Options], Arrays]:
    def made(module: FaceNetworks, inputs: Arrays, options: Options) -> Arrays:
        planes = torch.from_numpy(np.ascontiguousarray(inputs["image"].transpose(0, 3, 1, 2)))
        # box, (landmarks,) classes: facenet-pytorch's order.
        box, *points, classes = (value.numpy() for value in getattr(module, name)((planes - 127.5) * 0.0078125))
        found = {"probability": classes[:, 1], "box": box if NETS[name].side else box.transpose(0, 2, 3, 1)}
        return found | ({"landmarks": points[0]} if points else {})

    return made


def pictures(name: str) -> Callable[[FaceNetworks, int, int, Options], Arrays]:
    """Portraits as float32 RGB 0..255, as the cascade's area sampling makes them."""

    def made(module: FaceNetworks, seed: int, count: int, options: Options) -> Arrays:
        side = NETS[name].side
        images = faces(seed, count, side or max(FREE_SIDES)).astype(np.float32)
        return {"image": images if side else np.ascontiguousarray(images[:, : FREE_SIDES[0], : FREE_SIDES[1]])}

    return made
