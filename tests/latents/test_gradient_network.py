"""The network whose gradient is a face's direction: against reference data, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.latents.gradient_network import KEYS, GradientNetwork
from ohlora.training.vectorfind.gradient import load_published_network
from tests.support.golden_weights import plain_state
from tests.support.small_directions import network, shapes

LENGTHS = {"w": 512, "mapping_split1": 2560, "mapping_split2": 1024}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("space", LENGTHS)
def test_reference_scores_and_directions(golden: Path, space: str) -> None:
    made = GradientNetwork({k: v.numpy() for k, v in plain_state(shapes(LENGTHS[space])).items()})
    for file in (f"cnn/gradient_nn_{space}.keys.json", f"stylegan/keys_v9_gradient_nn_{space}.json"):
        listed = json.loads((golden / file).read_text())
        pairs = listed.items() if "keys" not in listed else ((key, shape) for key, shape, _ in listed["keys"])
        assert {key: tuple(shape) for key, shape in pairs} == shapes(LENGTHS[space])
    first = np.load(golden / "cnn" / f"gradient_nn_{space}.npz")
    second = np.load(golden / "stylegan" / "v9_gradient_nn.npz")
    for x, scores, directions in (
        (first["mid_vector"], first["output"], first["direction"]),
        (second[f"{space}_x"], second[f"{space}_y"], second[f"{space}_direction"]),
    ):
        assert made.size == x.shape[1]
        assert np.abs(made.scores(x) - scores[:, 0]).max() <= 2e-5
        found = made.directions(x)
        assert found.dtype == np.float64
        assert cosines(found, directions).min() >= 0.999999
        assert np.abs(found - directions).max() <= 2e-6


def test_closed_form_is_the_gradient() -> None:
    made, x = network(), np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    w1, b1, w2, b2, w3, b3 = (torch.from_numpy(value.copy()).double() for value in made.arrays.values())
    latents = torch.from_numpy(x).double().requires_grad_()
    scores = (torch.tanh(torch.tanh(latents @ w1.T + b1) @ w2.T + b2) @ w3.T + b3)[:, 0]
    (gradient,) = torch.autograd.grad(scores.sum(), latents)
    unit = (gradient / gradient.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(made.scores(x), scores.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(made.directions(x), unit, atol=1e-12)
    np.testing.assert_allclose(network(scale=-2.0).directions(x), -2 * unit, atol=1e-12)


def test_a_flat_network_moves_nothing() -> None:
    arrays = network().arrays | {"fc_final.weight": np.zeros((1, 4), np.float32)}
    assert not GradientNetwork(arrays).directions(np.ones((2, 6), np.float32)).any()


def test_arrays_come_back() -> None:
    made = network(scale=-1.0)
    back = GradientNetwork(made.arrays, made.scale)
    assert list(made.arrays) == list(KEYS)
    assert all(np.array_equal(back.arrays[key], value) for key, value in made.arrays.items())
    with pytest.raises(ValueError, match="read-only"):
        made.arrays["fc1.0.bias"][0] = 1


def test_what_is_no_network_is_refused() -> None:
    arrays = network().arrays
    for change, message in (
        ({"fc1.0.bias": np.zeros(7)}, r"fc1.0.bias has shape \[7\], its layers need \[5\]"),
        ({"fc1.0.weight": np.zeros(6)}, r"fc1.0.weight has shape \[6\]"),
        ({"fc2.0.weight": np.zeros((4, 6))}, r"fc2.0.weight has shape \[4, 6\], its layers need \[4, 5\]"),
        ({"fc_final.bias": np.full(1, np.nan)}, "fc_final.bias must hold finite numbers"),
        ({"fc3.weight": np.zeros(1)}, "does not know fc3.weight"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            GradientNetwork({**arrays, **change})
    with pytest.raises(InvalidInputError, match=r"misses fc2\.0\.bias"):
        GradientNetwork({key: value for key, value in arrays.items() if key != "fc2.0.bias"})
    for scale in (0.0, float("inf")):
        with pytest.raises(InvalidInputError, match="scale must be"):
            GradientNetwork(arrays, scale)
    with pytest.raises(InvalidInputError, match=r"latents \[N, 6\], got shape \[2, 5\]"):
        network().scores(np.zeros((2, 5), np.float32))
    with pytest.raises(InvalidInputError, match="NaN"):
        network().directions(np.full((1, 6), np.nan, np.float32))


def test_published_files(tmp_path: Path) -> None:
    path = tmp_path / "stylegan_gen_vector_find_v9_nn_eyes.pth"
    state = plain_state(shapes(1024))
    torch.save(state, path)
    made = load_published_network(path)
    assert (made.size, made.scale) == (1024, -1.0)
    assert np.array_equal(made.arrays["fc2.0.weight"], state["fc2.0.weight"].numpy())
    small = {key: torch.ones(shape) for key, shape in shapes(6, 5, 4).items()}
    for content, message in (
        ({**small, "fc2.0.bias": torch.ones(3)}, r"fc2.0.bias has shape \[3\]"),
        ({**small, "dropout": torch.ones(1)}, "unexpected: dropout"),
        ({"fc1.0.weight": torch.ones(5, 6)}, "missing: fc1.0.bias, fc2.0.bias"),
        ({**small, "fc1.0.bias": torch.full((5,), torch.nan)}, "must hold finite real numbers"),
        ({**small, "fc1.0.bias": torch.ones(5, dtype=torch.complex64)}, "must hold finite real numbers"),
        ([torch.ones(1)], "holds a list, not a dictionary"),
        ({"fc1.0.weight": 3}, "not a state dict"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            load_published_network(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=r"cannot read .* as PyTorch weights"):
        load_published_network(path)
    with pytest.raises(CheckpointError, match="no weights file"):
        load_published_network(tmp_path / "absent.pth")
