"""Stage 0: a mapping network that starts out exactly linear, w = scale * R^T u, and may be taught more.

u are the first latents of the normalised z, the rows of R [latents, w_size] are orthonormal. Nothing has to be fitted:
two leaky layers can pass a number through unchanged, leaky(-a leaky(-a p)) = p for a = sqrt(1 / slope). The first
layer also turns u into w. Editing one latent is then a straight step in w, which training keeps (`readout_loss`).

What a picture shows need not be linear in u: a hue is a circle, a switch a step. `teach` fits the mapping so that w
also holds such known features, in dimensions of their own. Styles are affine in w, so the synthesis then finds at hand
what it would otherwise have to build from scales and leaky steps.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ohlora.errors import InvalidInputError
from ohlora.training.nets.stylegan import Generator, Mapping
from ohlora.training.nets.stylegan_layers import RELU_GAIN, SLOPE, Dense

PASS = math.sqrt(1.0 / SLOPE)
FITTED = 4096  # latents on which a read-out is judged


def readout_matrix(latents: int, w_size: int, seed: int) -> Tensor:
    """[latents, w_size] that reads u from w: u = w @ readout.T; its rows are orthogonal. A row is also the direction of
    its latent in w, times `1 / |row|^2`.
    """
    if latents > w_size:
        raise InvalidInputError(f"{latents} latents do not fit into w with {w_size} numbers: use a larger w_size")
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((w_size, latents)))
    rows = torch.from_numpy((q * np.sign(np.diag(r))).T.astype(np.float32).copy())
    return rows / math.sqrt(w_size / latents)  # gives w mean square 1, as an ordinary mapping does


def dense_layers(mapping: Mapping) -> list[Dense]:
    """The layers of a mapping, first to last."""
    return [cast(Dense, module) for module in mapping.dense]


@torch.no_grad()
def make_linear(mapping: Mapping, readout: Tensor) -> None:
    """Set the weights of `mapping` (an even number of layers, no label, no split) so that w = pinv(readout) u."""
    config = mapping.config
    latents, columns = readout.shape
    if config.mapping_layers % 2 or config.label_width or config.split_size:
        raise InvalidInputError(
            f"a linear mapping needs an even number of mapping_layers, no label and no split branch; "
            f"got {config.mapping_layers} layers, label {config.label_width}, split {config.split_size}"
        )
    if latents > config.z_size or columns != config.w_size:
        raise InvalidInputError(
            f"readout {list(readout.shape)} does not fit z_size {config.z_size}, w_size {config.w_size}"
        )
    first, *others = dense_layers(mapping)
    weight = torch.zeros_like(first.weight)
    weight[:, :latents] = -PASS * torch.linalg.pinv(readout)
    first.weight.copy_(weight / first.weight_gain)
    for layer in others:
        layer.weight.copy_(-PASS * torch.eye(config.w_size) / layer.weight_gain)
    for layer in (first, *others):
        layer.bias.zero_()


def readout_loss(mapping: Mapping, z: Tensor, w: Tensor, readout: Tensor) -> Tensor:
    """Mean squared error of the read-out of w [N, w_size] against the latents of z [N, z_size]; u has variance 1."""
    return F.mse_loss(w.float() @ readout.T, mapping.normalized(z)[:, : len(readout)])


@torch.no_grad()
def readout_fit(generator: Generator, readout: Tensor) -> dict[str, float]:
    """R^2 of the read-out on fresh z, mean and worst over the latents, and the share of w outside the read-out."""
    device = readout.device
    z = torch.randn(FITTED, generator.config.z_size, generator=torch.Generator().manual_seed(0)).to(device)
    w = generator.mapping(z)
    u = generator.mapping.normalized(z)[:, : len(readout)]
    r2 = 1 - (w @ readout.T - u).square().mean(0) / u.var(0)
    inside = (w @ readout.T) @ torch.linalg.pinv(readout).T
    rest = (w - inside).square().sum() / w.square().sum()
    return {"r2_mean": float(r2.mean()), "r2_min": float(r2.min()), "outside_share": float(rest)}


def feature_rows(readout: Tensor, count: int, seed: int) -> Tensor:
    """[count, w_size] that writes features into w beside the read-out: orthogonal to it, as long as its own rows."""
    latents, columns = readout.shape
    if latents + count > columns:
        raise InvalidInputError(f"{latents} latents and {count} features do not fit into w with {columns} numbers")
    normal = torch.from_numpy(np.random.default_rng((seed, 1)).standard_normal((columns, count)).astype(np.float32))
    inside = torch.linalg.qr(readout.T.cpu())[0]
    q, _ = torch.linalg.qr(normal - inside @ (inside.T @ normal))
    rows: Tensor = q.T / readout[0].norm().cpu()
    return rows.to(readout.device)


def _open_up(layers: list[Dense], readout: Tensor, stream: torch.Generator) -> None:
    """The same linear function, but only as many units as latents carry it: the others are free to bend.

    The rotation into w moves to the layer before the last, so that the last two still pass it on unchanged.
    """
    latents = len(readout)
    for i, layer in enumerate(layers[:-1]):
        outputs, inputs = layer.weight.shape
        used = latents if i == 0 else inputs  # further z values do nothing in the picture: they must do nothing in w
        weight = torch.zeros(outputs, inputs)
        if i < len(layers) - 2:
            weight[latents:, :used] = torch.randn(outputs - latents, used, generator=stream) * (RELU_GAIN / used**0.5)
            weight[:latents, :latents] = -PASS * torch.eye(latents)
        else:
            weight[:, :latents] = -PASS * torch.linalg.pinv(readout).cpu()
        layer.weight.copy_(weight.to(layer.weight) / layer.weight_gain)
    layers[-1].weight.copy_((-PASS * torch.eye(len(layers[-1].weight))).to(readout) / layers[-1].weight_gain)
    for layer in layers:
        layer.bias.zero_()


def teach(
    mapping: Mapping,
    readout: Tensor,
    z: Tensor,
    features: Tensor,
    *,
    steps: int = 3000,
    batch_size: int = 512,
    rate: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Fit `mapping`, in place, so that w = pinv(readout) u + features @ rows on z [N, z_size], features [N, F].

    Features are standardised; constant ones are left out. rate: of the folded weights. Returns R^2 of latents and
    features on the last eighth of the samples, which is not trained on.
    """
    spread = features.std(0)
    features = ((features - features.mean(0)) / spread.clamp_min(1e-9))[:, spread > 1e-6]
    rows = feature_rows(readout, features.shape[1], seed)
    latents, held, layers = len(readout), len(z) // 8, dense_layers(mapping)
    with torch.no_grad():
        u = mapping.normalized(z)[:, :latents]
        wanted = u @ torch.linalg.pinv(readout).T + features @ rows
        stream = torch.Generator().manual_seed(seed)
        _open_up(layers, readout, stream)
    rates = {layer.weight: rate / layer.weight_gain for layer in layers}
    rates |= {layer.bias: rate / layer.bias_gain for layer in layers}
    optimizer = torch.optim.Adam([{"params": [p], "lr": r} for p, r in rates.items()], betas=(0.9, 0.99))
    for step in range(steps):
        for group, initial in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = initial * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        chosen = torch.randint(0, len(z) - held, (batch_size,), generator=stream).to(z.device)
        loss = F.mse_loss(mapping(z[chosen]), wanted[chosen])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if (slope := layers[0].weight.grad) is not None:
            slope[:, latents:] = 0.0
        optimizer.step()
    with torch.no_grad():
        error = mapping(z[-held:]) - wanted[-held:]
        scale = readout[0].norm()
        r2 = 1 - (error @ readout.T).square().mean(0) / u[-held:].var(0)
        of_features = 1 - (error @ rows.T * scale**2).square().mean(0) / features[-held:].var(0).clamp_min(1e-6)
    return {
        "r2_latents": float(r2.mean()),
        "r2_features": float(of_features.mean()),
        "r2_features_min": float(of_features.min()),
        "features": float(features.shape[1]),
    }
