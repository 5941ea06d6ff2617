"""The generator of a bundle as a trainable module: for those who have the bundle only, not its checkpoint.

A bundle's networks hold folded weights (`ohlora.export.rewrites.generator`). The folds can be undone up to equality of
the function, which is what training needs to start from:

- gains of the equalised learning rate: divided out again;
- noise plane: one noise map, strengths and biases. float16 files have these; of a float32 file's plane they are the
  rank-one part, the map scaled to mean 0 and mean square 1. Layers without noise get a map drawn from a fixed seed;
- the precomputed start: a constant whose activation has the same normalised values; noise strength and bias of that
  layer, which only mattered through it, are 0;
- doubling kernels: the 3x3 kernel by least squares, exact up to rounding.

What no picture depends on is not in a bundle: the ToRGB layers of the coarser resolutions are zeros here, so growing
from a lower level of detail is not possible from a bundle.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.bundle import Bundle
from ohlora.bundle.photo.install import KIND as PHOTOGRAPHIC_KIND
from ohlora.errors import BundleError, InvalidInputError
from ohlora.training.checkpoints import KINDS
from ohlora.training.nets.families import AnyGenerator, require_stylegan
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import CONFIGS, Generator, GeneratorConfig, SynthesisLayer
from ohlora.training.nets.stylegan_layers import EPSILON, SLOPE, Conv, Dense, NoiseBias, UpConv
from ohlora.training.unbundle.generator_graph import (
    Array,
    DenseWeights,
    MappingWeights,
    Offset,
    SynthesisWeights,
    read_mapping,
    read_synthesis,
)
from ohlora.training.unbundle.photographic import photographic_from_graphs

NOISE_SEED = 7  # of the maps that no file holds
CHECK_SEED, CHECKED = 5, 3  # latents on which module and engine must agree
CHECK_LEVELS, CHECK_SHARE = 1, 1e-3  # grey levels; share of the values that may differ by more
EXACT, ROUNDED = 1e-5, 2.0**-8  # largest residual of an inverted fold, of float32 and float16 values
# Row i of a 3-tap line adds to taps i and i + 1 of the 4-tap one it is widened to.
BAND = np.array([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])


def generator_from_bundle(bundle: str | Path) -> Generator:
    """`unbundled`, for what needs StyleGAN's layout. Raises InvalidInputError for a generator of another family."""
    opened = Bundle.open(bundle)
    return require_stylegan(unbundled(opened), f"the generator of bundle '{opened.name}'")


