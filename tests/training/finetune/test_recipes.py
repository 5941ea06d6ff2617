"""Recipes as data, and the networks they make of their start weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ohlora.base.recipe import read_changes
from ohlora.errors import InvalidInputError
from ohlora.training.finetune.recipes import COMPAT, RECIPES, Recipe, recipe
from ohlora.training.finetune.transfer import (
    property_discriminator,
    published_names,
    select,
    start_discriminator,
    start_generator,
    trained_names,
)
from ohlora.training.nets import stylegan, stylegan_discriminator
from ohlora.training.nets.score_cnns import PropertyCnn, PropertyCnnConfig
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from tests.support.finetune_sets import WIDTH, short, start_label, tiny_discriminator, tiny_generator

GENERATOR_KEYS = {
    "v1": "v1_generator",
    "v2": "v1_generator",
    "v3": "v3_generator",
    "v4": "v4_v6_v7_generator",
    "v5": "v5_generator",
    "v8": "v1_generator",
    "v9": "v9_generator",
}


def by_name(module: Generator | Discriminator) -> dict[str, torch.Tensor]:
    state = module.state_dict()
    return {theirs: state[ours] for theirs, ours in published_names(module).items()}


@pytest.mark.parametrize("version", ["v1", "v4", "v8", "v9"])
def test_what_is_trained_is_documented(golden: Path, version: str) -> None:
    lists = json.loads((golden / "stylegan/trainable_parameters.json").read_text())[version]
    chosen = RECIPES[version]
    with torch.device("meta"):
        generator = Generator(stylegan.CONFIGS[version])
        discriminator = Discriminator(stylegan_discriminator.CONFIGS[version])
    assert sorted(trained_names(generator, chosen.generator_trained)) == sorted(lists["generator"])
    assert sorted(trained_names(discriminator, chosen.discriminator_trained)) == sorted(lists["discriminator"])


def test_documented_numbers() -> None:
    """docs/spec/stylegan.md, section 7.4: the values that differ."""
    rows = {name: (r.batch_size, r.mixing, r.psi, r.labels, r.cosine, r.log_every) for name, r in RECIPES.items()}
    assert rows == {
        "v1": (16, 0.9, 1.0, "scores", 0, 10),
        "v2": (16, 0.0, 1.0, "random", 20, 50),
        "v3": (8, 0.0, 1.0, "scores", 10, 20),
        "v4": (8, 0.0, 1.0, "scores", 0, 20),
        "v5": (16, 0.0, 0.5, "scores", 0, 10),
        "v8": (8, 0.0, 1.0, "zeros", 0, 50),
        "v9": (8, 0.0, 1.0, "zeros", 0, 50),
    }
    assert {r.learning_rate for name, r in RECIPES.items() if name != "v2"} == {1e-4}
    assert RECIPES["v2"].learning_rate == RECIPES["v3"].encoder_rate == 1e-5
    assert all(r.betas == (0.9, 0.999) and r.weight_decay == 0.01 and r.group == 16 for r in RECIPES.values())


@pytest.mark.parametrize("version", list(GENERATOR_KEYS))
def test_networks_of_the_documented_size_have_the_published_shapes(golden: Path, version: str) -> None:
    """From the documented start weights, with the label added as documented."""
    stored = json.loads((golden / f"stylegan/keys_{GENERATOR_KEYS[version]}.json").read_text())
    wanted = {name: tuple(shape) for name, shape, _ in stored["keys"] if not name.endswith("blur.kernel")}
    with torch.device("meta"):  # shapes only
        start = Generator(stylegan.CONFIGS[RECIPES[version].starts_from])
        made = start_generator(RECIPES[version], start)
    assert {name: tuple(value.shape) for name, value in by_name(made).items()} == wanted


@pytest.mark.parametrize("version", list(GENERATOR_KEYS))
def test_only_what_is_redrawn_differs_from_the_start(version: str) -> None:
    label, embedding = start_label(version)
    start, chosen = tiny_generator(label, embedding), short(version)
    made = start_generator(chosen, start)
    old, new = by_name(start), by_name(made)
    fresh = set(select(chosen.generator_redrawn, list(new)))
    assert (fresh == set()) == (version in ("v2", "v8"))
    for name, value in new.items():
        if name in fresh:
            assert name not in old or old[name].shape != value.shape or not torch.equal(old[name], value)
        else:
            assert torch.equal(old[name], value)
    assert made.config.resolution == start.config.resolution
    again, other = start_generator(chosen, start), start_generator(short(version, seed=8), start)
    assert all(torch.equal(value, by_name(again)[name]) for name, value in new.items())
    assert all(torch.equal(value, by_name(other)[name]) == (name not in fresh) for name, value in new.items())


@pytest.mark.parametrize("version", ["v1", "v4", "v8", "v9"])
def test_discriminators_keep_all_but_their_last_layer(version: str) -> None:
    start, chosen = tiny_discriminator(start_label(version)[0]), short(version)
    made = start_discriminator(chosen, start)
    assert made.config.group == 16
    assert made.config.label_size == chosen.label_size
    old, new = by_name(start), by_name(made)
    changed = {name for name in new if old[name].shape != new[name].shape or not torch.equal(old[name], new[name])}
    # A fresh bias is zero, as the tiny start's is.
    assert changed == ({"layer4.weight"} if version in ("v1", "v4") else set())
    assert {"layer2.weight", "layer4.bias"} <= set(trained_names(made, chosen.discriminator_trained))


def test_the_second_mapping_branch_of_v9_starts_near_nothing() -> None:
    start = Generator(stylegan.GeneratorConfig(resolution=8, label_size=7, embedding_size=16, channel_max=4))
    made = start_generator(RECIPES["v9"], start)
    for layer in made.mapping.split:
        for tensor in (layer.weight, layer.bias):
            assert float(tensor.detach().std()) == pytest.approx(0.15, rel=0.1)
    z, label = torch.randn(4, 512), torch.zeros(4, 7)
    with torch.no_grad():
        torch.testing.assert_close(made.mapping(z, label), start.mapping(z, label), atol=0.02, rtol=0)


def test_the_v5_discriminator_starts_from_the_property_cnn() -> None:
    torch.manual_seed(0)
    cnn = PropertyCnn(PropertyCnnConfig(WIDTH))
    first, second = (property_discriminator(RECIPES["v5"], cnn) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(first.parts["eyes"].hidden.weight, cnn.parts["eyes"].hidden.weight)  # type: ignore[union-attr]
    assert len(trained_names(first, RECIPES["v5"].discriminator_trained)) == 42
    with pytest.raises(InvalidInputError, match="has the label eyes, mouth, pose"):
        property_discriminator(recipe("v5", properties=("eyes", "pose", "mouth")), cnn)


def test_a_start_of_another_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInputError) as caught:
        start_generator(short("v8"), tiny_generator())
    message = str(caught.value)
    assert "recipe v8 starts from the generator of 'v1'" in message
    assert "mapping.dense0.weight is [12, 12], not [12, 28]; mapping.label_weight is missing" in message
    remedy = message.rpartition("--set ")[2]
    assert start_generator(recipe("v8", **read_changes(Recipe, [remedy])), tiny_generator()).config.label_size == 7


def test_patterns_cut_numbered_layers_like_lists() -> None:
    names = [f"layer{i}.{leaf}" for i in range(12) for leaf in ("weight", "bias")] + ["layers.x", "lod"]
    assert select(["layer[-2:]"], names) == ["layer10.weight", "layer10.bias", "layer11.weight", "layer11.bias"]
    assert select(["layer[:1]"], names) == ["layer0.weight", "layer0.bias"]
    assert select(["layer[1:3].bias"], names) == ["layer1.bias", "layer2.bias"]
    assert select(["layer1"], names) == ["layer1.weight", "layer1.bias"]
    assert select(["*"], names) == names
    assert select(["layer[-1:]", "lod"], names) == ["layer11.weight", "layer11.bias", "lod"]
    with pytest.raises(
        InvalidInputError, match=r"pattern 'mappings' .* no tensor of the generator: they are named like"
    ):
        trained_names(tiny_generator(), ["mappings"])


def test_changes_are_read_and_checked() -> None:
    changes = read_changes(
        Recipe,
        ["batch_size=4", "random-noise=yes", "test_error=1, 2,3", "scored=eyes,pose", "batches_per_epoch=none",
         "gender_input=signed", "learning_rate=2e-4"],
    )  # fmt: skip
    made = recipe("v3", **changes)
    assert (made.batch_size, made.random_noise, made.test_error) == (4, True, (1.0, 2.0, 3.0))
    assert (made.scored, made.batches_per_epoch, made.gender_input) == (("eyes", "pose"), None, "signed")
    assert recipe("v3", batches_per_epoch=7).batches_per_epoch == 7
    for text, message in (
        ("batch_size", "'batch_size' is not understood: write NAME=VALUE"),
        ("batch_size=x", "recipe v3: batch_size must be a whole number, got 'x'"),
        ("random_noise=maybe", "random_noise must be true or false, got 'maybe'"),
        ("colour=red", "recipe v3: unknown setting 'colour'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_changes(Recipe, [text], "recipe v3: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": 1.5}, r"recipe v1: mixing must be in \[0, 1\], got 1.5"),
        ({"learning_rate": 0.0}, "recipe v1: learning_rate must be more than 0"),
        ({"batch_size": 0}, "recipe v1: batch_size must be at least 1, got 0"),
        ({"labels": "none"}, "recipe v1: labels must be scores, zeros or random, got 'none'"),
        ({"properties": ("eyes", "nose")}, "recipe v1: properties must be eyes, hair_color"),
        ({"betas": (0.9, 1.0)}, "recipe v1: betas must be at least 0 and less than 1, got 1.0"),
        ({"colour": 1}, "recipe v1: unknown setting 'colour'"),
        ({"psi": float("nan")}, "recipe v1: psi must be in"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        recipe("v1", **changes)


def test_switches_of_the_published_programs() -> None:
    assert recipe("v4").mixing == 0.0
    assert recipe("v4", compat=True).mixing == 0.9
    assert recipe("v4", compat=True, mixing=0.5).mixing == 0.5
    assert recipe("v2", compat=True).generator_redrawn == ("mapping.dense0.weight",)
    assert recipe("v1", compat=True) == RECIPES["v1"]
    assert all(name in Recipe.__dataclass_fields__ for changes in COMPAT.values() for name in changes)
    with pytest.raises(InvalidInputError, match="unknown recipe 'v6': choose v1, v2, v3, v4, v5, v8 or v9"):
        recipe("v6")


def test_what_only_watches_is_no_part_of_the_identity() -> None:
    assert recipe("v1", log_every=3, epochs=9, dump="files").identity() == RECIPES["v1"].identity()
    assert recipe("v1", seed=3).identity() != RECIPES["v1"].identity()
    assert json.loads(json.dumps(RECIPES["v5"].identity())) == RECIPES["v5"].identity()
