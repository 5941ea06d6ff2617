"""The photographic generator of a bundle as a module: the exact rewrites undone (`ohlora.bundle.photo.rewrites`).

Every fold is a product, a sum of four or another order, so the published numbers come back up to float32 rounding.
Bundles of half the size or less hold the head's lowest band only: the others are zeros here, which no image of such a
size depends on, and the module's own size is the bundle's.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from ohlora.bundle import Bundle
from ohlora.bundle.photo.architecture import BANDS, HAAR, ROOT_TWO, Architecture
from ohlora.bundle.photo.rewrites import SYNTHESIS, Exact, bands_of, interleave_bands, rounded, style_rows
from ohlora.errors import BundleError, InvalidInputError
from ohlora.training.nets.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from ohlora.training.weights.random_face import from_arrays


def photographic_from_graphs(bundle: Bundle) -> MobileStyleGAN:
    """The module that a bundle's networks were made of, float32. It is not compared with them here.

    Raises BundleError for networks that are not as `ohlora bundle get photo` writes them.
    """
    part = bundle.generator_part()
    mapping, synthesis = (_initializers(bundle, name) for name in (part.mapping, part.synthesis))
    try:
        architecture = _architecture(mapping, synthesis)
        if _has_tail(synthesis, architecture):
            raise BundleError(
                f"the generator of bundle '{bundle.name}' ends in a fitted tail, which takes the place of its last "
                "blocks: take the bundle that it was fitted for, 'photo'"
            )
        state = _state(mapping, synthesis, architecture)
        module = from_arrays(rounded(state), MobileStyleGANConfig(architecture, part.resolution))
    except (KeyError, ValueError, RuntimeError, InvalidInputError) as error:
        raise BundleError(
            f"the networks of bundle '{bundle.name}' are not as `ohlora bundle get photo` writes them ({error}): take "
            "that bundle, in float32"
        ) from error
    module.w_avg.copy_(torch.from_numpy(bundle.w_avg()))
    return module.eval()


def _initializers(bundle: Bundle, name: str) -> dict[str, NDArray[np.float64]]:
    model = onnx.load_from_string(bundle.file(name).read_bytes())
    return {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def _architecture(mapping: Exact, synthesis: Exact) -> Architecture:
    w_size, z_size = mapping["mapping.fc0.weight"].shape
    channels, resolution = [], 8
    while (name := f"{SYNTHESIS}block{resolution}.conv2.pw.weight") in synthesis:
        channels.append(synthesis[name].shape[0])
        resolution *= 2
    layers = sum(name.endswith("weight") for name in mapping)
    return Architecture(z_size, w_size, layers, synthesis[f"{SYNTHESIS}const"].shape[1], tuple(channels))


def _has_tail(synthesis: Exact, architecture: Architecture) -> bool:
    """The depthwise kernels of a tail are over four bands."""
    last = architecture.blocks[-1]
    return len(synthesis[f"{SYNTHESIS}{last.name}.conv1.dw.weight"]) == BANDS * last.coarse


def _state(mapping: Exact, synthesis: Exact, architecture: Architecture) -> Exact:
    """All passes of `mapping_arrays` and `synthesis_arrays` backwards."""
    names = architecture.shapes()
    state = {name: values / ROOT_TWO for name, values in mapping.items() if name in names}
    state |= {name: values for name, values in synthesis.items() if name in names}
    _part_affines(state, synthesis, architecture)
    for layer, scale in architecture.style_scales().items():
        for leaf in ("weight", "bias"):
            state[f"{layer}.affine.{leaf}"] /= scale
    for leaf in ("weight", "bias"):
        name = f"{SYNTHESIS}head.{leaf}"
        state[name] = _bands_of_head(state[name])
    _published_order(state, architecture)
    return state


def _part_affines(state: Exact, synthesis: Exact, architecture: Architecture) -> None:
    names = architecture.shapes()
    for row, layers in enumerate(style_rows(architecture)):
        for leaf in ("weight", "bias"):
            affines = [f"{SYNTHESIS}{layer}.affine.{leaf}" for layer in layers]
            bounds = np.cumsum([names[name][0] for name in affines])[:-1]
            parts = np.split(synthesis[f"{SYNTHESIS}styles.{row}.{leaf}"], bounds)
            state.update(zip(affines, parts, strict=True))


def _bands_of_head(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of four pixels of each color, or of the lowest band alone -> rows of bands, as published."""
    bands = np.zeros((BANDS, 3, *values.shape[1:2], *(1,) * (values.ndim - 2)))
    if len(values) == 3:
        # Of a smaller size the kernel is a mean: the same number at every place.
        bands[0] = 2 * (values.sum((2, 3), keepdims=True) if values.ndim == 4 else values)
    else:
        pixels = values.reshape(3, BANDS, *values.shape[1:]).swapaxes(0, 1)
        bands = np.tensordot(np.array(HAAR), pixels, 1)  # the transform is its own inverse
    published = np.empty((BANDS * 3, *bands.shape[2:]))
    published[bands_of(BANDS * 3)] = bands
    return published


def _published_order(state: Exact, architecture: Architecture) -> None:
    """Channels as `interleave_bands` found them."""
    numbers = {name: np.arange(len(values), dtype=np.float64) for name, values in state.items()}
    for name, order in interleave_bands(numbers, architecture).items():
        values = state[name].copy()
        state[name][order.astype(np.int64)] = values
