"""CNNs that give a face picture scores: four classifiers, the property scores, the hairstyle score (docs/spec/cnn.md).

Every one is the same thing: crops of a 256-pixel picture, plain 3x3 convolutions, one hidden layer. What differs is
data, in the tables below. No normalisation layers, no buffers, PyTorch's default initialisation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.choices import ATTRIBUTES as ATTRIBUTES
from ohlora.training.nets.choices import MAX_WIDTH as MAX_WIDTH
from ohlora.training.nets.stylegan import require_shape

SIZE = 256  # pixels a side of every input
CHANNEL_DROPOUT = 0.05
SLOPE = 0.01
WIDTH_STEPS = 256  # smallest step of a width, see `channels`
POOL = 0  # in a list of layers: halve here

Crop = tuple[int, int, int, int]  # first row, end row, first column, end column


@dataclass(frozen=True)
class Network:
    """One network: crops (each with convolutions of its own), output channels of the convolutions in order, with POOL
    where a 2x2 max-pool stands, size of the hidden layer, its dropout, number of outputs.
    """

    crops: tuple[Crop, ...]
    layers: tuple[int, ...]
    hidden: int
    dropout: float
    outputs: int = 1

    def flat(self, width: float) -> int:
        """Numbers that reach the hidden layer, of all crops together."""
        total = 0
        for top, bottom, left, right in self.crops:
            rows, columns, last = bottom - top, right - left, 3
            for layer in self.layers:
                if layer == POOL:
                    rows, columns = rows // 2, columns // 2
                else:
                    rows, columns, last = rows - 2, columns - 2, channels(layer, width)
            total += rows * columns * last
        return total


WHOLE: Crop = (0, SIZE, 0, SIZE)

# See docs/spec/cnn.md, section 3.
_QUARTER = (32, 64, POOL, 128, POOL, 128, POOL, 256)
CLASSIFIERS: dict[str, Network] = {
    "gender": Network((WHOLE,), (*_QUARTER, POOL, 256, POOL), 512, 0.45),
    "quality": Network(((0, 64, 64, 192),), _QUARTER, 512, 0.45),
    "age": Network(((0, 128, 0, 256),), (*_QUARTER, POOL, 256), 512, 0.45),
    "glass": Network(((80, 128, 64, 192),), _QUARTER, 512, 0.45),
}

# See docs/spec/cnn.md, section 7; in the order of the outputs, the background having two.
_SMALL = (32, 64, POOL, 64, POOL, 128)
_LARGE = (*_SMALL, POOL, 128, POOL, 128)
PROPERTY_PARTS: dict[str, Network] = {
    "eyes": Network(((96, 144, 64, 192),), (*_SMALL, POOL), 256, 0.45),
    "hair_color": Network((WHOLE,), (*_LARGE, POOL), 256, 0.45),
    "hair_length": Network(((128, 256, 0, 256),), _LARGE, 256, 0.45),
    "mouth": Network(((160, 208, 96, 160),), (*_SMALL, POOL), 256, 0.45),
    "pose": Network(((112, 160, 88, 168),), (*_SMALL, 128), 256, 0.45),
    "background": Network(((0, 128, 0, 256),), _LARGE, 256, 0.45, outputs=2),
}

# See docs/spec/cnn.md, section 9: bottom left, then bottom right.
HAIRSTYLE = Network(((128, 256, 0, 96), (128, 256, 160, 256)), (32, 64, POOL, 64, POOL, 96, POOL, 128, 128), 512, 0.25)


def channels(documented: int, width: float) -> int:
    """A layer's size at `width`.

    A width counts in whole 256ths: that is what the hidden layer of a file tells, and a file is all an import has.
    """
    return max(1, round(documented * _steps(width) / WIDTH_STEPS))


def _steps(width: float) -> int:
    return max(1, round(width * WIDTH_STEPS))


def width_of_hidden(size: int, documented: int) -> float:
    """The width at which a hidden layer of `documented` values has `size`."""
    return max(1, round(size * WIDTH_STEPS / documented)) / WIDTH_STEPS


def require_width(name: str, width: float) -> None:
    if not (math.isfinite(width) and 0 < width <= MAX_WIDTH):
        raise InvalidInputError(
            f"{name}.width must be in (0, {MAX_WIDTH:g}], 1 being the documented network, got {width}"
        )


@dataclass(frozen=True)
class ClassifierConfig:
    """attribute: one of ATTRIBUTES. width: scales every layer, 1 as documented."""

    attribute: str
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.attribute not in CLASSIFIERS:
            raise InvalidInputError(f"unknown attribute '{self.attribute}': choose one of {', '.join(ATTRIBUTES)}")
        require_width("ClassifierConfig", self.width)


@dataclass(frozen=True)
class WidthConfig:
    """width: scales every layer, 1 as documented."""

    width: float = 1.0

    def __post_init__(self) -> None:
        require_width(type(self).__name__, self.width)


@dataclass(frozen=True)
class PropertyCnnConfig(WidthConfig):
    """Of the seven scores."""


@dataclass(frozen=True)
class HairstyleCnnConfig(WidthConfig):
    """Of the hairstyle's score."""


