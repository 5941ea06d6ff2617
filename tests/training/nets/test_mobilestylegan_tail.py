"""The photographic generator's cheap end: where it starts, and that it is the graph that is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ohlora.bundle.photo.architecture import FFHQ
from ohlora.bundle.photo.random_face import random_face
from ohlora.bundle.photo.rewrites import tail_arrays
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.mobilestylegan import synthesis_graph
from ohlora.training.nets.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig, inverse_haar
from ohlora.training.nets.mobilestylegan_tail import Tail, TailedSynthesis, coarse_kernel, coarse_kernels
from ohlora.training.weights.random_face import from_arrays
from tests.support.random_faces import SMALL, real_wheel, small_state

# What the specification counts, and its PSNR before any training, of 24 faces on average.
FITTED = {128: 142_796, 256: 37_068, 512: 8_780}
START_DB = {128: 25.4, 256: 28.8, 512: 32.4}


def generator() -> MobileStyleGAN:
    return from_arrays(small_state(), MobileStyleGANConfig(SMALL, SMALL.resolution)).eval()


def rows(count: int = 2) -> torch.Tensor:
    return torch.randn(count, SMALL.layers, SMALL.w_size, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def photographic() -> MobileStyleGAN:
    state = random_face().read(real_wheel())
    return from_arrays(state, MobileStyleGANConfig()).eval()


@torch.no_grad()
def test_kernels_of_bands_are_exact() -> None:
    """One depthwise step at twice the resolution and the mean over 2x2 pixels, at once on the coarse grid."""
    stream = torch.Generator().manual_seed(0)
    fine = torch.randn(6, 1, 3, 3, generator=stream, dtype=torch.float64)
    x = torch.randn(2, 24, 7, 5, generator=stream, dtype=torch.float64)  # the published order of bands
    expected = F.avg_pool2d(F.conv2d(inverse_haar(x), fine, padding=1, groups=6), 2)
    low, high = x[:, :6, None], x[:, 6:].reshape(2, 6, 3, 7, 5)
    bands = torch.cat([low, high], 2).flatten(1, 2)
    torch.testing.assert_close(F.conv2d(bands, coarse_kernels(fine), padding=1, groups=6), expected)
    repeated = F.interpolate(x[:, :6], scale_factor=2.0, mode="nearest")
    expected = F.avg_pool2d(F.conv2d(repeated, fine, padding=1, groups=6), 2)
    torch.testing.assert_close(F.conv2d(x[:, :6], coarse_kernel(fine), padding=1, groups=6), expected)


@torch.no_grad()
def test_the_start_follows_the_network() -> None:
    module = generator()
    wp = rows(4)
    image = module.synthesis(wp)
    for cut in (8, 16):
        made = TailedSynthesis(module.synthesis, Tail.started(module.synthesis, cut))(wp)
        assert made.shape == (4, 3, 2 * cut, 2 * cut)
        target = F.avg_pool2d(image, 64 // (2 * cut))
        correlation = torch.corrcoef(torch.stack([made.flatten(), target.flatten()]))[0, 1]
        assert correlation > 0.5  # of a random network, whose features are not smooth


@torch.no_grad()
def test_crops_see_their_own_part() -> None:
    module = generator()
    wp, tail = rows(2), Tail.started(module.synthesis, 16)
    features = module.synthesis.features(wp, 16)
    whole = tail(features, wp)
    corners = [(0, 2), (6, 6)]
    crops = torch.stack([features[i, :, y : y + 10, x : x + 10] for i, (y, x) in enumerate(corners)])
    made = tail(crops, wp, corners)
    for i, (y, x) in enumerate(corners):
        part = whole[i, :, 2 * y : 2 * y + 20, 2 * x : 2 * x + 20]
        torch.testing.assert_close(made[i, :, 4:-4, 4:-4], part[:, 4:-4, 4:-4], atol=1e-5, rtol=0)
        assert not torch.allclose(made[i], part, atol=1e-3)


@pytest.mark.parametrize("cut", [0, 4, 32, 64])
def test_cuts_that_there_are_not(cut: int) -> None:
    with pytest.raises(InvalidInputError, match="starts at the features of 8, 16 pixels"):
        Tail(SMALL, cut)


def test_affines_are_not_fitted() -> None:
    with torch.device("meta"):
        for size, count in FITTED.items():
            named = dict(Tail(FFHQ, size // 2).fitted())
            assert sum(value.numel() for value in named.values()) == count
            assert not [name for name in named if "affine" in name]


@pytest.mark.parametrize("cut", [8, 16])
@torch.no_grad()
def test_graph_with_a_tail_is_the_module(cut: int) -> None:
    module, wp = generator().double(), rows(3).double()
    tail = Tail.started(module.synthesis, cut)
    for _, parameter in tail.fitted():  # away from the start, whose values agree among themselves
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    expected = TailedSynthesis(module.synthesis, tail)(wp).numpy()
    stored = {name: value.numpy() for name, value in tail.state_dict().items()}
    arrays = tail_arrays(small_state(), stored, SMALL, cut)
    model = synthesis_graph(arrays, SMALL, 2 * cut, tail=True, float_output=True)
    made = run_graph(model, {"wp": wp.float().numpy()})[0]
    assert np.abs(made - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("size", FITTED)
@torch.no_grad()
def test_golden_start(photographic: MobileStyleGAN, shared: Path, size: int) -> None:
    folder = shared / "golden" / "mobilestylegan"
    stored: dict[str, Any] = dict(np.load(folder / "mobilestylegan_tail_start.npz"))
    w = torch.from_numpy(np.load(folder / "mobilestylegan_golden.npz")["w_psi07"][:1])
    tail = Tail.started(photographic.synthesis, size // 2)
    image = TailedSynthesis(photographic.synthesis, tail)(photographic.broadcast(w))[0].numpy()
    assert np.abs(image.reshape(3, -1)[:, stored[f"pos{size}"]] - stored[f"pixels{size}"]).max() < 1e-4
    part = size // 64
    means = image.reshape(3, 64, part, 64, part).mean((2, 4))
    assert np.abs(means - stored[f"small64_{size}"]).max() < 1e-4
    last = tail.get_submodule("block512").state_dict()
    for mine, theirs in (("dw1", "block512_k1"), ("dw2", "block512_k2")):
        assert np.abs(last[mine].numpy() - stored[theirs]).max() < 1e-6
