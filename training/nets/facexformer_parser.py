"""FaceXFormer for parsing only, rewritten for speed; the same logits up to rounding.

    parser = ParseGraph(model)          # freezes what is constant; later changes of `model` are not seen
    parser(image) -> class logits [N,11,224,224]

(a) Relative position bias and shift mask of every block are one constant, given to fused attention.
(b) Projection and fusion are linear and enlarging is too, so each stage goes straight from its channels to the fused
    ones at its own size; they are enlarged and added instead of enlarged, stacked and multiplied.
(c) A 2x2 transposed convolution with stride 2 makes four pixels of one: a linear layer. Norm, GELU and the class
    product act on single pixels, so pixels are put in order once, at the end, as 11 logits instead of 32 channels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.training.nets.facexformer import CHANNELS, GRID, WINDOW, FaceXFormer, WindowAttention, enlarge, require_size
from ohlora.training.nets.facexformer import STAGES as TAKEN
from ohlora.training.nets.facexformer_decoder import CLASSES, PARSING, WIDTH

FORBIDDEN = -100.0  # what Swin adds between pixels that the shift brought together from opposite borders


def shift_mask(grid: int, shift: int) -> Tensor:
    """Added to attention inside the windows of a grid x grid picture rolled by `shift`: [windows, 49, 49]."""
    line = torch.zeros(grid, dtype=torch.long)
    line[-WINDOW:], line[-shift:] = 1, 2
    region = line[:, None] * 3 + line
    pixels = windows(region[None, :, :, None]).flatten(1)
    return torch.where(pixels[:, None] == pixels[:, :, None], 0.0, FORBIDDEN)


def windows(x: Tensor) -> Tensor:
    """[N,grid,grid,C] -> [N*windows, 49, C]"""
    x = torch.unflatten(torch.unflatten(x, 1, (-1, WINDOW)), 3, (-1, WINDOW)).transpose(2, 3)
    return x.reshape(-1, WINDOW**2, x.shape[-1])


class Windows(nn.Module):
    """Window attention of one block over [N,grid,grid,C], by fused attention with a constant bias."""

    def __init__(self, attention: WindowAttention, grid: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads
        self.shift = attention.shift_size[0] if grid > WINDOW else 0  # a single window has nowhere to shift
        bias = attention.get_relative_position_bias()
        if self.shift:
            bias = bias + shift_mask(grid, self.shift).to(bias)[:, None]
        self.register_buffer("bias", bias.contiguous())  # [windows or 1, heads, 49, 49]
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        count, grid = x.shape[0], x.shape[1]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = windows(x)
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias.repeat(len(x) // len(self.bias), 1, 1, 1) if 1 < len(self.bias) < len(x) else self.bias
        x = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias)
        x = self.proj(x.transpose(1, 2).flatten(2))
        side = grid // WINDOW
        x = x.view(count, side, side, WINDOW, WINDOW, -1).transpose(2, 3).reshape(count, grid, grid, -1)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class Block(nn.Module):
    """torchvision's Swin block with its attention replaced."""

    def __init__(self, block: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.windows = Windows(block.attn, grid)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.windows(self.norm1(x))
        after: Tensor = x + self.mlp(self.norm2(x))
        return after


class Upscale(nn.Module):
    """Transposed convolution 2x2 with stride 2 as a linear layer: [..., C] -> [..., 4, outputs]."""

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.outputs = conv.out_channels
        self.register_buffer("weight", conv.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous())
        self.register_buffer("bias", conv.bias.repeat(4))  # type: ignore[union-attr]
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(F.linear(x, self.weight, self.bias), -1, (4, self.outputs))


class ParseGraph(nn.Module):
    """See the module's text. Shares the large weights of `model`, which from then on are frozen and move with it."""

    @torch.no_grad()
    def __init__(self, model: FaceXFormer) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        children: list[Any] = list(model.backbone)
        for i, part in enumerate(children):
            grid = GRID >> TAKEN.index(i) if i in TAKEN else 0
            parts.append(nn.Sequential(*(Block(block, grid) for block in part)) if grid else part)
        self.backbone = nn.ModuleList(parts)
        # The coarsest stage comes first in the fusion's input.
        blocks = torch.split(model.fuse.weight[:, :, 0, 0], WIDTH, 1)[::-1]
        self.fused = nn.ModuleList(
            nn.Linear(channels, WIDTH, bias=False, device="meta").to_empty(device="cpu") for channels in CHANNELS
        )
        bias = torch.zeros(WIDTH)
        for linear, block, module in zip(self.fused, blocks, model.projections, strict=True):
            projection = cast(nn.Linear, module)
            linear.load_state_dict({"weight": block @ projection.weight})
            bias += block @ projection.bias
        self.register_buffer("fused_bias", bias)
        self.register_buffer("places", model.places())
        self.fused_bias: Tensor
        self.places: Tensor
        self.decoder = model.decoder
        upscale: list[Any] = list(model.decoder.upscale)
        self.first, self.norm, self.second = Upscale(upscale[0]), upscale[1], Upscale(upscale[3])
        self.eval().requires_grad_(False)

    def features(self, image: Tensor) -> Tensor:
        """image [N,3,224,224] -> [N,3136,256]"""
        x, total = image, self.fused_bias[:, None, None]
        linears = iter(self.fused)
        for i, part in enumerate(self.backbone):
            x = part(x)
            if i in TAKEN:
                total = total + enlarge(next(linears)(x))
        return total.permute(0, 2, 3, 1).flatten(1, 2)

    def masks(self, tokens: Tensor, picture: Tensor) -> Tensor:
        """parsing tokens [N,11,256], picture [N,3136,256] -> class logits [N,11,224,224]"""
        pixels = F.gelu(nn.LayerNorm.forward(self.norm, self.first(picture)))  # channels stand last here
        pixels = F.gelu(self.second(pixels)).flatten(1, 3)  # [N, 3136 * 4 * 4, 32]
        logits: Tensor = self.decoder.heads[PARSING](tokens) @ pixels.transpose(1, 2)
        # Each of the two steps split a pixel into 2x2.
        return (
            logits.view(-1, CLASSES, GRID, GRID, 2, 2, 2, 2)
            .permute(0, 1, 2, 4, 6, 3, 5, 7)
            .reshape(-1, CLASSES, 4 * GRID, 4 * GRID)
        )

    def forward(self, image: Tensor) -> Tensor:
        """image float32 [N,3,224,224], ImageNet-normalised -> class logits [N,11,224,224]."""
        require_size(image)
        tokens, picture = self.decoder.attend(self.features(image), self.places)
        return self.masks(tokens[PARSING], picture)
