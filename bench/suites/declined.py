"""Rewrites that are exact and not made, since they gain nothing or lose; `rewrite_cases` measures them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.export.rewrites.generator import synthesis_layers
from ohlora.export.rewrites.student import InferenceDecoder, InferenceStudent
from ohlora.training.nets.stylegan import Generator


class BatchedStyles(nn.Module):
    """Style affines of equal size as one batched product: the grouping that is not made."""

    def __init__(self, rewritten: Generator) -> None:
        super().__init__()
        copied = copy.deepcopy(rewritten)
        self.synthesis = copied.synthesis
        affines = [layer.adain.affine for layer in synthesis_layers(copied)]
        groups: dict[int, list[int]] = {}
        for index, affine in enumerate(affines):
            groups.setdefault(affine.weight.shape[0], []).append(index)
        self.groups = list(groups.values())
        for number, members in enumerate(self.groups):
            weights = torch.stack([affines[index].weight.detach().T for index in members])
            self.register_buffer(f"weight{number}", weights.contiguous())
            self.register_buffer(
                f"bias{number}", torch.stack([affines[index].bias.detach() for index in members])[:, None]
            )
        for layer in synthesis_layers(copied):
            layer.adain.affine = nn.Identity()  # type: ignore[assignment] # it is given styles now

    def forward(self, wp: Tensor) -> Tensor:
        styles: dict[int, Tensor] = {}
        for number, members in enumerate(self.groups):
            made = wp[:, members].transpose(0, 1) @ getattr(self, f"weight{number}") + getattr(self, f"bias{number}")
            styles |= dict(zip(members, made.unbind(0), strict=True))
        x: Tensor = self.synthesis.const
        for index, layer in enumerate(self.synthesis.layers):
            x = layer(x, styles[index])
        image: Tensor = self.synthesis.to_rgb[-1](x)
        return image


def phase_weights(weight: Tensor) -> Tensor:
    """Depthwise 3x3 over a nearest-doubled map -> four 3x3 kernels per channel over the small map.

    Output row 2i+a of the doubled map sees small rows i-1, i, i for a = 0 and i, i, i+1 for a = 1; columns alike.
    weight [C,1,3,3] -> [4C,1,3,3], ordered for pixel shuffle.
    """
    gather = torch.zeros(2, 3, 3, dtype=torch.float64)  # [phase, small row, tap]
    gather[0, 0, 0] = gather[0, 1, 1] = gather[0, 1, 2] = 1
    gather[1, 1, 0] = gather[1, 1, 1] = gather[1, 2, 2] = 1
    phases = torch.einsum("ast,bur,ctr->cabsu", gather, gather, weight[:, 0].double())
    return phases.reshape(-1, 1, 3, 3)


class PhaseDecoder(InferenceDecoder):
    """The student's decoder without a convolution over the doubled map."""

    phases: nn.Conv2d

    @torch.no_grad()
    def store_phases(self) -> None:
        kind, channels = self.cheap.weight.dtype, self.cheap.in_channels
        self.phases = nn.Conv2d(channels, 4 * channels, 3, padding=1, groups=channels, bias=False, dtype=kind)
        self.phases.weight.copy_(phase_weights(self.cheap.weight))

    def doubled(self, half: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(self.phases(half)), 2)


def phase_kernels(student: InferenceStudent) -> InferenceStudent:
    """The depthwise 3x3 over the doubled map as four kernels over the small map
    (docs/spec/segmentation.md, section 5, rewrite (d)).
    """
    result = copy.deepcopy(student)
    result.decoder.__class__ = PhaseDecoder
    result.decoder.store_phases()  # type: ignore[operator, unused-ignore]
    return result