@dataclass(frozen=True)
class MergedCnnConfig:
    """Widths of the two networks it is made of."""

    properties: PropertyCnnConfig = PropertyCnnConfig()
    hairstyle: HairstyleCnnConfig = HairstyleCnnConfig()


def at_cnn_size(image: Tensor) -> Tensor:
    """[N,3,R,R] -> [N,3,256,256], see `scaled_to`."""
    return scaled_to(image, SIZE)


def scaled_to(image: Tensor, size: int) -> Tensor:
    """[N,3,R,R] -> [N,3,size,size], bilinear, antialiased when it shrinks; itself at its size. Differentiable."""
    if tuple(image.shape[-2:]) == (size, size):
        return image
    shrinks = max(image.shape[-2:]) > size
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)


class Tower(nn.Module):
    """One crop through its convolutions: [N,3,256,256] -> [N, C*h*w], flattened over channel, row, column."""

    def __init__(self, crop: Crop, layers: Sequence[int], width: float) -> None:
        super().__init__()
        self.crop = crop
        sizes = [3, *(channels(layer, width) for layer in layers if layer != POOL)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(sizes))
        # Whether a pool follows each convolution.
        following = [*layers[1:], -1]
        self.pools = tuple(after == POOL for layer, after in zip(layers, following, strict=True) if layer != POOL)

    def forward(self, image: Tensor) -> Tensor:
        top, bottom, left, right = self.crop
        x = image[:, :, top:bottom, left:right]
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = conv(x)
            # Documented: activation, dropout of whole channels, pool. Both come after the pool here: it commutes with
            # everything that is monotone within a channel, and there are four times fewer values then.
            if pool:
                x = F.max_pool2d(x, 2)
            x = F.dropout2d(F.leaky_relu(x, SLOPE, inplace=True), CHANNEL_DROPOUT, self.training)
        return x.flatten(1)


class CropCnn(nn.Module):
    """Towers, hidden tanh layer, linear output: image [N,3,256,256] -> [N, outputs], unbounded."""

    def __init__(self, network: Network, width: float) -> None:
        super().__init__()
        self.network = network
        self.towers = nn.ModuleList(Tower(crop, network.layers, width) for crop in network.crops)
        self.hidden = nn.Linear(network.flat(width), channels(network.hidden, width))
        self.output = nn.Linear(channels(network.hidden, width), network.outputs)

    def raw(self, image: Tensor) -> Tensor:
        require_shape("image", image, 3, SIZE, SIZE)
        flat = [tower(image) for tower in self.towers]
        hidden = torch.tanh(self.hidden(torch.cat(flat, 1) if len(flat) > 1 else flat[0]))
        scores: Tensor = self.output(F.dropout(hidden, self.network.dropout, self.training))
        return scores

    def forward(self, image: Tensor) -> Tensor:
        return self.raw(image)


class ClassifierCnn(CropCnn):
    """One attribute: image [N,3,256,256] in [0, 1] RGB -> probability [N,1] (docs/spec/cnn.md, section 3).

    1 means woman, good, old, with glasses. Raises InvalidInputError for another shape.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(CLASSIFIERS[config.attribute], config.width)
        self.config = config

    def logits(self, image: Tensor) -> Tensor:
        """The same before the sigmoid [N,1]: for a loss that does not round near 0 and 1."""
        return self.raw(image)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.raw(image))


class PropertyCnn(nn.Module):
    """Seven property scores: image [N,3,256,256] in [-1, 1] RGB -> z-scores [N,7] (docs/spec/cnn.md, section 7).

    Columns: eyes, hair_color, hair_length, mouth, pose, background_mean, background_std.
    """

    def __init__(self, config: PropertyCnnConfig = PropertyCnnConfig()) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleDict({name: CropCnn(part, config.width) for name, part in PROPERTY_PARTS.items()})

    def only(self, image: Tensor, parts: Sequence[str]) -> Tensor:
        """Columns of some `parts`, a name of PROPERTY_PARTS each, in that order; the others are not computed.

        Eyes, mouth and pose together cost a thirteenth of all seven. Raises InvalidInputError for an unknown name.
        """
        unknown = [name for name in parts if name not in PROPERTY_PARTS]
        if unknown:
            raise InvalidInputError(f"no part '{unknown[0]}' in the property CNN: it has {', '.join(PROPERTY_PARTS)}")
        return torch.cat([cast(CropCnn, self.parts[name])(image) for name in parts], 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.only(image, tuple(PROPERTY_PARTS))


class HairstyleCnn(CropCnn):
    """Curliness: image [N,3,256,256] in [-1, 1] RGB -> z-score [N,1], larger = curlier
    (docs/spec/cnn.md, section 9).
    """

    def __init__(self, config: HairstyleCnnConfig = HairstyleCnnConfig()) -> None:
        super().__init__(HAIRSTYLE, config.width)
        self.config = config


class MergedCnn(nn.Module):
    """Both: image [N,3,256,256] in [-1, 1] RGB -> [N,8], hairstyle last
    (docs/spec/cnn.md, section 10). Never trained.
    """

    def __init__(self, properties: PropertyCnn, hairstyle: HairstyleCnn) -> None:
        super().__init__()
        self.config = MergedCnnConfig(properties.config, hairstyle.config)
        self.properties, self.hairstyle = properties, hairstyle

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.properties(image), self.hairstyle(image)], 1)
