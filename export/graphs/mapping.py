"""The mapping network as ONNX: z, label -> w; of one that ends in two branches also what directions may edit there.

    mapping.onnx      z float32 [N,Z], label float32 [N,L] (left out when L = 0) -> w float32 [N,W]
                      and of a split mapping: mapping_split1 float32 [N,W+S], w1 and w2 before their last layers
    mapping_end.onnx  mapping_split1 float32 [N,W+S] -> w float32 [N,W], mapping_split2 float32 [N,2W], w1' and w2'

The last layers are in both files: one network in two parts would run twice for every face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.values import Face
from ohlora.export.graphs.from_torch import TRACED_BATCH, to_onnx
from ohlora.faces import latents_of
from ohlora.training.nets.stylegan import Generator, GeneratorConfig, Mapping


class SplitMapping(nn.Module):
    """z [N,Z], label [N,L] -> w [N,W], mapping_split1 [N,W+S]."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w1, w2 = self.mapping.hidden(z, label)
        end1, end2 = self.mapping.ends(w1, w2)
        return end1 + end2, torch.cat([w1, w2], 1)


class MappingEnd(nn.Module):
    """mapping_split1 [N,W+S] -> w [N,W], mapping_split2 [N,2W]."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, mapping_split1: Tensor) -> tuple[Tensor, Tensor]:
        size = self.mapping.config.w_size
        end1, end2 = self.mapping.ends(mapping_split1[:, :size], mapping_split1[:, size:])
        return end1 + end2, torch.cat([end1, end2], 1)


def mapping_graph(rewritten: Generator) -> onnx.ModelProto:
    """The mapping network of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    inputs = {"z": torch.zeros(TRACED_BATCH, config.z_size)}
    if config.label_size:
        inputs["label"] = torch.zeros(TRACED_BATCH, config.label_size)
    properties = generator_properties("mapping", config)
    if config.split_size:
        return to_onnx(SplitMapping(rewritten.mapping), inputs, ("w", "mapping_split1"), properties)
    return to_onnx(rewritten.mapping, inputs, "w", properties)


def mapping_end_graph(rewritten: Generator) -> onnx.ModelProto:
    """The last layers of the split mapping of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    inputs = {"mapping_split1": torch.zeros(TRACED_BATCH, config.w_size + config.split_size)}
    properties = generator_properties("mapping_end", config)
    return to_onnx(MappingEnd(rewritten.mapping), inputs, ("w", "mapping_split2"), properties)


def generator_properties(role: str, config: GeneratorConfig) -> dict[str, str]:
    """What a graph's metadata say of the generator it belongs to."""
    numbers = {
        "resolution": config.resolution,
        "layers": config.layers,
        "z_size": config.z_size,
        "w_size": config.w_size,
        "label_size": config.label_size,
    }
    if config.split_size:
        numbers["split_size"] = config.split_size
    return {"ohlora.role": role} | {f"ohlora.{name}": str(value) for name, value in numbers.items()}


def mapping_inputs(faces: Sequence[Face]) -> dict[str, NDArray[np.float32]]:
    """What mapping.onnx takes of these faces; they have labels all or none."""
    z, label = latents_of(faces)
    return {"z": z} | ({"label": label} if label.size else {})
