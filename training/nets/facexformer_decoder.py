"""FaceXFormer's decoder: tokens read the picture and write into it, a small network per question answers.

Two-way attention as in Segment Anything (docs/spec/segmentation.md, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 256
CROSS_WIDTH = 128  # attention between tokens and picture runs at half the width
HEADS = 8
MLP_WIDTH = 2048
LAYERS = 2
CLASSES = 11
MASK_WIDTH = 32
NORM_EPS = 1e-6  # of the upscaling alone; the layer norms have PyTorch's 1e-5

PARSING = "parsing"
# Question -> size of its answer, in the order of the tokens; parsing has one token a class.
ANSWERS = {
    "landmarks": 136,
    "pose": 3,
    "attributes": 40,
    "visibility": 29,
    "age": 8,
    "gender": 2,
    "race": 5,
    PARSING: MASK_WIDTH,
}


class Attention(nn.Module):
    """Multi-head attention whose inside may be narrower than its outside."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, inner) for _ in range(3))
        self.out = nn.Linear(inner, WIDTH)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [N,Q,256], key and value [N,K,256] -> [N,Q,256]"""
        q, k, v = (split_heads(x) for x in (self.query(query), self.key(key), self.value(value)))
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def split_heads(x: Tensor) -> Tensor:
    """[N,L,C] -> [N,HEADS,L,C/HEADS]"""
    return torch.unflatten(x, 2, (HEADS, -1)).transpose(1, 2)


class TwoWayLayer(nn.Module):
    """Tokens look at each other, read the picture, think, and write into the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.among = Attention(WIDTH)
        self.read = Attention(CROSS_WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, WIDTH))
        self.write = Attention(CROSS_WIDTH)
        self.among_norm, self.read_norm, self.mlp_norm, self.write_norm = (nn.LayerNorm(WIDTH) for _ in range(4))

    def forward(
        self, tokens: Tensor, picture: Tensor, start: Tensor, places: Tensor, first: bool
    ) -> tuple[Tensor, Tensor]:
        """tokens [N,18,256], picture [N,3136,256] -> both, renewed.

        start: the initial tokens, which tell them apart all the way. places: positional encoding of the picture.
        first: the tokens are `start` itself, so self-attention replaces them instead of being added.
        """
        if first:
            tokens = self.among(tokens, tokens, tokens)
        else:
            marked = tokens + start
            tokens = tokens + self.among(marked, marked, tokens)
        tokens = self.among_norm(tokens)
        placed = picture + places
        tokens = self.read_norm(tokens + self.read(tokens + start, placed, picture))
        tokens = self.mlp_norm(tokens + self.mlp(tokens))
        picture = self.write_norm(picture + self.write(placed, tokens + start, tokens))
        return tokens, picture


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [N,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def answer_head(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
    )


class FaceDecoder(nn.Module):
    """Picture features and their places -> answers of all heads, or of the parsing head alone."""

    def __init__(self) -> None:
        super().__init__()
        counts = {name: CLASSES if name == PARSING else 1 for name in ANSWERS}
        self.tokens = nn.ParameterDict({name: torch.randn(count, WIDTH) for name, count in counts.items()})
        self.layers = nn.ModuleList(TwoWayLayer() for _ in range(LAYERS))
        self.final_read = Attention(CROSS_WIDTH)
        self.final_norm = nn.LayerNorm(WIDTH)
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, 64, 2, stride=2),
            ChannelNorm(64, eps=NORM_EPS),
            nn.GELU(),
            nn.ConvTranspose2d(64, MASK_WIDTH, 2, stride=2),
            nn.GELU(),
        )
        self.heads = nn.ModuleDict({name: answer_head(size) for name, size in ANSWERS.items()})

    def attend(self, picture: Tensor, places: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """picture [N,L,256], places [L,256] -> token(s) of each question [N,count,256], renewed picture [N,L,256]."""
        start = torch.cat([self.tokens[name] for name in ANSWERS]).expand(len(picture), -1, -1)
        tokens = start
        for i, layer in enumerate(self.layers):
            tokens, picture = layer(tokens, picture, start, places, first=i == 0)
        tokens = self.final_norm(tokens + self.final_read(tokens + start, picture + places, picture))
        counts = [len(self.tokens[name]) for name in ANSWERS]
        return dict(zip(ANSWERS, tokens.split(counts, 1), strict=True)), picture

    def masks(self, tokens: Tensor, picture: Tensor) -> Tensor:
        """parsing tokens [N,11,256], picture [N,S*S,256] -> class logits [N,11,4S,4S]"""
        side = round(picture.shape[1] ** 0.5)
        pixels: Tensor = self.upscale(torch.unflatten(picture.transpose(1, 2), 2, (side, side)))
        return torch.unflatten(self.heads[PARSING](tokens) @ pixels.flatten(2), 2, pixels.shape[2:])

    def parse(self, picture: Tensor, places: Tensor) -> Tensor:
        """Class logits alone."""
        tokens, picture = self.attend(picture, places)
        return self.masks(tokens[PARSING], picture)

    def forward(self, picture: Tensor, places: Tensor) -> dict[str, Tensor]:
        """Answers by question: parsing [N,11,4S,4S], the others [N,size]."""
        tokens, picture = self.attend(picture, places)
        answers = {name: self.heads[name](tokens[name][:, 0]) for name in ANSWERS if name != PARSING}
        return {PARSING: self.masks(tokens[PARSING], picture), **answers}
