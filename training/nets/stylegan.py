"""StyleGAN generator with optional labels (docs/spec/stylegan.md, sections 3 and 7.1).

`generator.mapping(z, label) -> w`, `generator.truncate(w, psi, layers) -> wp`, `generator.synthesis(wp) ->
image`; calling the generator does all three. Every documented generator, and smaller ones of the family, is
one `GeneratorConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan_layers import EPSILON, AdaIN, Conv, Dense, NoiseBias, UpConv, leaky

MAPPING_LR_MUL = 0.01
SPLIT_INIT = 0.15  # raw standard deviation of the second mapping branch, which therefore starts near zero
W_AVG_DECAY = 0.995  # documented for training
CENTERS = 1000  # latents whose mean w a label's truncation pulls to, documented


class Pyramid:
    """What the configurations of generators and discriminators share: blocks from 4 pixels to `resolution`."""

    resolution: int
    channel_base: int
    channel_max: int

    def require_power_of_two(self) -> None:
        size = self.resolution
        if size < 8 or size & (size - 1):
            name = type(self).__name__
            raise InvalidInputError(f"{name}.resolution must be a power of two from 8 on, got {size}")

    @property
    def rising(self) -> tuple[int, ...]:
        """4, 8, ... resolution."""
        return tuple(2**k for k in range(2, self.resolution.bit_length()))

    def channels(self, resolution: int) -> int:
        return min(self.channel_base // resolution, self.channel_max)


@dataclass(frozen=True)
class GeneratorConfig(Pyramid):
    """Shape of one generator.

    resolution: power of two, at least 8. channel_base, channel_max: channels at r pixels = min(base / r,
    max).
    embedding_size: 0 with a label means that the label itself is appended to z.
    split_size: width of the second mapping branch, 0 for none.
    conditional_truncation: pull w towards the mean w of the sample's own label.
    fused_from: first resolution whose kernels are stored unturned (`stylegan_layers.UpConv`).
    mixing: probability of style mixing in the documented training.
    """

    resolution: int = 256
    z_size: int = 512
    w_size: int = 512
    label_size: int = 0
    embedding_size: int = 0
    mapping_layers: int = 8
    split_size: int = 0
    conditional_truncation: bool = False
    channel_base: int = 16384
    channel_max: int = 512
    fused_from: int = 128
    mixing: float = 0.0

    def __post_init__(self) -> None:
        self.require_power_of_two()
        if self.embedding_size and not self.label_size:
            raise InvalidInputError("GeneratorConfig.embedding_size needs a label_size: there is no label to embed")
        if self.split_size and self.mapping_layers < 3:
            raise InvalidInputError(f"a split mapping needs 3 mapping_layers or more, got {self.mapping_layers}")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... resolution: one block each."""
        return self.rising

    @property
    def layers(self) -> int:
        """Number of style layers, two a block."""
        return 2 * len(self.resolutions)

    @property
    def label_width(self) -> int:
        """Numbers that the label adds to the mapping's input."""
        return self.embedding_size or self.label_size


CONFIGS: dict[str, GeneratorConfig] = {
    "original": GeneratorConfig(mixing=0.9),
    "v1": GeneratorConfig(label_size=7, embedding_size=16, mixing=0.9),
    "v3": GeneratorConfig(label_size=7, embedding_size=24),
    "v4": GeneratorConfig(label_size=3, embedding_size=16),
    "v5": GeneratorConfig(label_size=3, conditional_truncation=True),
    "v8": GeneratorConfig(label_size=7, embedding_size=16),
    "v9": GeneratorConfig(label_size=7, embedding_size=16, split_size=2048),
}


def require_shape(name: str, tensor: Tensor, *tail: int) -> None:
    """Raise InvalidInputError unless `tensor` is [N, *tail]."""
    if tuple(tensor.shape[1:]) != tail or tensor.ndim != len(tail) + 1:
        wanted = ", ".join(["N", *map(str, tail)])
        raise InvalidInputError(f"{name} must have shape [{wanted}], got {list(tensor.shape)}")


def with_label(x: Tensor, label: Tensor | None, size: int, network: str, embed: nn.Parameter | None = None) -> Tensor:
    """x [N, C] and the label [N, size], times `embed` where there is one, beside each other.

    Raises InvalidInputError where a label is missing, of another shape, or not asked for.
    """
    if size:
        if label is None:
            raise InvalidInputError(f"this {network} needs a label [N, {size}], got none")
        require_shape("label", label, size)
        return torch.cat([x, label if embed is None else label @ embed], 1)
    if label is not None and label.shape[-1]:
        raise InvalidInputError(f"this {network} takes no label, got one of shape {list(label.shape)}")
    return x