def unbundled(bundle: str | Path | Bundle) -> AnyGenerator:
    """The generator of a bundle (folder, or 'demo') as a trainable module on the CPU, float32, in evaluation mode.

    It makes the bundle's pictures: checked here against the bundle's own engine on seeded latents with a different w in
    every layer, to one grey level on 99.9 % of the values.
    Raises BundleError for a bundle without a generator, one that another program exported (naming the node), or when
    the pictures differ.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    part = opened.generator_part()
    if part.kind == PHOTOGRAPHIC_KIND:
        photographic = photographic_from_graphs(opened)
        _check(photographic, opened)
        return photographic
    version = KINDS[part.kind].version if part.kind in KINDS else None
    module = generator_from_graphs(
        opened.file(part.mapping).read_bytes(),
        opened.file(part.synthesis).read_bytes(),
        opened.w_avg(),
        like=CONFIGS[version] if version else None,
    )
    _check(module, opened)
    return module


def generator_from_graphs(
    mapping: bytes, synthesis: bytes, w_avg: NDArray[np.float32], *, like: GeneratorConfig | None = None
) -> Generator:
    """The module that the contents of mapping.onnx and synthesis.onnx were exported from, up to function equality.

    like: the configuration, where it is known; the shapes must agree. Without one, what the graphs cannot say is as in
    a plain `GeneratorConfig`. Raises BundleError.
    """
    first, second = read_mapping(mapping), read_synthesis(synthesis)
    config = _config(first, second)
    if like is not None:
        shape = dataclasses.replace(
            config,
            **{name: getattr(like, name) for name in ("conditional_truncation", "fused_from", "mixing")},
        )
        # Channel counts decide, not the two numbers they follow from.
        same = dataclasses.replace(shape, channel_base=like.channel_base, channel_max=like.channel_max)
        if same != like or any(like.channels(r) != config.channels(r) for r in config.resolutions):
            raise BundleError(f"the bundle names a generator like {like}, its networks are {config}: build it again")
        config = like
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = Generator(config).eval()
        _fill_mapping(module, first)
        _fill_synthesis(module, second)
        if w_avg.shape != (config.w_size,):
            raise BundleError(f"w_avg has {w_avg.size} numbers, the mapping network gives {config.w_size}")
        module.w_avg.copy_(torch.from_numpy(w_avg.astype(np.float32)))
    return module


def _config(mapping: MappingWeights, synthesis: SynthesisWeights) -> GeneratorConfig:
    w_size = mapping.dense[-1].weight.shape[0]
    counts = {2 ** (2 + i // 2): layer.affine.weight.shape[0] // 2 for i, layer in enumerate(synthesis.layers)}
    # channels(r) = min(base // r, max): the smallest base that allows every count.
    base = max(r * count for r, count in counts.items())
    try:
        config = GeneratorConfig(
            resolution=max(counts),
            z_size=mapping.z_size,
            w_size=w_size,
            label_size=mapping.label_size,
            embedding_size=0 if mapping.embedding is None else mapping.embedding.shape[1],
            mapping_layers=len(mapping.dense),
            split_size=mapping.split[0].weight.shape[0] if mapping.split else 0,
            channel_base=base,
            channel_max=counts[4],
        )
    except InvalidInputError as error:
        raise BundleError(f"the bundle's networks are no generator of this family: {error}") from error
    if any(config.channels(r) != count for r, count in counts.items()):
        raise BundleError(f"synthesis.onnx has {counts} channels by resolution, which no generator of this family has")
    return config


def _copy(name: str, target: Tensor, value: Array) -> None:
    if tuple(target.shape) != value.shape:
        raise BundleError(
            f"{name} has shape {list(value.shape)} in the bundle, the generator needs {list(target.shape)}"
        )
    target.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _fill_dense(name: str, module: nn.Module, weights: DenseWeights) -> None:
    dense = cast(Dense, module)
    _copy(f"{name}.weight", dense.weight, weights.weight / dense.weight_gain)
    _copy(f"{name}.bias", dense.bias, weights.bias / dense.bias_gain)


def _fill_mapping(module: Generator, weights: MappingWeights) -> None:
    if module.mapping.embedding is not None and weights.embedding is not None:
        _copy("mapping.embedding", module.mapping.embedding, weights.embedding)
    for what, layers, stored in (
        ("dense", module.mapping.dense, weights.dense),
        ("split", module.mapping.split, weights.split),
    ):
        for i, (layer, one) in enumerate(zip(layers, stored, strict=True)):
            _fill_dense(f"mapping.{what}.{i}", layer, one)


def _fill_synthesis(module: Generator, weights: SynthesisWeights) -> None:
    limit = ROUNDED if weights.half else EXACT
    _copy("synthesis.const", module.synthesis.const, start_constant(weights.start)[None])
    noise = torch.Generator().manual_seed(NOISE_SEED)
    for index, (layer, stored) in enumerate(zip(module.synthesis.layers, weights.layers, strict=True)):
        name, layer = f"synthesis.layers.{index}", cast(SynthesisLayer, layer)
        scale = stored.affine.bias.copy()
        scale[: scale.size // 2] -= 1.0  # the style scale is stored as an offset from 1
        _fill_dense(f"{name}.adain.affine", layer.adain.affine, DenseWeights(stored.affine.weight, scale))
        fresh = torch.randn(layer.offset.noise.shape, generator=noise).double().numpy()
        _fill_offset(name, layer.offset, stored.offset, fresh, limit)
        if stored.kernel is not None:
            convolution = cast(Conv, layer.conv)
            kernel = stored.kernel
            if isinstance(convolution, UpConv):
                kernel = narrow(name, kernel, limit)
                kernel = kernel[:, :, ::-1, ::-1] if convolution.flipped else kernel
            _copy(f"{name}.conv.weight", convolution.weight, kernel / convolution.weight_gain)
    for unused in list(module.synthesis.to_rgb)[:-1]:
        for parameter in unused.parameters():
            parameter.zero_()
    last = cast(Conv, module.synthesis.to_rgb[-1])
    _copy("synthesis.to_rgb.weight", last.weight, weights.to_rgb.weight[:, :, None, None] / last.weight_gain)
    _copy("synthesis.to_rgb.bias", cast(Tensor, last.bias), weights.to_rgb.bias)


def start_constant(normalised: Array) -> Array:
    """[C,4,4] that leaky ReLU and instance norm turn into `normalised` [C,4,4].

    A trained start is nearly flat, so the norm's epsilon counts: a plane of variance v comes out with mean square
    q = v / (v + epsilon), from which v follows. Where q is 1 to float32 precision every scale does.
    """
    q = np.square(normalised).mean((1, 2), keepdims=True)
    short = np.maximum(1.0 - q, EPSILON)  # EPSILON here: scale 1
    activation = normalised * np.where(short > 1e-6, np.sqrt(EPSILON / short), 1.0)
    return np.where(activation < 0, activation / SLOPE, activation)


def narrow(name: str, kernel: Array, limit: float) -> Array:
    """4x4 doubling kernels [O,I,4,4] -> the 3x3 kernels [O,I,3,3] they were widened from (`widen`), least squares.

    Raises BundleError when they were not: residual above `limit` of the largest value.
    """
    back = BAND.T @ np.linalg.inv(BAND @ BAND.T)  # [4,3], BAND @ back = 1
    small = back.T @ kernel @ back
    residual = float(np.abs(BAND.T @ small @ BAND - kernel).max())
    if residual > limit * max(float(np.abs(kernel).max()), 1e-12):
        raise BundleError(f"{name}: its 4x4 kernel is no widened 3x3 kernel (off by {residual:.3g})")
    return np.asarray(small)


def _fill_offset(name: str, target: NoiseBias, stored: Offset | None, fresh: Array, limit: float) -> None:
    noise, strength, bias = fresh[0, 0], np.zeros(target.bias.shape[0]), np.zeros(target.bias.shape[0])
    if stored is not None and stored.bias is not None and stored.strength is not None:
        noise, strength, bias = noise if stored.noise is None else stored.noise, stored.strength, stored.bias
    elif stored is not None:
        bias = stored.plane.mean((1, 2))
        rest = (stored.plane - bias[:, None, None]).reshape(bias.size, -1)
        size = float(np.abs(stored.plane).max())
        if float(np.abs(rest).max()) > 1e-6 * size:  # below is the rounding of a layer without noise
            strength, noise = _rank_one(rest)
            residual = float(np.abs(np.outer(strength, noise) - rest).max())
            if residual > limit * size:
                raise BundleError(f"{name}: its offset is no noise map times strengths (off by {residual:.3g})")
            noise = noise.reshape(stored.plane.shape[1:])
    _copy(f"{name}.offset.noise", target.noise, noise[None, None])
    _copy(f"{name}.offset.strength", target.strength, strength)
    _copy(f"{name}.offset.bias", target.bias, bias)


def _rank_one(rest: Array) -> tuple[Array, Array]:
    """[C,P] -> (strength [C], noise [P] of mean square 1); the sign is that of most of the strengths' weight."""
    _, vectors = np.linalg.eigh(rest @ rest.T)
    noise = rest.T @ vectors[:, -1]
    noise /= np.sqrt(np.square(noise).mean())
    strength = rest @ noise / noise.size
    turn = -1.0 if strength.sum() < 0 else 1.0
    return turn * strength, turn * noise


