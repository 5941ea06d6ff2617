"""FaceXFormer's parsing path alone, for export: `ParseGraph` with everything gone that no class depends on.

(a) The other seven heads are gone, and the upscaling that `ParseGraph` stores as linear layers.
(b) The first layer's tokens look at each other before they have seen a picture: the result is a constant.
(c) The last attention and norm act on each token alone: only the parsing tokens go through them.
(d) The windows' bias is broadcast over the pictures of a batch; repeating it would fix the batch size of a graph.

The other questions' tokens stay until then: all tokens attend to each other, so the classes depend on them.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ohlora.training.nets.facexformer import WINDOW, FaceXFormer, require_size
from ohlora.training.nets.facexformer_decoder import ANSWERS, CLASSES, PARSING, TwoWayLayer
from ohlora.training.nets.facexformer_parser import Block, ParseGraph, Windows

MASKS = slice(len(ANSWERS) - 1, len(ANSWERS) - 1 + CLASSES)  # the parsing tokens come last, the others are one each


class BroadcastWindows(Windows):
    """`Windows` for any batch size."""

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[1]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = torch.unflatten(torch.unflatten(x, 1, (-1, WINDOW)), 3, (-1, WINDOW)).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)  # [N, windows, 49, C]
        query, key, value = torch.unflatten(self.qkv(x), 3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # Written out: the exporter knows fused attention in four dimensions only, here are five.
        near = query * query.shape[-1] ** -0.5 @ key.transpose(3, 4) + self.bias  # [N, windows, heads, 49, 49]
        x = self.proj((near.softmax(-1) @ value).transpose(2, 3).flatten(3))
        side = grid // WINDOW
        x = torch.unflatten(torch.unflatten(x, 1, (side, side)), 3, (WINDOW, WINDOW))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class ConstantAttention(nn.Module):
    """Attention whose result has been computed, whatever it is asked."""

    result: Tensor

    def __init__(self, result: Tensor) -> None:
        super().__init__()
        self.register_buffer("result", result)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.result.expand_as(query)


class ParsePath(ParseGraph):
    """See the module's text. Holds weights of its own; `model` is left as it is."""

    start: Tensor

    @torch.no_grad()
    def __init__(self, model: FaceXFormer) -> None:
        super().__init__(copy.deepcopy(model))
        decoder = self.decoder
        start = torch.cat([decoder.tokens[name] for name in ANSWERS])[None]
        self.register_buffer("start", start)
        first = cast(TwoWayLayer, decoder.layers[0])
        first.among = ConstantAttention(first.among(start, start, start))  # type: ignore[assignment]
        decoder.tokens = nn.ParameterDict()
        decoder.heads = nn.ModuleDict({PARSING: decoder.heads[PARSING]})
        decoder.upscale = nn.Sequential()
        for module in self.modules():
            if isinstance(module, Block):
                module.windows.__class__ = BroadcastWindows
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """image float32 [N,3,224,224], ImageNet-normalised -> class logits [N,11,224,224]."""
        require_size(image)
        picture = self.features(image)
        start = self.start.expand(picture.shape[0], -1, -1)
        tokens = start
        layers: list[Any] = list(self.decoder.layers)
        for i, layer in enumerate(layers):
            tokens, picture = layer(tokens, picture, start, self.places, first=i == 0)
        tokens = tokens[:, MASKS]
        read = self.decoder.final_read(tokens + start[:, MASKS], picture + self.places, picture)
        return self.masks(self.decoder.final_norm(tokens + read), picture)


def parse_only(module: FaceXFormer) -> ParsePath:
    """Heads of the other seven questions are gone; window biases, projections with fusion and the tokens' first
    attention are constants; upscaling is linear per pixel.
    """
    return ParsePath(module)
