"""Exact rewrites of a MobileStyleGAN's tensors, each a pass in float64; `rounded` rounds once, at the end.

A pass takes the tensors by name (`Architecture.shapes`) and gives new ones; what it does not name stays. Together with
the graphs of `ohlora.export.graphs.mobilestylegan`, whose initializers have the names that are left here, they compute
what the network computes literally, in half the time:

fold_mapping_gain    sqrt 2 goes through a leaky ReLU, into the layer in front of it
fold_style_scales    the constants of the styles go into their affines; in the kernels, float16 would overflow
interleave_bands     channels in the order that the inverse Haar transform reads, by the rows of what makes them;
or stack_bands       one order for a grouped 1x1 convolution, one for sums and differences of quarters
head_to_pixels       the head's inverse Haar transform goes into its matrix
or head_to_half      an image of half the size is the lowest band, halved;
or head_to_mean      a smaller one the area mean of that, which a convolution with a stride takes
join_affines         all affines that read one row of wp become one matrix
with_tail            a fitted tail takes the place of the last blocks: not exact, but cheap
spread_bands         its kernels over four bands become depthwise ones, which engines compute faster

That conv1's style is multiplied into the one of `up`, at the lower resolution, is a matter of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.photo.architecture import BANDS, HAAR, ROOT_TWO, Architecture, Block
from ohlora.errors import InvalidInputError

Exact = dict[str, NDArray[np.float64]]
State = Mapping[str, NDArray[Any]]
# How the graphs compute the inverse Haar transform: a grouped 1x1 convolution, or a butterfly of quarters.
Haar = Literal["grouped", "butterfly"]
HAARS: tuple[Haar, ...] = get_args(Haar)
SYNTHESIS = "synthesis."


def mapping_arrays(state: State, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
    """Initializers of the mapping graph."""
    exact = {name: np.asarray(value, np.float64) for name, value in state.items() if name.startswith("mapping.")}
    return rounded(fold_mapping_gain(exact, architecture))


def synthesis_arrays(
    state: State, architecture: Architecture, size: int, haar: Haar = "grouped"
) -> dict[str, NDArray[np.float32]]:
    """Initializers of the synthesis graph for images of `size` pixels."""
    exact = {name: np.asarray(value, np.float64) for name, value in state.items() if name.startswith(SYNTHESIS)}
    exact = fold_style_scales(exact, architecture)
    exact = (interleave_bands if haar == "grouped" else stack_bands)(exact, architecture)
    half = architecture.resolution // 2
    if size == architecture.resolution:
        exact = head_to_pixels(exact)
    elif size == half:
        exact = head_to_half(exact)
    elif 4 <= size < half and size & (size - 1) == 0:
        exact = head_to_mean(exact, half // size)
    else:
        raise InvalidInputError(f"the size of the image must be {2 * half} or a smaller power of two, got {size}")
    arrays = rounded(join_affines(exact, architecture))
    if haar == "grouped":
        kernels = {f"{SYNTHESIS}{block.name}.up.haar": haar_kernel(block) for block in architecture.blocks}
        arrays |= rounded(kernels)
    return arrays


def tail_arrays(state: State, tail: State, architecture: Architecture, cut: int) -> dict[str, NDArray[np.float32]]:
    """Initializers of the synthesis graph that ends in a fitted tail at features of `cut` pixels.

    tail: its tensors by the names of the PyTorch module (`ohlora.training.nets.mobilestylegan_tail.Tail`).
    """
    exact = {name: np.asarray(value, np.float64) for name, value in state.items() if name.startswith(SYNTHESIS)}
    exact = with_tail(exact, {name: np.asarray(value, np.float64) for name, value in tail.items()}, architecture, cut)
    exact = interleave_bands(fold_style_scales(exact, architecture), architecture)
    exact = spread_bands(exact)
    arrays = rounded(join_affines(exact, architecture))
    kernels = {f"{SYNTHESIS}{b.name}.up.haar": haar_kernel(b) for b in architecture.blocks if b.resolution <= cut}
    return arrays | rounded(kernels)


def with_tail(state: Exact, tail: Exact, architecture: Architecture, cut: int) -> Exact:
    """The tail's tensors in the place of the network's own behind the cut.

    Its kernels hold the constants of the styles; these leave them here, since `fold_style_scales` puts them into the
    affines.
    """
    scales, result = architecture.style_scales(), dict(state)
    for block in architecture.blocks:
        for layer, number in (("conv1", 1), ("conv2", 2)) if block.resolution > cut else ():
            name = f"{SYNTHESIS}{block.name}.{layer}"
            result[f"{name}.dw.weight"] = tail[f"{block.name}.dw{number}"] / scales[name]
            result[f"{name}.pw.weight"] = tail[f"{block.name}.pw{number}.weight"]
            result[f"{name}.bias"] = tail[f"{block.name}.pw{number}.bias"]
            result[f"{name}.noise"] = tail[f"{block.name}.noise{number}"]
    head = f"{SYNTHESIS}head"
    result[f"{head}.weight"] = tail["head.weight"] / scales[head]
    result[f"{head}.bias"] = tail["head.bias"]
    return result


def spread_bands(state: Exact) -> Exact:
    """A tail's kernels [c,4,3,3] as depthwise ones [4c,1,3,3]; the pointwise matrix behind them adds the four up."""
    result = dict(state)
    for name, kernels in state.items():
        if name.endswith(".dw.weight") and kernels.shape[1] == BANDS:
            pointwise = name.removesuffix("dw.weight") + "pw.weight"
            result[name] = kernels.reshape(-1, 1, *kernels.shape[2:])
            result[pointwise] = np.repeat(state[pointwise], BANDS, axis=1)
    return result


