"""Published names of the StyleGAN tensors, and networks made from published state dicts
(docs/spec/stylegan.md, sections 3 to 7).

The tables are derived from a configuration, so they fit smaller networks of the family too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ohlora.training.nets import stylegan, stylegan_discriminator
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig
from ohlora.training.nets.stylegan_layers import blur_kernel
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork

W_AVG = "truncation.w_avg"


def generator_layout(config: GeneratorConfig) -> Layout:
    """Published name -> our name, and the blur kernels that published files store."""
    names = {W_AVG: "w_avg", "synthesis.lod": "synthesis.lod", "synthesis.layer0.const": "synthesis.const"}
    constants = {}
    if config.embedding_size:
        names["mapping.label_weight"] = "mapping.embedding"
    dense = [(f"dense{i}", f"dense.{i}") for i in range(config.mapping_layers)]
    if config.split_size:
        dense += [(f"dense_new{i}", f"split.{i}") for i in range(2)]
    for theirs, ours in dense:
        for leaf in ("weight", "bias"):
            names[f"mapping.{theirs}.{leaf}"] = f"mapping.{ours}.{leaf}"
    for index in range(config.layers):
        theirs, ours = f"synthesis.layer{index}", f"synthesis.layers.{index}"
        names[f"{theirs}.bias"] = f"{ours}.offset.bias"
        names[f"{theirs}.apply_noise.noise"] = f"{ours}.offset.noise"
        names[f"{theirs}.apply_noise.weight"] = f"{ours}.offset.strength"
        names[f"{theirs}.style.weight"] = f"{ours}.adain.affine.weight"
        names[f"{theirs}.style.bias"] = f"{ours}.adain.affine.bias"
        if index:
            names[f"{theirs}.weight"] = f"{ours}.conv.weight"
        if index and index % 2 == 0:
            constants[f"{theirs}.blur.kernel"] = blur_kernel(config.channels(config.resolutions[index // 2]))
    for k in range(len(config.resolutions)):
        for leaf in ("weight", "bias"):
            names[f"synthesis.output{k}.{leaf}"] = f"synthesis.to_rgb.{k}.{leaf}"
    return Layout(names, constants)


def discriminator_layout(config: DiscriminatorConfig) -> Layout:
    """Published name -> our name, and the blur kernels that published files store."""
    last = len(config.resolutions) - 1
    parts = {f"layer{2 * last}": f"blocks.{last}.conv", f"layer{2 * last + 1}": f"blocks.{last}.dense"}
    parts[f"layer{2 * last + 2}"] = "score"
    constants = {}
    for b, resolution in enumerate(config.resolutions):
        parts[f"input{b}"] = f"blocks.{b}.from_rgb"
        if b < last:
            parts[f"layer{2 * b}"] = f"blocks.{b}.conv"
            parts[f"layer{2 * b + 1}"] = f"blocks.{b}.down"
            constants[f"layer{2 * b + 1}.blur.kernel"] = blur_kernel(config.channels(resolution))
    names = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in parts.items() for leaf in ("weight", "bias")}
    return Layout({**names, "lod": "lod"}, constants)


def generator(version: str | None) -> PublishedNetwork[Generator]:
    """The documented generator `version`; None: one of any size, which no file was published of.

    v5 files carry the last batch's conditional means [B, 512] where w_avg belongs: ignored, w_avg is 0
    (docs/spec/stylegan.md, section 13, P8).
    """
    network = PublishedNetwork(
        lambda module: generator_layout(module.config), own=lambda config: Generator(GeneratorConfig(**config))
    )
    if version is None:
        return network
    config = stylegan.CONFIGS[version]

    def repair(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        stored = state.get(W_AVG)
        if stored is None or (stored.ndim == 2 and stored.shape[1] == config.w_size):
            return {**state, W_AVG: torch.zeros(config.w_size)}
        return state

    network = replace(network, make=lambda state: Generator(config))
    return replace(network, repair=repair) if config.conditional_truncation else network


def discriminator(version: str | None) -> PublishedNetwork[Discriminator]:
    """The documented discriminator `version`; None: one of any size, which no file was published of."""
    return PublishedNetwork(
        lambda module: discriminator_layout(module.config),
        None if version is None else lambda state: Discriminator(stylegan_discriminator.CONFIGS[version]),
        own=lambda config: Discriminator(DiscriminatorConfig(**config)),
    )
