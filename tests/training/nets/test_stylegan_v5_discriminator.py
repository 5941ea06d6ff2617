"""The v5 discriminator: reference scores and penalty, published layout, start from the property CNN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.nets.score_cnns import PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator, V5DiscriminatorConfig, from_property_cnn
from ohlora.training.weights.published import published_state
from ohlora.training.weights.stylegan_v5_discriminator_keys import DISCRIMINATOR
from tests.support.golden_values import rule_images
from tests.support.golden_weights import plain_state

SMALL = V5DiscriminatorConfig(width=1 / 16)


def golden_state() -> dict[str, torch.Tensor]:
    return plain_state(DISCRIMINATOR.shapes())


def test_keys_and_shapes_are_the_published_ones(golden: Path) -> None:
    stored = json.loads((golden / "stylegan/keys_v5_discriminator.json").read_text())
    assert DISCRIMINATOR.shapes() == {name: tuple(shape) for name, shape, _ in stored["keys"]}
    assert sum(p.numel() for p in V5Discriminator().parameters()) == stored["n_params"] == 5_914_116


def test_scores_and_penalty_are_the_reference_ones(golden: Path) -> None:
    stored = np.load(golden / "stylegan/v5_discriminator.npz")
    module = DISCRIMINATOR.load(golden_state()).eval()
    images, label = rule_images(int(stored["image_seed"])), torch.from_numpy(stored["label"])
    with torch.no_grad():
        score = module(images, label)
    np.testing.assert_allclose(score.numpy(), stored["score_b8"], atol=1e-4)
    real = images[:4].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(real, label[:4]).sum(), real, create_graph=True)
    penalty = float(gradient.detach().square().sum((1, 2, 3)).mean())
    assert penalty == pytest.approx(float(stored["r1_penalty_b4"]), rel=1e-3)
    rows, columns = stored["pix_yx"].T
    found = gradient.detach().numpy()[:, :, rows, columns]
    np.testing.assert_allclose(found, stored["r1_grad_pix_b4"], atol=1e-3 * float(gradient.detach().abs().max()))


@pytest.mark.parametrize("width", [1.0, 1 / 16])
def test_files_of_both_layouts_give_the_same_network(tmp_path: Path, width: float) -> None:
    torch.manual_seed(1)
    module = V5Discriminator(V5DiscriminatorConfig(width))
    kind = "discriminator-finetune-v5"
    checkpoints.save(module, tmp_path / "d.safetensors", kind)
    torch.save(published_state(module), tmp_path / "d.pth")
    for name in ("d.safetensors", "d.pth"):
        loaded = checkpoints.load(kind, tmp_path / name)
        for key, value in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)


def test_a_file_of_another_network_is_named(tmp_path: Path) -> None:
    torch.save({"conv1.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth is no 'discriminator-finetune-v5'"):
        checkpoints.load("discriminator-finetune-v5", tmp_path / "other.pth")


def test_it_starts_as_the_branches_of_a_property_cnn() -> None:
    torch.manual_seed(2)
    cnn = PropertyCnn(PropertyCnnConfig(SMALL.width)).eval()
    module = from_property_cnn(cnn).eval()
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(module.scores(image), cnn(image)[:, [0, 3, 4]])


def test_other_sizes_are_scaled_and_wrong_shapes_refused() -> None:
    module = V5Discriminator(SMALL).eval()
    image = torch.rand(3, 3, 64, 64, requires_grad=True)
    score = module(image, torch.zeros(3, 3))
    assert score.shape == (3, 1)
    (gradient,) = torch.autograd.grad(score.sum(), image)
    assert float(gradient.abs().sum()) > 0
    with pytest.raises(InvalidInputError, match=r"label must have shape \[N, 3\], got \[3, 7\]"):
        module(image, torch.zeros(3, 7))
    with pytest.raises(InvalidInputError, match=r"image must have shape \[N, 3, R, R\], got \[3, 1, 64, 64\]"):
        module(image[:, :1], torch.zeros(3, 3))


def test_dropout_is_on_only_in_train_mode() -> None:
    torch.manual_seed(3)
    module, image, label = V5Discriminator(SMALL), torch.rand(2, 3, 256, 256), torch.zeros(2, 3)
    with torch.no_grad():
        assert not torch.equal(module.train()(image, label), module(image, label))
        assert torch.equal(module.eval()(image, label), module(image, label))