@torch.no_grad()
def _check(module: AnyGenerator, bundle: Bundle) -> None:
    """Pictures of module and bundle on seeded latents. Raises BundleError when they differ."""
    config = module.config
    stream = np.random.Generator(np.random.Philox(key=CHECK_SEED))
    shapes = {"z": config.z_size, "label": config.label_size}
    inputs = {
        name: stream.standard_normal((CHECKED * config.layers, size)).astype(np.float32)
        for name, size in shapes.items()
        if size
    }
    mapping, synthesis = bundle.generator_engines(backend="onnxruntime")
    try:
        w = mapping(**inputs)["w"]
        wp = np.ascontiguousarray(w.reshape(CHECKED, config.layers, config.w_size))
        wanted = synthesis(wp=wp)["image"].astype(np.int16)
    finally:
        mapping.close()
        synthesis.close()
    own = module.mapping(*(torch.from_numpy(value) for value in inputs.values())).unflatten(0, wp.shape[:2])
    difference = np.abs(as_bytes(module.draw(own)).astype(np.int16) - wanted)
    share = float((difference > CHECK_LEVELS).mean())
    if not share <= CHECK_SHARE:
        raise BundleError(
            f"the weights read from bundle '{bundle.name}' make other pictures: {share:.2%} of the values differ by "
            f"more than {CHECK_LEVELS} grey level (up to {difference.max()}); it was not exported by this package"
        )
