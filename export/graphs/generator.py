"""StyleGAN generator -> mapping.onnx and synthesis.onnx.

    mapping.onnx    z float32 [N,Z], label float32 [N,L] (left out when L = 0) -> w float32 [N,W]
    synthesis.onnx  wp float32 [N,layers,W] -> image uint8 [N,R,R,3] RGB

A mapping that ends in two branches has one more output, and mapping_end.onnx beside it (`graphs.mapping`).

Standard operations, any batch size, weights inside the file. Truncation is not in the graphs: the caller
makes wp from w and the generator's `w_avg` (docs/spec/stylegan.md, section 2.4). Weights are stored as float32, or as
float16 and computed in float32 (`graphs.half_storage`).
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.export.graphs.from_torch import TRACED_BATCH, to_onnx
from ohlora.export.graphs.half_storage import NoiseOffset, Source, WidenedKernel
from ohlora.export.graphs.mapping import generator_properties
from ohlora.export.rewrites.generator import Collapse, synthesis_layers
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_layers import EPSILON, AdaIN, UpConv

Storage = Literal["float32", "float16"]
STORAGES: tuple[Storage, ...] = ("float32", "float16")


class SynthesisGraph(nn.Module):
    """Rewritten synthesis at level of detail 0: wp [N,layers,W] -> image float32 [N,3,R,R]."""

    def __init__(self, rewritten: Generator) -> None:
        super().__init__()
        self.synthesis = rewritten.synthesis

    def forward(self, wp: Tensor) -> Tensor:
        x: Tensor = self.synthesis.const
        for index, layer in enumerate(self.synthesis.layers):
            x = layer(x, wp[:, index])
        image: Tensor = self.synthesis.to_rgb[-1](x)
        return image


class ByteSynthesis(SynthesisGraph):
    """wp -> image uint8 [N,R,R,3] RGB. The cast truncates, which is floor here: no value is negative."""

    def forward(self, wp: Tensor) -> Tensor:
        levels = (super().forward(wp) + 1.0) * 127.5 + 0.5
        return levels.clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)


class ExactAdaIN(AdaIN):
    """AdaIN in its input's own precision; the training one takes its statistics in float32, whatever comes in."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)
        x = x - x.mean((2, 3), keepdim=True)
        return x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + EPSILON) * scale + shift


def exact_reference(module: Generator) -> Generator:
    """A float64 copy on the CPU: what exported graphs are compared with.

    A start that is nearly constant (training leaves it so: mean 1, deviation 0.004) is a norm's worst case: there
    PyTorch's own float32 rounding is enlarged to one grey level on 0.1 % of the values.
    """
    reference = copy.deepcopy(module).cpu().double().eval()
    for layer in synthesis_layers(reference):
        layer.adain.__class__ = ExactAdaIN
    return reference


def synthesis_graph(rewritten: Generator, collapse: Collapse) -> onnx.ModelProto:
    """The synthesis network of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    example = {"wp": torch.zeros(TRACED_BATCH, config.layers, config.w_size)}
    properties = generator_properties("synthesis", config) | {"ohlora.collapse": collapse}
    return to_onnx(ByteSynthesis(rewritten), example, "image", properties)


def synthesis_sources(generator: Generator, collapse: Collapse) -> dict[str, Source]:
    """What the folded tensors of the synthesis graph are made from, by their names there.

    generator: as it was before the rewrites.
    """
    sources: dict[str, Source] = {}
    # Layer 0 has neither: it is precomputed up to its style.
    for index, layer in enumerate(synthesis_layers(generator)[1:], start=1):
        name = f"synthesis.layers.{index}"
        parts = (layer.offset.noise, layer.offset.strength, layer.offset.bias)
        sources[f"{name}.offset.offset"] = NoiseOffset(*(part.detach().float().numpy() for part in parts))
        if isinstance(layer.conv, UpConv) and collapse == "transposed":
            weight = (layer.conv.weight.detach().double() * layer.conv.weight_gain).float()
            weight = weight.flip(2, 3) if layer.conv.flipped else weight
            sources[f"{name}.conv.kernel"] = WidenedKernel(weight.numpy())
    return sources


def as_levels(image: Tensor) -> NDArray[np.uint8]:
    """Image [N,3,R,R], nominally in [-1, 1] -> grey levels uint8 [N,R,R,3]."""
    levels: NDArray[np.uint8] = ((image + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0).to(torch.uint8).numpy()
    return levels.transpose(0, 2, 3, 1)
