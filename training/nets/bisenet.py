"""BiSeNet with a ResNet-18 context path: the 19-class face parser, a teacher (docs/parsing.md, section "Teachers").

`BiSeNet(image [N,3,H,W], ImageNet-normalised) -> three class logit maps [N,19,H,W]`, the first of which counts; the
others, from coarser levels, exist for training. `.parse(image)` gives the first alone.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 19
HAIR = 17
BACKBONE = "resnet18"


class ConvNormRelu(nn.Module):
    """conv (no bias) -> batch norm -> ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Refinement(nn.Module):
    """3x3 convolution, its channels weighted by what the whole picture holds."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(inputs, outputs, 3)
        self.gate = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.gate_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate_norm(self.gate(x.mean((2, 3), keepdim=True))))


class Fusion(nn.Module):
    """Detail and context joined; channels strengthened by up to twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(channels, channels, 1)
        self.squeeze = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.expand = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.conv(torch.cat([detail, context], 1))
        gate: Tensor = self.expand(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        out: Tensor = x + x * torch.sigmoid(gate)
        return out


class Output(nn.Module):
    """Class logits at the picture's size."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(inputs, middle, 3)
        self.head = nn.Conv2d(middle, classes, 1, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self.head(self.conv(x)), size=size, mode="bilinear", align_corners=True)


class BiSeNet(nn.Module):
    """Face parser. H and W multiples of 32; the published weights are for 512x512."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.backbone = timm.create_model(BACKBONE, features_only=True, pretrained=False, out_indices=(2, 3, 4))
        self.context = ConvNormRelu(512, 128, 1)
        self.refine16, self.refine32 = Refinement(256, 128), Refinement(512, 128)
        self.head16, self.head32 = ConvNormRelu(128, 128, 3), ConvNormRelu(128, 128, 3)
        self.fusion = Fusion(256)
        self.out, self.out16, self.out32 = Output(256, 256, classes), Output(128, 64, classes), Output(128, 64, classes)

    def levels(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fused features [N,256,H/8,W/8], context at 1/8 and at 1/16, both of 128 channels."""
        x8, x16, x32 = self.backbone(image)
        whole = self.context(x32.mean((2, 3), keepdim=True))
        up32 = self.head32(F.interpolate(self.refine32(x32) + whole, size=x16.shape[-2:], mode="nearest"))
        up16 = self.head16(F.interpolate(self.refine16(x16) + up32, size=x8.shape[-2:], mode="nearest"))
        return self.fusion(x8, up16), up16, up32

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image [N,3,H,W] -> logits [N,classes,H,W]: the result, and the two auxiliary ones."""
        size = (image.shape[-2], image.shape[-1])
        fused, up16, up32 = self.levels(image)
        return self.out(fused, size), self.out16(up16, size), self.out32(up32, size)

    def parse(self, image: Tensor) -> Tensor:
        """image [N,3,H,W], ImageNet-normalised -> class logits [N,classes,H,W]."""
        logits: Tensor = self.out(self.levels(image)[0], (image.shape[-2], image.shape[-1]))
        return logits
