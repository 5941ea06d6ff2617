"""Each exact rewrite: the network before and after it gives the same images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ohlora.bundle.photo import rewrites
from ohlora.bundle.photo.architecture import BANDS, HAAR, Architecture
from ohlora.bundle.photo.random_face import random_face
from ohlora.bundle.photo.reference import Reference, inverse_haar
from ohlora.bundle.photo.rewrites import Exact
from ohlora.errors import InvalidInputError
from tests.support.random_faces import SMALL, real_wheel, small_state

# Exact but for the order of sums in float64; of the real network the specification measured 3e-5 in float32.
SAME = 1e-12


@pytest.fixture(scope="module", params=["random", "real"])
def network(request: pytest.FixtureRequest) -> tuple[Exact, Architecture]:
    """Random weights always, the real ones where the user has them; in float64."""
    package = random_face()
    state = small_state() if request.param == "random" else package.read(real_wheel())
    architecture = SMALL if request.param == "random" else package.architecture
    return {name: value.astype(np.float64) for name, value in state.items()}, architecture


def features(channels: int, side: int = 8) -> NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((channels, side, side))


def affine(state: Exact, layer: str, w: NDArray[np.float64]) -> NDArray[np.float64]:
    return state[f"{layer}.affine.weight"] @ w + state[f"{layer}.affine.bias"]


def largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def shuffled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth to space, CRD."""
    channels, height, width = x.shape
    return x.reshape(channels // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * height, -1)


def test_mapping_gain(network: tuple[Exact, Architecture]) -> None:
    state, architecture = network
    folded = rewrites.fold_mapping_gain(state, architecture)
    x = np.random.default_rng(0).standard_normal((4, architecture.z_size))
    y = x.copy()
    for i in range(architecture.mapping_layers):
        for values, source, gain in ((x, state, rewrites.ROOT_TWO), (y, folded, 1.0)):
            made = values @ source[f"mapping.fc{i}.weight"].T + source[f"mapping.fc{i}.bias"]
            values[:, : made.shape[1]] = gain * np.maximum(made, 0.2 * made)
        x, y = x[:, : architecture.w_size], y[:, : architecture.w_size]
    assert largest(y, x) < SAME


def test_style_scales(network: tuple[Exact, Architecture]) -> None:
    state, architecture = network
    folded = rewrites.fold_style_scales(state, architecture)
    w = np.random.default_rng(1).standard_normal(architecture.w_size)
    for layer, scale in architecture.style_scales().items():
        assert largest(affine(folded, layer, w), scale * affine(state, layer, w)) < SAME
    # Those of `up` have none, and float16 is the reason why the kernels keep theirs.
    same = [name for name in state if ".up." in name or ".affine." not in name]
    assert all(folded[name] is state[name] for name in same)


@pytest.mark.parametrize("haar", rewrites.HAARS)
def test_band_order(network: tuple[Exact, Architecture], haar: str) -> None:
    state, architecture = network
    change = rewrites.interleave_bands if haar == "grouped" else rewrites.stack_bands
    ordered = change(state, architecture)
    for block in architecture.blocks:
        bands, coarse = rewrites.bands_of(block.inputs), block.coarse
        order = bands.T.ravel() if haar == "grouped" else bands.ravel()
        assert sorted(order) == list(range(block.inputs))
        x = features(block.inputs)
        expected = inverse_haar(x)
        moved = x[order]
        if haar == "grouped":
            kernel = rewrites.haar_kernel(block)[:, :, 0, 0].reshape(coarse, 4, BANDS)
            groups = moved.reshape(coarse, BANDS, 8, 8)
            made = shuffled(np.einsum("cpk,ckyx->cpyx", kernel, groups).reshape(-1, 8, 8))
        else:
            low, b0, b1, b2 = moved.reshape(BANDS, coarse, 8, 8)
            a, b, d, e = low + b0, low - b0, b1 + b2, b1 - b2
            made = shuffled(np.stack([a + d, a - d, b + e, b - e], 1).reshape(-1, 8, 8) / 2)
        assert largest(made, expected) < SAME
        # What makes the channels, their bias and up's styles are ordered alike.
        name = f"synthesis.{block.name}.up.affine"
        np.testing.assert_array_equal(ordered[f"{name}.weight"], state[f"{name}.weight"][order])
        np.testing.assert_array_equal(ordered[f"{name}.bias"], state[f"{name}.bias"][order])
    makers = ["synthesis.first", *(f"synthesis.{block.name}.conv2" for block in architecture.blocks)]
    for maker, after in zip(makers, [*architecture.blocks, None], strict=True):
        weight = f"{maker}.weight" if maker == "synthesis.first" else f"{maker}.pw.weight"
        order = np.arange(len(state[weight]))
        if after is not None:
            order = rewrites.bands_of(after.inputs)
            order = order.T.ravel() if haar == "grouped" else order.ravel()
        np.testing.assert_array_equal(ordered[weight], state[weight][order])
        np.testing.assert_array_equal(ordered[f"{maker}.bias"], state[f"{maker}.bias"][order])


def test_the_style_of_conv1_goes_through_the_haar_transform(network: tuple[Exact, Architecture]) -> None:
    """Rewrite c, which the graph does: one style for each band of a channel, and none at the higher resolution."""
    _, architecture = network
    for block in architecture.blocks:
        x, style = features(block.inputs), np.random.default_rng(2).standard_normal(block.coarse)
        joint = np.empty(block.inputs)
        joint[rewrites.bands_of(block.inputs)] = style
        assert largest(inverse_haar(x * joint[:, None, None]), inverse_haar(x) * style[:, None, None]) < SAME


def head_of(state: Exact, x: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = state["synthesis.head.weight"]
    return np.tensordot(weight[:, :, 0, 0], x, 1) + state["synthesis.head.bias"][:, None, None]


def test_head_to_pixels(network: tuple[Exact, Architecture]) -> None:
    state, architecture = network
    x = features(architecture.channels[-1])
    made = shuffled(head_of(rewrites.head_to_pixels(state), x))
    assert largest(made, inverse_haar(head_of(state, x))) < SAME


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_head_to_half_and_to_mean(network: tuple[Exact, Architecture], factor: int) -> None:
    state, architecture = network
    x = features(architecture.channels[-1])
    side = 8 // factor
    expected = inverse_haar(head_of(state, x)).reshape(3, side, 2 * factor, side, 2 * factor).mean((2, 4))
    if factor == 1:
        made = head_of(rewrites.head_to_half(state), x)
    else:
        changed = rewrites.head_to_mean(state, factor)
        kernel = changed["synthesis.head.weight"]
        assert kernel.shape[2:] == (factor, factor)
        tiles = x.reshape(len(x), side, factor, side, factor)
        made = np.einsum("ocij,cyixj->oyx", kernel, tiles) + changed["synthesis.head.bias"][:, None, None]
    assert largest(made, expected) < SAME


def test_affines_of_a_row_are_one_matrix(network: tuple[Exact, Architecture]) -> None:
    state, architecture = network
    joined = rewrites.join_affines(state, architecture)
    w = np.random.default_rng(3).standard_normal(architecture.w_size)
    rows = rewrites.style_rows(architecture)
    assert len(rows) == architecture.layers
    for row, layers in enumerate(rows):
        made = joined[f"synthesis.styles.{row}.weight"] @ w + joined[f"synthesis.styles.{row}.bias"]
        expected = np.concatenate([affine(state, f"synthesis.{layer}", w) for layer in layers])
        assert largest(made, expected) < SAME
    assert not [name for name in joined if ".affine." in name]
    count = sum(joined[f"synthesis.styles.{row}.bias"].size for row in range(architecture.layers))
    assert count == sum(value.size for name, value in state.items() if name.endswith(".affine.bias"))


def test_rounded_once() -> None:
    state, exact = small_state(), Architecture.shapes(SMALL)
    arrays = rewrites.synthesis_arrays(state, SMALL, 64) | rewrites.mapping_arrays(state, SMALL)
    assert {value.dtype for value in arrays.values()} == {np.dtype(np.float32)}
    name = "mapping.fc0.weight"
    np.testing.assert_array_equal(arrays[name], (state[name].astype(np.float64) * 2**0.5).astype(np.float32))
    assert not [key for key in arrays if key.startswith("synthesis.") and ".affine." in key]
    assert arrays["synthesis.const"].shape == exact["synthesis.const"]


@pytest.mark.parametrize("size", [128, 48, 2, 0])
def test_no_such_size(size: int) -> None:
    with pytest.raises(InvalidInputError, match="must be 64 or a smaller power of two"):
        rewrites.synthesis_arrays(small_state(), SMALL, size)


@pytest.mark.parametrize("damage", ["dw", "noise", "bands", "style"])
def test_the_reference_notices_mistakes(damage: str) -> None:
    """What the probe of a bundle is for: each of these changes more than one level."""
    state = small_state()
    wp = np.random.default_rng(0).standard_normal((SMALL.layers, SMALL.w_size)).astype(np.float32)
    good = Reference(state, SMALL, wp).levels(64).astype(int)
    changes: dict[str, Callable[[], None]] = {
        "dw": lambda: state.update({"synthesis.block16.conv1.dw.weight": -state["synthesis.block16.conv1.dw.weight"]}),
        "noise": lambda: state.update(
            {"synthesis.block32.conv2.noise": state["synthesis.block32.conv2.noise"][..., ::-1]}
        ),
        "bands": lambda: state.update({"synthesis.head.weight": np.roll(state["synthesis.head.weight"], 1, 0)}),
        "style": lambda: state.update({"synthesis.head.affine.bias": 1.1 * state["synthesis.head.affine.bias"]}),
    }
    changes[damage]()
    assert np.abs(Reference(state, SMALL, wp).levels(64).astype(int) - good).max() > 1


def test_the_haar_table_is_orthonormal() -> None:
    table = np.array(HAAR)
    np.testing.assert_array_equal(table @ table.T, np.eye(4))