class Mapping(nn.Module):
    """z [N, z_size] and label [N, label_size] -> w [N, w_size]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.z_size + config.label_width
        embedding = torch.randn(config.label_size, config.embedding_size) if config.embedding_size else None
        self.embedding = nn.Parameter(embedding) if embedding is not None else None
        self.dense = nn.ModuleList(
            Dense(width if i == 0 else config.w_size, config.w_size, lr_mul=MAPPING_LR_MUL)
            for i in range(config.mapping_layers)
        )
        self.split = nn.ModuleList()
        if config.split_size:
            for inputs, outputs in ((config.w_size, config.split_size), (config.split_size, config.w_size)):
                layer = Dense(inputs, outputs, lr_mul=MAPPING_LR_MUL)
                nn.init.normal_(layer.weight, std=SPLIT_INIT)
                nn.init.normal_(layer.bias, std=SPLIT_INIT)
                self.split.append(layer)

    def normalized(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The normalised input of the first layer, [N, z_size + label_width]. Raises InvalidInputError on a wrong
        shape.
        """
        require_shape("z", z, self.config.z_size)
        z = with_label(z, label, self.config.label_size, "generator", self.embedding)
        return z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)

    def hidden(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Split mapping only: (w1 [N, w_size], w2 [N, split_size]), the branches before their last layer."""
        if not self.split:
            raise InvalidInputError("this mapping has one branch: only split mappings (v9) have w1 and w2")
        x = self.normalized(z, label)
        for layer in self.dense[:-2]:
            x = layer(x)
        return self.dense[-2](x), self.split[0](x)

    def ends(self, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
        """Last layer of each branch: (w1', w2'), both [N, w_size]; w is their sum."""
        return self.dense[-1](w1), self.split[1](w2)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.split:
            w1, w2 = self.ends(*self.hidden(z, label))
            return w1 + w2
        x = self.normalized(z, label)
        for layer in self.dense:
            x = layer(x)
        return x


class SynthesisLayer(nn.Module):
    """(convolution) -> noise and bias -> leaky ReLU -> AdaIN. The first layer has no convolution."""

    def __init__(self, convolution: nn.Module, channels: int, resolution: int, w_size: int) -> None:
        super().__init__()
        self.conv = convolution
        self.offset = NoiseBias(channels, resolution)
        self.adain = AdaIN(channels, w_size)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        styled: Tensor = self.adain(leaky(self.offset(self.conv(x), noise)), w)
        return styled


class Synthesis(nn.Module):
    """wp [N, layers, w_size] -> image [N, 3, R, R]."""

    lod: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("lod", torch.zeros(()))
        self.const = nn.Parameter(torch.ones(1, config.channels(4), 4, 4))
        self.layers = nn.ModuleList()
        # Only the last is used at level 0; the others exist for growing and because published files have
        # them.
        self.to_rgb = nn.ModuleList()
        inputs = 0
        for r in config.resolutions:
            outputs = config.channels(r)
            first: nn.Module = nn.Identity()
            if inputs:
                first = UpConv(inputs, outputs, flipped=r < config.fused_from)
            second = Conv(outputs, outputs, bias=False)
            for convolution in (first, second):
                self.layers.append(SynthesisLayer(convolution, outputs, r, config.w_size))
            self.to_rgb.append(Conv(outputs, 3, 1, gain=1.0))
            inputs = outputs

    def forward(
        self,
        wp: Tensor,
        *,
        lod: float | None = None,
        random_noise: bool = False,
        noise: Sequence[Tensor] | None = None,
        share: Tensor | None = None,
    ) -> Tensor:
        """Image [N,3,R,R], nominally in [-1, 1] but not clipped.

        lod: level of detail of progressive growing (docs/spec/stylegan.md, section 2.8), 0 is the full network; None
            takes the stored one, which costs a device synchronisation. random_noise: fresh noise instead of the stored
            maps; noise: maps [N,1,r,r] that were drawn outside, one a layer. share: with a level between two whole
            ones, the weight of the finer of them (1 - level above 0); as a tensor, one that moves needs no new graph.
        """
        last = len(self.to_rgb) - 1
        require_shape("wp", wp, len(self.layers), self.config.w_size)
        level = float(self.lod) if lod is None else lod
        if not 0 <= level <= last:
            raise InvalidInputError(f"lod must be in [0, {last}] for {self.config.resolution} pixels, got {level:g}")
        x = image = self.const.expand(wp.shape[0], -1, -1, -1)
        for k, resolution in enumerate(self.config.resolutions):
            coarser = last - k  # this block draws alone at level `coarser`, fades out until coarser + 1
            if level < coarser + 1:
                for index in (2 * k, 2 * k + 1):
                    drawn = noise[index] if noise is not None else None
                    if random_noise:
                        drawn = torch.randn(wp.shape[0], 1, resolution, resolution, device=wp.device).to(wp)
                    x = self.layers[index](x, wp[:, index], drawn)
            if coarser - 1 < level <= coarser:  # of some block
                image = self.to_rgb[k](x)
            elif level > coarser:
                doubled = F.interpolate(image, scale_factor=2, mode="nearest")
                if coarser < level < coarser + 1:
                    fresh = self.to_rgb[k](x)
                    weight = math.ceil(level) - level if share is None else share.to(fresh.dtype)
                    doubled = torch.lerp(doubled, fresh, weight)
                image = doubled
        return image


class Generator(nn.Module):
    """Mapping, truncation and synthesis. `w_avg` [w_size] is the mean w that truncation pulls to."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)
        self.register_buffer("w_avg", torch.zeros(config.w_size))

    def truncate(self, w: Tensor, psi: float = 1.0, layers: int = 0) -> Tensor:
        """w [N, w_size] or [N, L, w_size] -> wp [N, L, w_size]; the first `layers` layers move to w_avg.

        w' = w_avg + (w - w_avg) * psi. psi >= 1 or layers = 0 (the default) changes nothing
        (docs/spec/stylegan.md, section 2.4).
        """
        wp = self.broadcast(w)
        if psi >= 1.0 or layers == 0:
            return wp
        if not 0 < layers <= self.config.layers:
            raise InvalidInputError(f"truncation layers must be in [0, {self.config.layers}], got {layers}")
        return torch.cat([torch.lerp(self.w_avg, wp[:, :layers], psi), wp[:, layers:]], 1)

    def broadcast(self, w: Tensor) -> Tensor:
        """One w per sample becomes the same w for every layer; wp is passed through."""
        if w.ndim == 3:
            require_shape("wp", w, self.config.layers, self.config.w_size)
            return w
        require_shape("w", w, self.config.w_size)
        return w[:, None].expand(-1, self.config.layers, -1)

    def draw(self, wp: Tensor) -> Tensor:
        """wp [N, L, w_size] -> image [N, 3, R, R] at its full level of detail."""
        image: Tensor = self.synthesis(wp, lod=0.0)
        return image

    def label_average(self, label: Tensor, centers: Tensor | None = None) -> Tensor:
        """Mean w of `centers` [K, z_size] (or CENTERS fresh latents per label) under each label -> [N, w_size]."""
        means = []
        for row in label:
            drawn = torch.randn(CENTERS, self.config.z_size, device=label.device) if centers is None else centers
            means.append(self.mapping(drawn.to(label), row.expand(len(drawn), -1)).mean(0))
        return torch.stack(means)

    def truncate_conditional(self, w: Tensor, label: Tensor, psi: float = 0.5, centers: Tensor | None = None) -> Tensor:
        """v5: pull every layer towards the mean w of the sample's own label -> wp (docs/spec/stylegan.md, section 9.5).

        w [N, w_size] or wp, label [N, label_size]. The published files hold the last batch's means in place of
        w_avg; here they are never stored.
        """
        wp = self.broadcast(w)
        if psi >= 1.0:
            return wp
        return torch.lerp(self.broadcast(self.label_average(label, centers)), wp, psi)

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, decay: float = W_AVG_DECAY) -> None:
        """w_avg <- w_avg * decay + mean(w) * (1 - decay), outside the autograd graph."""
        self.w_avg.copy_(torch.lerp(w.mean(0), self.w_avg, decay))

    def mix(self, w: Tensor, other: Tensor, cut: int) -> Tensor:
        """Style mixing: layers before `cut` take w, the others `other` (both [N, w_size]) -> wp."""
        index = torch.arange(self.config.layers, device=w.device)[None, :, None]
        return torch.where(index < cut, self.broadcast(w), self.broadcast(other))

    def training_latents(
        self,
        z: Tensor,
        label: Tensor | None = None,
        *,
        w_avg_decay: float = W_AVG_DECAY,
        mixing: float = 0.0,
        lod: float = 0.0,
    ) -> Tensor:
        """The training-time mapping: w_avg update (decay < 1), then style mixing with probability `mixing` ->
        wp.

        Mixing draws one second latent per sample, and one cut for the batch; the label stays the same.
        """
        w = self.mapping(z, label)
        if w_avg_decay < 1.0:
            self.update_w_avg(w, w_avg_decay)
        if mixing <= 0.0 or float(torch.rand(())) >= mixing:
            return self.broadcast(w)
        other = self.mapping(torch.randn(z.shape, device=z.device).to(z), label)
        top = self.config.layers - 2 * int(lod)
        return self.mix(w, other, int(torch.randint(1, top, ())) if top > 1 else 1)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        *,
        psi: float = 1.0,
        layers: int = 0,
        lod: float | None = None,
    ) -> Tensor:
        """z [N, z_size], label [N, label_size] or None -> image [N, 3, R, R].

        The documented way to make pictures: stored noise, and nothing is random in any mode. (The published code left
        its generators in train mode while sampling and thereby mixed styles unasked: docs/spec/stylegan.md,
        section 13, P1.) A generator with `conditional_truncation` truncates all layers and ignores `layers`.
        """
        w = self.mapping(z, label)
        if self.config.conditional_truncation and label is not None:
            wp = self.truncate_conditional(w, label, psi)
        else:
            wp = self.truncate(w, psi, layers)
        image: Tensor = self.synthesis(wp, lod=lod)
        return image
