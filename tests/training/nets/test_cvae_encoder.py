"""The v3 encoder and the networks that v2 and v3 train as one, against the reference data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.finetune.cvae import COLUMNS, cvae_loss
from ohlora.training.finetune.recipes import PROPERTIES, RECIPES, recipe
from ohlora.training.finetune.scored import scored_loss
from ohlora.training.nets.cvae_encoder import CvaeEncoder, EncoderConfig, draw_latent
from ohlora.training.nets.score_cnns import ClassifierCnn, PropertyCnn
from ohlora.training.nets.stylegan import CONFIGS, Generator
from ohlora.training.weights import stylegan_keys
from ohlora.training.weights.cvae_encoder_keys import ENCODER
from ohlora.training.weights.published import published_composite, published_state
from ohlora.training.weights.score_cnns_keys import make, score_cnn
from tests.support.golden_values import arrays, near, pixels, rule_images, tensor
from tests.support.golden_weights import encoder_state, generator_state, score_cnn_state

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def stylegan(golden: Path) -> Path:
    return golden / "stylegan"


@cache
def encoder() -> CvaeEncoder:
    return ENCODER.load(encoder_state()).eval()


@cache
def generator() -> Generator:
    return stylegan_keys.generator("v3").load(generator_state("v3")).eval()


@cache
def property_cnn() -> PropertyCnn:
    model = score_cnn("property").load(score_cnn_state("property")).eval()
    assert isinstance(model, PropertyCnn)
    return model


@cache
def gender_cnn() -> ClassifierCnn:
    model = score_cnn("gender").load(score_cnn_state("gender")).eval()
    assert isinstance(model, ClassifierCnn)
    return model


def inputs(data: dict[str, Any]) -> Tensor:
    return rule_images(int(data["image_seed"]))[:4]


@torch.no_grad()
def test_encoder_matches(stylegan: Path) -> None:
    data = arrays(stylegan, "v3_cvae")
    label = tensor(data, "label")
    mean, log_variance = encoder()(inputs(data), label)
    near(mean, data["mu"])
    near(log_variance, data["logvar"])
    z = draw_latent(mean, log_variance, tensor(data, "eps"))
    near(z, data["z"])
    near(generator().mapping(z, label), data["w"])
    near(gender_cnn()(inputs(data)), data["gender_score_on_input"])


@torch.no_grad()
def test_image_scores_and_losses_match(stylegan: Path) -> None:
    data = arrays(stylegan, "v3_cvae")
    label, z = tensor(data, "label"), tensor(data, "z")
    image = generator()(z, label)
    near(pixels(image, data), data["image_pix"])
    scores, gender = property_cnn()(image), gender_cnn()(image)
    near(scores, data["property_scores"])
    near(gender, data["gender_score"])
    losses = cvae_loss(RECIPES["v3"], scores, label, gender, tensor(data, "mu"), tensor(data, "logvar"))
    assert float(losses["total_loss"]) == pytest.approx(float(data["total_loss"]), abs=TOLERANCE)
    wanted = dict(zip(data["loss_names"].tolist(), data["loss_values_round4"].tolist(), strict=True))
    assert set(losses) == set(COLUMNS) == set(wanted)
    for name in COLUMNS:
        assert float(losses[name]) == pytest.approx(wanted[name], abs=1e-4 + 0.5e-4), name


def test_weights_of_the_loss_and_the_switch() -> None:
    label, scores = torch.zeros(2, 7), torch.zeros(2, 7)
    scores[:, [1, 2, 5, 6]] = 9.0  # not asked for
    scores[:, 0], scores[:, 3], scores[:, 4] = 3.0, 0.0, 0.0
    mean, log_variance, gender = torch.full((2, 4), 2.0), torch.full((2, 4), -1.0), torch.full((2, 1), 0.5)
    assert float(scored_loss(scores, label, PROPERTIES, ("eyes", "mouth", "pose"))) == pytest.approx(3.0)
    total = float(cvae_loss(RECIPES["v3"], scores, label, gender, mean, log_variance)["total_loss"])
    assert total == pytest.approx(3.0 + 0.25 + 0.2 * 4 + 0.05)
    unweighted = recipe("v3", gender_weight=0.0, mean_weight=0.0, log_variance_weight=0.0)
    other = cvae_loss(unweighted, scores, label, gender, mean, log_variance)
    assert float(other["total_loss"]) == pytest.approx(3.0)
    assert float(cvae_loss(RECIPES["v3"], scores, label, None, mean, log_variance)["gender_loss"]) == 0.0


@pytest.mark.slow
@torch.no_grad()
def test_score_guided_loss_matches(stylegan: Path) -> None:
    data = arrays(stylegan, "v2_property_cnn")
    model = stylegan_keys.generator("v1").load(generator_state("v1")).eval()
    label = tensor(data, "label")
    scores = property_cnn()(model(tensor(data, "z"), label))
    near(scores, data["scores_on_v1_generated"])
    six = PROPERTIES[:6]
    assert float(scored_loss(scores, label, PROPERTIES, six)) == pytest.approx(float(data["v2_loss6"]), abs=TOLERANCE)


def test_published_names_of_the_encoder(stylegan: Path) -> None:
    listed = json.loads((stylegan / "keys_v3_encoder.json").read_text())
    state = published_state(encoder())
    assert {key: tuple(value.shape) for key, value in state.items()} == {k: tuple(s) for k, s, _ in listed["keys"]}
    assert sum(value.numel() for value in state.values()) == listed["n_params"] == 9_877_600


@pytest.mark.parametrize("version", ["v3", "v2"])
def test_the_networks_trained_as_one_have_the_published_names(stylegan: Path, version: str) -> None:
    other = "v1" if version == "v2" else "v3"
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            "stylegan_generator": Generator(CONFIGS[other]),
            "property_score_cnn": PropertyCnn(),
        }
        if version == "v3":
            networks |= {"CVAE_encoder": CvaeEncoder(EncoderConfig()), "gender_cnn": make("gender")}
    state = published_composite(**networks)
    listed = json.loads((stylegan / f"keys_{version}_composite.json").read_text())
    assert {key: tuple(value.shape) for key, value in state.items()} == {k: tuple(s) for k, s, _ in listed["keys"]}


def test_composite_holds_the_networks_values() -> None:
    state = published_composite(CVAE_encoder=encoder(), gender_cnn=gender_cnn())
    for prefix, part in (("CVAE_encoder", encoder_state()), ("gender_cnn", score_cnn_state("gender"))):
        assert all(torch.equal(state[f"{prefix}.{key}"], value) for key, value in part.items()), prefix


def test_published_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "stylegan_gen_fine_tuned_v3_encoder.pth"
    torch.save(encoder_state(), path)
    model = checkpoints.load("cvae-encoder-v3", path)
    assert isinstance(model, CvaeEncoder)
    assert model.config == EncoderConfig()
    assert not model.training
    assert all(torch.equal(value, encoder_state()[key]) for key, value in published_state(model).items())


@pytest.mark.parametrize("config", [EncoderConfig(128, 512, 7, 0.1875), EncoderConfig(32, 16, 3, 0.01)])
def test_other_sizes_both_ways(tmp_path: Path, config: EncoderConfig) -> None:
    torch.manual_seed(1)
    model = CvaeEncoder(config).eval()
    checkpoints.save(model, tmp_path / "e.safetensors", "cvae-encoder-v3")
    torch.save(published_state(model), tmp_path / "e.pth")
    image, label = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, config.label_size)
    for name in ("e.safetensors", "e.pth"):
        again = checkpoints.load("cvae-encoder-v3", tmp_path / name)
        with torch.no_grad():
            for made, wanted in zip(again(image, label), model(image, label), strict=True):
                assert made.shape == (2, config.z_size)
                assert torch.equal(made, wanted)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    state = dict(encoder_state())
    del state["conv3.0.bias"]
    torch.save(state, tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: conv3\.0\.bias"):
        checkpoints.load("cvae-encoder-v3", tmp_path / "e.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match="is no 'cvae-encoder-v3'"):
        checkpoints.load("cvae-encoder-v3", tmp_path / "e.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"resolution": 100}, "multiple of 32, got 100"), ({"width": 0.0}, "width"), ({"z_size": 0}, "z_size >= 1")],
)
def test_wrong_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EncoderConfig(**changes)


def test_wrong_label_is_named() -> None:
    model = CvaeEncoder(EncoderConfig(32, 8, 7, 0.05))
    with pytest.raises(InvalidInputError, match=r"label must have shape \[N, 7\], got \[2, 3\]"):
        model(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3))


def test_latent_is_drawn_with_the_standard_deviation() -> None:
    mean, log_variance = torch.full((1, 3), 5.0), torch.full((1, 3), 2 * float(np.log(3.0)))
    noise = torch.tensor([[0.0, 1.0, -2.0]])
    assert draw_latent(mean, log_variance, noise).numpy() == pytest.approx(np.array([[5.0, 8.0, -1.0]]), abs=1e-5)
