"""FaceXFormer: published names, golden outputs, the rewritten parser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.errors import CheckpointError
from ohlora.training import checkpoints
from ohlora.training.nets.facexformer import STAGES, FaceXFormer, WindowAttention, empty_network, position_index
from ohlora.training.nets.facexformer_decoder import ANSWERS
from ohlora.training.nets.facexformer_parser import ParseGraph, Windows, shift_mask
from ohlora.training.teachers.protocol import normalized
from ohlora.training.weights.facexformer_keys import DEAD, TEACHER
from tests.support.golden_weights import facexformer_state

LOGITS = 1e-4
OTHERS = 2e-5
STAGE = 5e-5
SAME_CLASS = 0.9999  # share of pixels


@pytest.fixture(scope="module")
def model() -> FaceXFormer:
    return TEACHER.load(facexformer_state()).eval()


@pytest.fixture
def stored(request: pytest.FixtureRequest, case: str) -> dict[str, np.ndarray]:
    """Input a is noise; b is a face, and stays outside the repository."""
    folder = request.getfixturevalue("golden") if case == "a" else request.getfixturevalue("shared") / "golden"
    with np.load(folder / "segmentation" / "facexformer.npz") as file:
        return {name: file[name] for name in file.files}


def input_of(stored: dict[str, np.ndarray], case: str) -> Tensor:
    if case == "b":
        return torch.from_numpy(normalized(stored["input_b_uint8"]).transpose(2, 0, 1)[None].copy())
    rng = np.random.Generator(np.random.PCG64(int(stored["input_a_seed"])))
    return torch.from_numpy(rng.standard_normal((1, 3, 224, 224)).astype(np.float32))


def test_published_keys(golden: Path) -> None:
    table = json.loads((golden / "segmentation" / "facexformer_keys.json").read_text())
    assert {key: tuple(entry["shape"]) for key, entry in table.items()} == TEACHER.shapes()


def test_size_of_the_network() -> None:
    network = empty_network()
    dead = sum(int(np.prod(shape)) for shape in DEAD.values())
    assert sum(p.numel() for p in network.parameters()) + dead == 91_985_943
    assert all(p.device.type == "cpu" for p in network.parameters())


@pytest.mark.parametrize("case", ["a", "b"])
@torch.no_grad()
def test_golden_outputs(stored: dict[str, np.ndarray], model: FaceXFormer, case: str) -> None:
    image = input_of(stored, case)
    answers = model(image)
    for logits in (answers["parsing"], ParseGraph(model)(image)):
        difference = np.abs(logits[0, :, ::4, ::4].numpy() - stored[f"parsing_logits_{case}_every4"]).max()
        assert difference < LOGITS
        hair = torch.softmax(logits, 1)[0, 10, ::2, ::2].numpy()
        assert np.abs(hair - stored[f"hair_softmax_{case}_every2"]).max() < 1e-5
        assert (logits[0].argmax(0).numpy() == stored[f"argmax_{case}"]).mean() >= SAME_CLASS
    for answer in ANSWERS.keys() - {"parsing"}:
        expected = stored[f"{'headpose' if answer == 'pose' else answer}_{case}"]
        assert answers[answer].shape == (1, len(expected))
        assert np.abs(answers[answer][0].numpy() - expected).max() < OTHERS, answer
    # Parsing alone is the same as parsing among all.
    assert torch.equal(model.parse(image), answers["parsing"])


@pytest.mark.parametrize("case", ["a", "b"])
@torch.no_grad()
def test_golden_stages_and_places(stored: dict[str, np.ndarray], model: FaceXFormer, case: str) -> None:
    for i, (stage, step) in enumerate(zip(model.stages(input_of(stored, case)), (4, 2, 1, 1), strict=True)):
        made = stage[0, ::step, ::step, :4].permute(2, 0, 1).numpy()
        assert np.abs(made - stored[f"stage{i}_{case}_ch0_3"]).max() < STAGE
    places = model.places().unflatten(0, (56, 56)).permute(2, 0, 1)
    assert places[:8, ::8, ::8].numpy() == pytest.approx(stored["pe_ch0_7_every8"], abs=1e-5)


@torch.no_grad()
def test_batch_is_many_singles(model: FaceXFormer) -> None:
    graph = ParseGraph(model)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert (graph(images) - torch.cat([graph(image[None]) for image in images])).abs().max() < LOGITS


@pytest.mark.parametrize(("grid", "shift"), [(7, 0), (7, 3), (14, 0), (14, 3)])
@torch.no_grad()
def test_windows_are_those_of_torchvision(grid: int, shift: int) -> None:
    torch.manual_seed(grid + shift)
    attention = WindowAttention(32, [7, 7], [shift, shift], 4).eval()
    attention.relative_position_bias_table.normal_()
    pictures = torch.randn(3, grid, grid, 32)
    assert torch.allclose(Windows(attention, grid)(pictures), attention(pictures), atol=2e-6)


def test_shift_mask_separates_borders() -> None:
    mask = shift_mask(14, 3)
    assert mask.shape == (4, 49, 49)
    assert not mask[0].any()  # the first window holds neighbours only
    assert set(mask.unique().tolist()) == {-100.0, 0.0}


@torch.no_grad()
def test_file(tmp_path: Path, model: FaceXFormer) -> None:
    published = facexformer_state()
    torch.save({"state_dict_backbone": published, "epoch": 7}, tmp_path / "model.pt")
    assert checkpoints.recognise(tmp_path / "model.pt", ("bisenet-19", "facexformer")) == "facexformer"
    loaded = checkpoints.load("facexformer", tmp_path / "model.pt")
    assert isinstance(loaded, FaceXFormer)
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_every_key_counts() -> None:
    published = {key: torch.zeros(shape) for key, shape in TEACHER.shapes().items()}
    published |= {key: position_index() for key in published if key.endswith("relative_position_index")}
    for key in ("backbone.0.0.0.weight", "linear_fuse.weight"):
        with pytest.raises(CheckpointError, match=f"1 missing: {key}"):
            TEACHER.load({k: v for k, v in published.items() if k != key})
    with pytest.raises(CheckpointError, match="1 unexpected: extra"):
        TEACHER.load({**published, "extra": torch.zeros(1)})
    table = f"backbone.0.{STAGES[0]}.0.attn.relative_position_index"
    with pytest.raises(CheckpointError, match=f"fixed ones in {table}"):
        TEACHER.load({**published, table: position_index().flip(0)})


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"224.*256"):
        empty_network().stages(torch.zeros(1, 3, 256, 256))


def test_file_of_another_network(tmp_path: Path) -> None:
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is none of facexformer, bisenet-19"):
        checkpoints.recognise(tmp_path / "other.pt", ("facexformer", "bisenet-19"))
    with pytest.raises(CheckpointError, match="no weights file"):
        checkpoints.recognise(tmp_path / "gone.pt", ("facexformer",))