def rounded(exact: Exact) -> dict[str, NDArray[np.float32]]:
    return {name: np.ascontiguousarray(value, np.float32) for name, value in exact.items()}


def fold_mapping_gain(state: Exact, architecture: Architecture) -> Exact:
    names = [f"mapping.fc{i}.{leaf}" for i in range(architecture.mapping_layers) for leaf in ("weight", "bias")]
    return state | {name: state[name] * ROOT_TWO for name in names}


def fold_style_scales(state: Exact, architecture: Architecture) -> Exact:
    return state | {
        f"{layer}.affine.{leaf}": state[f"{layer}.affine.{leaf}"] * scale
        for layer, scale in architecture.style_scales().items()
        for leaf in ("weight", "bias")
    }


def bands_of(channels: int) -> NDArray[np.int64]:
    """[bands, channels / 4]: the channel that holds a band of an output channel, in the published order."""
    coarse = channels // BANDS
    high = coarse + (BANDS - 1) * np.arange(coarse) + np.arange(BANDS - 1)[:, None]
    return np.concatenate([np.arange(coarse)[None], high])


def interleave_bands(state: Exact, architecture: Architecture) -> Exact:
    """Channel 4 j + k of what `up` reads becomes band k of output channel j."""
    return _reordered(state, architecture, lambda channels: bands_of(channels).T.ravel())


def stack_bands(state: Exact, architecture: Architecture) -> Exact:
    """Channel k C/4 + j of what `up` reads becomes band k of output channel j."""
    return _reordered(state, architecture, lambda channels: bands_of(channels).ravel())


def _reordered(state: Exact, architecture: Architecture, order_of: Any) -> Exact:
    makers = ["synthesis.first.weight", *(f"{SYNTHESIS}{b.name}.conv2.pw.weight" for b in architecture.blocks)]
    result = dict(state)
    for maker, block in zip(makers, architecture.blocks, strict=False):  # what the last block gives goes to the head
        order = order_of(block.inputs)
        bias = maker.removesuffix(".weight").removesuffix(".pw") + ".bias"
        up = f"{SYNTHESIS}{block.name}.up.affine"
        for name in (maker, bias, f"{up}.weight", f"{up}.bias"):
            result[name] = state[name][order]
    return result


def haar_kernel(block: Block) -> NDArray[np.float64]:
    """[C,4,1,1] of a convolution in C/4 groups: four interleaved bands -> four pixels, as pixel shuffle wants them."""
    return np.tile(np.array(HAAR).T, (block.coarse, 1))[:, :, None, None]


def head_to_pixels(state: Exact) -> Exact:
    """Rows of the head become 4 colour + pixel of a 2x2 square, for a pixel shuffle."""

    def transformed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        bands = values[bands_of(len(values))]  # [4, 3, ...]
        # Written out: sums of four in a fixed order are the same numbers on every machine.
        pixels = [sum(HAAR[k][p] * bands[k] for k in range(BANDS)) for p in range(BANDS)]
        return np.stack(pixels, 1).reshape(values.shape)

    return _head(state, transformed)


def head_to_half(state: Exact) -> Exact:
    return _head(state, lambda values: values[:3] / 2)


def head_to_mean(state: Exact, factor: int) -> Exact:
    """The mean over factor x factor pixels of the half-sized image: a kernel that is the same at all its places."""
    halved = head_to_half(state)
    kernel = np.repeat(np.repeat(halved["synthesis.head.weight"], factor, 2), factor, 3) / factor**2
    return halved | {"synthesis.head.weight": kernel}


def _head(state: Exact, change: Any) -> Exact:
    return state | {name: change(state[name]) for name in ("synthesis.head.weight", "synthesis.head.bias")}


def join_affines(state: Exact, architecture: Architecture) -> Exact:
    """'synthesis.styles.R.weight' [styles, w_size] and '.bias' take the place of the affines that read row R of wp."""
    result = {name: value for name, value in state.items() if ".affine." not in name}
    for row, layers in enumerate(style_rows(architecture)):
        for leaf in ("weight", "bias"):
            parts = [state[f"{SYNTHESIS}{layer}.affine.{leaf}"] for layer in layers]
            result[f"{SYNTHESIS}styles.{row}.{leaf}"] = np.concatenate(parts)
    return result


def style_rows(architecture: Architecture) -> list[tuple[str, ...]]:
    """For each row of wp the layers whose styles it makes."""
    rows: list[tuple[str, ...]] = [("first",)]
    for block in architecture.blocks:
        rows += [(f"{block.name}.up", f"{block.name}.conv1"), (f"{block.name}.conv2",)]
    return [*rows, ("head",)]
