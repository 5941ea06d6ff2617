"""Losses of the generator's training (docs/spec/stylegan.md, section 8), and the features they compare."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER
from ohlora.training.weights.student import imagenet_encoder_state

STRIDES = (2, 4, 8, 16)
LEVELS = 4  # of the pyramid


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating: mean softplus(-D(G(z))); fake are raw scores [N,1]."""
    return F.softplus(-fake.float()).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean softplus(D(G(z))) + mean softplus(-D(x))."""
    return F.softplus(fake.float()).mean() + F.softplus(-real.float()).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """R1: the mean over the batch of |d sum(scores) / d image|^2, without gamma / 2. `images` need requires_grad."""
    (gradient,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def lazy_weight(gamma: float, every: int) -> float:
    """Weight of `gradient_penalty` when it is applied at every `every`-th step only: the mean pull stays the same."""
    return gamma / 2 * every


def pyramid_l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean of the L1 distances at full size, 1/2, 1/4, ...; the coarse ones pull places and colours right first."""
    total, count = torch.zeros((), device=image.device), 0
    difference = image.float() - target.float()
    while True:
        total, count = total + difference.abs().mean(), count + 1
        if count == LEVELS or difference.shape[-1] < 8:
            return total / count
        difference = F.avg_pool2d(difference, 2)


class FeatureNet(nn.Module):
    """Frozen ImageNet EfficientNet-Lite0. image [N,3,R,R] in [-1,1] -> maps at STRIDES[:stages], then pooled features.

    Comes with a package of the train extra: nothing is downloaded. Raises CheckpointError when that is missing.
    """

    def __init__(self, stages: int = len(STRIDES)) -> None:
        super().__init__()
        if not 1 <= stages <= 5:
            raise InvalidInputError(f"FeatureNet has 1 to 5 stages, got {stages}")
        net = timm.create_model(SHIPPED_ENCODER, features_only=True, pretrained=False, out_indices=(0, 1, 2, 3, 4))
        net.load_state_dict(imagenet_encoder_state(SHIPPED_ENCODER, net))
        _fold_norms(net.eval())
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = stages
        # A feature level ends with the last block before the next halving: block 0, 1, 2, 4, 6.
        self.ends = tuple(info["stage"] for info in net.feature_info.info)[:stages]
        self.blocks = nn.ModuleList(net.blocks[: self.ends[-1]])
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureNet:
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        maps = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        return maps


def _fold_norms(net: nn.Module) -> None:
    """Fold every batch norm of a frozen network into the convolution before it; its activation stays."""
    previous: nn.Conv2d | None = None
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d):
            previous = module
        elif isinstance(module, nn.BatchNorm2d):
            mean, variance = module.running_mean, module.running_var
            if previous is None or mean is None or variance is None:
                raise ValueError("a batch norm of the feature network follows no convolution, or keeps no statistics")
            scale = module.weight.detach() * torch.rsqrt(variance + module.eps)
            previous.weight.data.mul_(scale[:, None, None, None])
            previous.bias = nn.Parameter(module.bias.detach() - mean * scale)
            module.forward = getattr(module, "act", nn.Identity()).forward  # type: ignore[method-assign]
            previous = None


def unit(features: Tensor) -> Tensor:
    """Every position's feature vector at length 1, float32."""
    wide = features.float()
    return wide * torch.rsqrt(wide.square().sum(1, keepdim=True) + 1e-6)


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Mean over the levels of the squared distance of unit feature vectors, averaged over places; 0 .. 4."""
    distances = [(unit(a) - unit(b)).square().sum(1).mean() for a, b in zip(first, second, strict=True)]
    return torch.stack(distances).mean()
