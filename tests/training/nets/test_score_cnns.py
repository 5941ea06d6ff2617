"""Score CNNs against the reference data: every layer, the outputs, the keys."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.nets import score_cnns
from ohlora.training.nets.score_cnns import (
    ATTRIBUTES,
    CropCnn,
    MergedCnn,
    PropertyCnn,
    at_cnn_size,
)
from ohlora.training.weights.published import published_state
from ohlora.training.weights.score_cnns_keys import ScoreCnn, layout_of, make, score_cnn
from tests.support.golden_weights import score_cnn_state

TOLERANCE = 2e-5
FILES = {
    **{name: f"{name}_cnn" for name in ATTRIBUTES},
    "property": "property_score_cnn",
    "hairstyle": "hairstyle_score_cnn",
    "merged": "merged_property_score_cnn",
}


@cache
def network(name: str) -> Any:
    return score_cnn(name).load(score_cnn_state(name)).eval()


@pytest.fixture(scope="module")
def cnn(golden: Path) -> Path:
    return golden / "cnn"


def pictures(folder: Path, name: str) -> Tensor:
    with np.load(folder / "images.npz") as file:
        image = torch.from_numpy(file["images_uint8"]).permute(0, 3, 1, 2).float() / 255
    return image if name in ATTRIBUTES else (image - 0.5) / 0.5


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_outputs_and_layers_match(cnn: Path, name: str) -> None:
    model = network(name)
    seen = record(model)
    with np.load(cnn / f"{FILES[name]}.npz") as file:
        wanted = file["output"]
    assert np.abs(model(pictures(cnn, name)).numpy() - wanted).max() <= TOLERANCE
    for row in json.loads((cnn / "layer_trace.json").read_text())[FILES[name]]:
        out = seen[row["module"]]
        assert list(out.shape[1:]) == row["out_shape"], row["module"]
        assert out.double().mean() == pytest.approx(row["mean"], abs=TOLERANCE), row["module"]
        assert out.double().std() == pytest.approx(row["std"], abs=1e-4), row["module"]
        assert out[0].flatten()[:4].tolist() == pytest.approx(row["first4"], abs=1e-4), row["module"]


def record(model: ScoreCnn) -> dict[str, Tensor]:
    """Published layer name -> output of the next call: convolutions before, pools after their activation."""
    seen: dict[str, Tensor] = {}
    ours_to_theirs = {ours: theirs for theirs, ours in layout_of(model).names.items()}
    for path, module in model.named_modules():
        theirs = ours_to_theirs.get(f"{path}.weight")
        if theirs is None:
            continue
        name = theirs.removesuffix(".weight")

        def keep(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
            seen[name] = out.clone()  # the activation is in place

        module.register_forward_hook(keep)
    for path, module in model.named_modules():
        if isinstance(module, score_cnns.Tower):
            prefix = ours_to_theirs[f"{path}.convs.0.weight"].removesuffix("conv1.0.weight")

            def pools(tower: Any, _: Any, __: Any, prefix: str = prefix) -> None:
                for c, pool in enumerate(tower.pools):
                    if pool:
                        conv = F.leaky_relu(seen[f"{prefix}conv{c + 1}.0"], 0.01)
                        seen[f"{prefix}pool{sum(tower.pools[: c + 1])}"] = F.max_pool2d(conv, 2)

            module.register_forward_hook(pools)
    return seen


@pytest.mark.parametrize("name", FILES)
def test_keys_are_the_published_ones(cnn: Path, name: str) -> None:
    wanted = json.loads((cnn / f"{FILES[name]}.keys.json").read_text())
    assert score_cnn(name).shapes() == {key: tuple(shape) for key, shape in wanted.items()}
    assert sorted(layout_of(network(name)).names.values()) == sorted(network(name).state_dict())


@pytest.mark.parametrize(("name", "file"), [("gender", "keys_gender_cnn"), ("property", "keys_v2_property_cnn")])
def test_keys_and_counts_of_the_stylegan_data(golden: Path, name: str, file: str) -> None:
    content = json.loads((golden / "stylegan" / f"{file}.json").read_text())
    assert score_cnn(name).shapes() == {key: tuple(shape) for key, shape, _ in content["keys"]}
    assert sum(p.numel() for p in make(name).parameters()) == content["n_params"]


@torch.no_grad()
def test_property_scores_of_rule_images_match(golden: Path) -> None:
    from tests.support.golden_values import rule_images

    with np.load(golden / "stylegan" / "v2_property_cnn.npz") as file:
        made = network("property")(rule_images(int(file["image_seed"])))
        assert np.abs(made.numpy() - file["scores"]).max() <= TOLERANCE


@torch.no_grad()
def test_merged_is_both(cnn: Path) -> None:
    image = pictures(cnn, "merged")
    both = MergedCnn(network("property"), network("hairstyle"))(image)
    assert torch.equal(both[:, :7], network("property")(image))
    assert torch.equal(both[:, 7:], network("hairstyle")(image))
    # The hairstyle part of a merged file is seeded by its prefixed names, so only the first seven agree.
    assert torch.equal(network("merged")(image)[:, :7], both[:, :7])


@torch.no_grad()
def test_some_parts_only(cnn: Path) -> None:
    image, model = pictures(cnn, "property"), network("property")
    assert isinstance(model, PropertyCnn)
    assert torch.equal(model.only(image, ("pose", "background")), model(image)[:, [4, 5, 6]])
    with pytest.raises(InvalidInputError, match="no part 'nose'"):
        model.only(image, ("nose",))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gender", 5_845_697),
        ("quality", 6_828_481),
        ("age", 7_418_561),
        ("glass", 3_682_753),
        ("property", 11_516_807),
        ("hairstyle", 8_605_377),
        ("merged", 20_122_184),
    ],
)
def test_documented_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = make(name)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_files_of_any_width(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = make(name, 0.07).eval()
    checkpoints.save(model, tmp_path / "own.safetensors", f"cnn-{name}")
    torch.save(published_state(model), tmp_path / "published.pt")
    image = torch.rand(2, 3, 256, 256)
    for file in ("own.safetensors", "published.pt"):
        assert torch.equal(checkpoints.load(f"cnn-{name}", tmp_path / file)(image), model(image))


@given(st.floats(1e-4, 2.0))
@settings(max_examples=40, deadline=None)
def test_the_hidden_layer_tells_the_width(width: float) -> None:
    for documented in (256, 512):
        read = score_cnns.width_of_hidden(score_cnns.channels(documented, width), documented)
        assert [score_cnns.channels(c, read) for c in (32, 64, 96, 128, 256)] == [
            score_cnns.channels(c, width) for c in (32, 64, 96, 128, 256)
        ]


def test_another_network_is_named(tmp_path: Path) -> None:
    torch.save(score_cnn_state("age"), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="Its keys are those of cnn-age"):
        checkpoints.load("cnn-gender", tmp_path / "a.pt")
    state = score_cnn_state("hairstyle")
    torch.save({k: v for k, v in state.items() if not k.startswith("bottom_left_cnn.conv3")}, tmp_path / "h.pt")
    with pytest.raises(CheckpointError, match=r"2 missing: bottom_left_cnn[.]conv3"):
        checkpoints.load("cnn-hairstyle", tmp_path / "h.pt")


def test_dropout_is_the_documented_one() -> None:
    torch.manual_seed(0)
    model = make("glass", 0.25).train()
    assert isinstance(model, CropCnn)
    x = torch.rand(64, 3, 256, 256)
    off = model.eval().towers[0](x)
    on = model.train().towers[0](x)
    # Whole channels vanish: the flattened map is zero in runs of one map each.
    maps = on.unflatten(1, (64, -1))
    gone = (maps == 0).all(2)
    assert 0.02 < gone.float().mean() < 0.09
    assert not torch.equal(on, off)
    assert {score_cnns.CLASSIFIERS[a].dropout for a in ATTRIBUTES} == {0.45}
    assert score_cnns.HAIRSTYLE.dropout == 0.25


def test_gradients_reach_the_picture_and_any_size_fits() -> None:
    torch.manual_seed(0)
    model = make("property", 0.05).eval()
    for size in (64, 256, 300):
        image = torch.rand(1, 3, size, size, requires_grad=True)
        seen = at_cnn_size(image)
        assert tuple(seen.shape) == (1, 3, 256, 256)
        assert (seen is image) == (size == 256)
        (gradient,) = torch.autograd.grad(model(seen).sum(), image)
        assert gradient.abs().sum() > 0
    with pytest.raises(InvalidInputError, match=r"image must have shape \[N, 3, 256, 256\], got \[1, 3, 64, 64\]"):
        model(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), 9.0])
def test_a_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(InvalidInputError, match=r"width must be in \(0, 8\]"):
        make("gender", width)
    with pytest.raises(InvalidInputError, match="unknown attribute 'beauty'"):
        make("beauty")
