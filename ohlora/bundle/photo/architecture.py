"""The MobileStyleGAN family in names and sizes, for readers of weights, rewrites, graphs and the PyTorch module alike.

A w of each row of wp drives: row 0 the first layer, rows 1 + 2i and 2 + 2i block i (the first its `up` and `conv1`, the
second its `conv2`), the last row the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ohlora.errors import InvalidInputError

Shapes = dict[str, tuple[int, ...]]

SLOPE = 0.2  # of every leaky ReLU
EPSILON = 1e-8  # of the latent's norm
ROOT_TWO = math.sqrt(2.0)  # gain of the mapping's activations; the synthesis has none
START = 4  # side of the constant
BANDS = 4  # of the Haar transform: LL, B0 alternating in y, B1 in x, B2 in both
# What band k adds to the output pixels (0,0), (0,1), (1,0), (1,1) of a 2x2 square.
HAAR = (
    (0.5, 0.5, 0.5, 0.5),
    (0.5, 0.5, -0.5, -0.5),
    (0.5, -0.5, 0.5, -0.5),
    (0.5, -0.5, -0.5, 0.5),
)


@dataclass(frozen=True)
class Block:
    """inputs channels at resolution / 2 -> outputs channels at `resolution`. row: of wp, for `up` and `conv1`."""

    inputs: int
    outputs: int
    resolution: int
    row: int

    @property
    def name(self) -> str:
        return f"block{self.resolution}"

    @property
    def coarse(self) -> int:
        """Channels that leave the inverse Haar transform."""
        return self.inputs // BANDS


@dataclass(frozen=True)
class Architecture:
    """Sizes of one network. start: channels of the constant; channels: of the blocks, each at twice the side."""

    z_size: int = 512
    w_size: int = 512
    mapping_layers: int = 8
    start: int = 512
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)

    def __post_init__(self) -> None:
        odd = [count for count in (self.start, *self.channels) if count < BANDS or count % BANDS]
        if odd or not self.channels:
            raise InvalidInputError(
                f"channels of a MobileStyleGAN must be multiples of 4, got {[self.start, *self.channels]}"
            )

    @property
    def blocks(self) -> tuple[Block, ...]:
        inputs = (self.start, *self.channels)
        return tuple(Block(inputs[i], outputs, 2 * START << i, 1 + 2 * i) for i, outputs in enumerate(self.channels))

    @property
    def resolution(self) -> int:
        """Side of the image: the head doubles the last block's."""
        return 2 * self.blocks[-1].resolution

    @property
    def layers(self) -> int:
        """Rows of wp."""
        return 2 + 2 * len(self.channels)

    def shapes(self) -> Shapes:
        """Every tensor by its name, mapping and synthesis."""
        shapes: Shapes = {}
        width = self.z_size
        for i in range(self.mapping_layers):
            shapes[f"mapping.fc{i}.weight"] = (self.w_size, width)
            shapes[f"mapping.fc{i}.bias"] = (self.w_size,)
            width = self.w_size

        def affine(name: str, channels: int) -> None:
            shapes[f"{name}.affine.weight"] = (channels, self.w_size)
            shapes[f"{name}.affine.bias"] = (channels,)

        shapes["synthesis.const"] = (1, self.start, START, START)
        affine("synthesis.first", self.start)
        shapes["synthesis.first.weight"] = (self.start, self.start, 3, 3)
        shapes["synthesis.first.bias"] = (self.start,)
        shapes["synthesis.first.noise"] = (1, 1, START, START)
        for block in self.blocks:
            affine(f"synthesis.{block.name}.up", block.inputs)
            for conv, inputs in (("conv1", block.coarse), ("conv2", block.outputs)):
                name = f"synthesis.{block.name}.{conv}"
                affine(name, inputs)
                shapes[f"{name}.dw.weight"] = (inputs, 1, 3, 3)
                shapes[f"{name}.pw.weight"] = (block.outputs, inputs, 1, 1)
                shapes[f"{name}.bias"] = (block.outputs,)
                shapes[f"{name}.noise"] = (1, 1, block.resolution, block.resolution)
        affine("synthesis.head", self.channels[-1])
        shapes["synthesis.head.weight"] = (3 * BANDS, self.channels[-1], 1, 1)
        shapes["synthesis.head.bias"] = (3 * BANDS,)
        return shapes

    def style_scales(self) -> Mapping[str, float]:
        """What the styles of a layer are multiplied by, by the layer's name; those of `up` by nothing."""
        scales = {"synthesis.first": 1 / math.sqrt(9 * self.start)}
        for block in self.blocks:
            scales[f"synthesis.{block.name}.conv1"] = 1 / math.sqrt(9 * block.coarse)
            scales[f"synthesis.{block.name}.conv2"] = 1 / math.sqrt(9 * block.outputs)
        scales["synthesis.head"] = 1 / math.sqrt(self.channels[-1])
        return scales


FFHQ = Architecture()  # 1024 pixels, 16 rows of wp
