"""FaceXFormer: a Swin-B that answers eight questions about a face, a teacher for its parsing
(docs/spec/segmentation.md, section 3; Narayan et al., "FaceXFormer: A Unified Transformer for Facial Analysis").

`FaceXFormer(image [N,3,224,224], ImageNet-normalised) -> {"parsing": class logits [N,11,224,224], "landmarks" ...}`;
`.parse(image)` computes the logits and nothing else.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention, SwinTransformer
from torchvision.models.swin_transformer import SwinTransformerBlock as SwinBlock

from ohlora.training.nets.facexformer_decoder import WIDTH, FaceDecoder

SIZE = 224
GRID = SIZE // 4  # the finest stage, where everything is brought together
WINDOW = 7
DEPTHS, HEADS = (2, 2, 18, 2), (4, 8, 16, 32)
CHANNELS = (128, 256, 512, 1024)
STAGES = (1, 3, 5, 7)  # parts of the backbone whose outputs are used; between them the picture is halved


@functools.cache
def position_index() -> Tensor:
    """Row of the bias table for each pair of pixels of a window, int64 [49*49]."""
    line = torch.arange(WINDOW, device="cpu")
    row, column = torch.meshgrid(line, line, indexing="ij")
    rows, columns = ((x.flatten()[:, None] - x.flatten()[None] + WINDOW - 1) for x in (row, column))
    return (rows * (2 * WINDOW - 1) + columns).flatten()


class WindowAttention(ShiftedWindowAttention):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, with the index table as a constant: it is the same in every block."""

    def define_relative_position_index(self) -> None:
        pass

    def get_relative_position_bias(self) -> Tensor:
        """[1, heads, 49, 49]"""
        index = position_index().to(self.relative_position_bias_table.device)
        bias = torch.unflatten(self.relative_position_bias_table[index], 0, (WINDOW**2, WINDOW**2))
        return bias.permute(2, 0, 1)[None]


def swin_b() -> nn.Sequential:
    """Patch embedding, four stages of blocks, three mergings between them. [N,3,H,W] -> channels last."""
    whole = SwinTransformer(
        patch_size=[4, 4],
        embed_dim=CHANNELS[0],
        depths=list(DEPTHS),
        num_heads=list(HEADS),
        window_size=[WINDOW, WINDOW],
        stochastic_depth_prob=0.0,
        num_classes=1,
        block=functools.partial(SwinBlock, attn_layer=WindowAttention),
        downsample_layer=PatchMerging,
    )
    features: nn.Sequential = whole.features
    return features


class PlaceEncoding(nn.Module):
    """Random Fourier features of pixel positions; the matrix is drawn once, when the network is first trained."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(2, WIDTH // 2))
        self.matrix: Tensor

    def forward(self) -> Tensor:
        """[GRID*GRID, 256]"""
        line = (torch.arange(GRID, device=self.matrix.device, dtype=torch.float32) + 0.5) / GRID * 2 - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        angle = 2 * math.pi * (torch.stack([x, y], -1).flatten(0, 1) @ self.matrix)
        return torch.cat([angle.sin(), angle.cos()], -1)


class FaceXFormer(nn.Module):
    """The whole network. Its first weights are random: nothing is downloaded."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = swin_b()
        self.projections = nn.ModuleList(nn.Linear(channels, WIDTH) for channels in CHANNELS)
        self.fuse = nn.Conv2d(WIDTH * len(CHANNELS), WIDTH, 1, bias=False)
        self.places = PlaceEncoding()
        self.decoder = FaceDecoder()

    def stages(self, image: Tensor) -> list[Tensor]:
        """image [N,3,224,224] -> [N,56,56,128], [N,28,28,256], [N,14,14,512], [N,7,7,1024]"""
        require_size(image)
        x, taken = image, []
        for i, part in enumerate(self.backbone):
            x = part(x)
            if i in STAGES:
                taken.append(x)
        return taken

    def features(self, image: Tensor) -> Tensor:
        """image [N,3,224,224] -> what the decoder looks at, [N,3136,256]"""
        levels = [
            enlarge(projection(stage)) for projection, stage in zip(self.projections, self.stages(image), strict=True)
        ]
        fused: Tensor = self.fuse(torch.cat(levels[::-1], 1))  # the coarsest stage comes first
        return fused.flatten(2).transpose(1, 2)

    def parse(self, image: Tensor) -> Tensor:
        """image float32 [N,3,224,224], ImageNet-normalised -> class logits [N,11,224,224]."""
        return self.decoder.parse(self.features(image), self.places())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image as for `parse` -> answers: parsing [N,11,224,224], landmarks [N,136], pose [N,3], attributes [N,40],
        visibility [N,29], age [N,8], gender [N,2], race [N,5]; all without a final activation.
        """
        answers: dict[str, Tensor] = self.decoder(self.features(image), self.places())
        return answers


def enlarge(x: Tensor) -> Tensor:
    """[N,h,w,C] -> [N,C,GRID,GRID], bilinear between pixel centres."""
    x = x.permute(0, 3, 1, 2)
    return x if x.shape[-1] == GRID else F.interpolate(x, (GRID, GRID), mode="bilinear", align_corners=False)


def require_size(image: Tensor) -> None:
    """Raises ValueError for anything but [N,3,224,224]: the places and windows are made for that."""
    if image.ndim != 4 or tuple(image.shape[1:]) != (3, SIZE, SIZE):
        raise ValueError(f"FaceXFormer takes [N,3,{SIZE},{SIZE}], got {list(image.shape)}: resize the picture first")


def empty_network() -> FaceXFormer:
    """The network with unset weights, for an importer: nothing is drawn, so it is there in a moment."""
    with torch.device("meta"):
        network = FaceXFormer()
    return network.to_empty(device="cpu")
