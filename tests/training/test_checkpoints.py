"""Weights files: every layout that exists is read, everything else is refused by name."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.checkpoints import KINDS, kind_named, load, save
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_discriminator import Discriminator, DiscriminatorConfig
from ohlora.training.weights import stylegan_keys
from ohlora.training.weights.published import layout_of, published_state
from ohlora.training.weights.state_dicts import load_layout
from tests.support.golden_weights import discriminator_state, generator_state

SMALL = GeneratorConfig(resolution=16, z_size=8, w_size=8, label_size=3, embedding_size=4, channel_max=8)
DENSE0 = "mapping.dense0.weight"


@pytest.fixture
def v4() -> dict[str, Tensor]:
    return generator_state("v4")


def store(content: Any, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["stylegan-finetune-v4", "stylegan-vectorfind-v7"])
def test_bare_generator(tmp_path: Path, v4: dict[str, Tensor], kind: str) -> None:
    model = load(kind, store(v4, tmp_path))
    assert isinstance(model, Generator)
    assert not model.training
    assert model.config.label_size == 3
    again = published_state(model)
    assert again.keys() == v4.keys()
    assert all(torch.equal(again[key], v4[key]) for key in v4)


@pytest.mark.parametrize("nested", [False, True])
def test_wrapped_files(tmp_path: Path, nested: bool) -> None:
    first, last = generator_state("original"), dict(generator_state("original"))
    last["truncation.w_avg"] = torch.ones(512)
    content: dict[str, Any] = {
        "generator": first,
        "generator_smooth": last,
        "discriminator": discriminator_state("original"),
    }
    path = store({"models": content, "optimizers": {"lr": 0.1}} if nested else content, tmp_path)
    plain, smooth = load("stylegan-celeba256", path), load("stylegan-celeba256", path, smooth=True)
    assert isinstance(plain, Generator)
    assert isinstance(smooth, Generator)
    assert torch.equal(plain.w_avg, first["truncation.w_avg"])
    assert torch.equal(smooth.w_avg, last["truncation.w_avg"])
    judge = load("discriminator-celeba256", path)
    assert isinstance(judge, Discriminator)
    assert judge.config.group == 4
    assert torch.equal(published_state(judge)["layer13.weight"], content["discriminator"]["layer13.weight"])


def test_wrapped_file_without_the_wanted_part(tmp_path: Path) -> None:
    path = store({"generator_smooth": {"a": torch.zeros(1)}}, tmp_path)
    with pytest.raises(CheckpointError, match="no entry 'generator', only generator_smooth; pass smooth=True"):
        load("stylegan-celeba256", path)
    with pytest.raises(CheckpointError, match="no entry 'discriminator'"):
        load("discriminator-celeba256", path)


@pytest.mark.parametrize("stored", [torch.ones(15, 512), torch.ones(512), None])
def test_v5_means_are_ignored(tmp_path: Path, stored: Tensor | None) -> None:
    state = dict(generator_state("v5"))
    del state["truncation.w_avg"]
    if stored is not None:
        state["truncation.w_avg"] = stored
    model = load("stylegan-finetune-v5", store(state, tmp_path))
    assert isinstance(model, Generator)
    regular = stored is not None and stored.ndim == 1
    assert torch.equal(model.w_avg, torch.ones(512) if regular else torch.zeros(512))
    # Only v5 has that defect.
    state["truncation.w_avg"] = torch.ones(15, 512)
    with pytest.raises(CheckpointError, match=r"truncation.w_avg \[15, 512\] instead of \[512\]"):
        stylegan_keys.generator("v4").load({**generator_state("v4"), "truncation.w_avg": torch.ones(15, 512)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("synthesis.layer3.bias"), "1 missing: synthesis.layer3.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda s: s.update({DENSE0: torch.zeros(512, 9)}),
            r"mis-shaped: mapping.dense0.weight \[512, 9\] instead",
        ),
        (
            lambda s: s.update({DENSE0: s[DENSE0] * torch.nan}),
            "not finite real numbers in mapping.dense0.weight",
        ),
        (
            lambda s: s.update({"synthesis.layer2.blur.kernel": torch.zeros(512, 1, 3, 3)}),
            "other values than the fixed ones in synthesis.layer2.blur.kernel",
        ),
        (lambda s: [s.pop(f"synthesis.layer{i}.bias") for i in range(9)], r"9 missing: .* and 6 more"),
    ],
)
def test_damage_is_named(tmp_path: Path, v4: dict[str, Tensor], change: Any, message: str) -> None:
    state = dict(v4)
    change(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load("stylegan-finetune-v4", store(state, tmp_path))
    assert "weights.pth is no 'stylegan-finetune-v4'" in str(caught.value)


def test_other_kinds_are_recognised(tmp_path: Path, v4: dict[str, Tensor]) -> None:
    path = store(v4, tmp_path)
    with pytest.raises(CheckpointError, match="are those of stylegan-finetune-v4, stylegan-vectorfind-v6"):
        load("stylegan-finetune-v8", path)
    with pytest.raises(CheckpointError, match="are those of stylegan-finetune-v4"):
        load("discriminator-finetune-v4", path)
    path = store({"some.weight": torch.zeros(2)}, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load("stylegan-finetune-v8", path)
    assert "Its keys" not in str(caught.value)


class Payload:
    """Unpickling an instance would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path, victim = tmp_path / "weights.pth", tmp_path / "victim"
    with pytest.raises(CheckpointError, match="no weights file"):
        load("stylegan-celeba256", path)
    good = tmp_path / "good.pth"
    torch.save({"a": torch.zeros(1000)}, good)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    for content in (
        b"",
        b"not a checkpoint",
        good.read_bytes()[:-700],
        pickle.dumps(Payload(victim)),
        (tmp_path / "other.zip").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cannot read .*weights.pth"):
            load("stylegan-celeba256", path)
    torch.save({"generator": Payload(victim)}, path)
    with pytest.raises(CheckpointError, match="cannot read"):
        load("stylegan-celeba256", path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({1: torch.zeros(1)}, "not a dictionary of named tensors"),
        ({}, "no state dict"),
        ({"epoch": 3, "note": "x"}, "no tensors under epoch, note"),
    ],
)
def test_files_without_tensors(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load("stylegan-celeba256", store(content, tmp_path))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"model.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "callbacks": {}},
        lambda state: {"model_state_dict": state, "loss": np.float64(0.3), "step": np.int64(3)},
        lambda state: {"model": state, "ema": {key: torch.zeros_like(value) for key, value in state.items()}},
        lambda state: {"ema": state},
    ],
    ids=["parallel", "compiled", "both", "model", "lightning", "numpy-scalars", "beside-average", "average"],
)
def test_what_training_loops_put_around_a_state_is_removed(tmp_path: Path, v4: dict[str, Tensor], wrapped: Any) -> None:
    plain = load("stylegan-finetune-v4", store(v4, tmp_path)).state_dict()
    found = load("stylegan-finetune-v4", store(wrapped(v4), tmp_path)).state_dict()
    assert all(torch.equal(found[key], value) for key, value in plain.items())


@pytest.mark.parametrize("content", [{"a": np.zeros(3)}, {"a": Path("x")}], ids=["array", "path"])
def test_objects_are_named_without_advice_to_execute_them(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"it holds a [\w.]+, and objects other than tensors are never") as caught:
        load("stylegan-finetune-v4", store(content, tmp_path))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x80abc", b"PK\x03\x04", b"", b"\x80\x02}q\x00K\x01s."])
def test_damaged_pickles_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"it is damaged or of another format|not a dictionary") as caught:
        load("stylegan-finetune-v4", tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_tensors_without_axes_are_no_network(tmp_path: Path, v4: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="is no 'stylegan-finetune-v4'"):
        load("stylegan-finetune-v4", store({key: torch.tensor(1.0) for key in v4}, tmp_path))


def test_unknown_kind() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown kind of weights 'stylegan-v77'; known: .*stylegan-celeba256"):
        load("stylegan-v77", "x.pth")


def test_own_files(tmp_path: Path) -> None:
    model = Generator(SMALL)
    path = tmp_path / "small.safetensors"
    save(model, path, "stylegan")
    again = load("stylegan", path)
    assert isinstance(again, Generator)
    assert again.config == SMALL
    z, label = torch.randn(2, 8), torch.randn(2, 3)
    assert torch.equal(again(z, label), model.eval()(z, label))
    judge = Discriminator(DiscriminatorConfig(resolution=16, channel_max=8, group=2))
    save(judge, tmp_path / "judge.safetensors", "discriminator")
    assert load("discriminator", tmp_path / "judge.safetensors").config == judge.config
    with pytest.raises(CheckpointError, match="is no 'discriminator': its metadata say 'stylegan'"):
        load("discriminator", path)
    with pytest.raises(InvalidInputError, match=r"needs a .safetensors name"):
        save(model, tmp_path / "small.pth", "stylegan")


def test_damaged_own_files(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="was not written by this package"):
        load("stylegan", path)
    metadata = {"format": "ohlora-module-1", "kind": "stylegan", "config": '{"resolution": 16, "depth": 3}'}
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"no valid 'stylegan'.*depth"):
        load("stylegan", path)
    save_file({"a": torch.zeros(1)}, path, metadata=metadata | {"config": '{"resolution": 16}'})
    with pytest.raises(CheckpointError, match="missing"):
        load("stylegan", path)
    save(Generator(SMALL), path, "stylegan")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cannot read"):
        load("stylegan", path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match=r"reads our own .safetensors only"):
        load("stylegan", tmp_path / "small.pth")


def test_loading_leaves_the_random_stream_alone(tmp_path: Path, v4: dict[str, Tensor]) -> None:
    path = store(v4, tmp_path)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load("stylegan-finetune-v4", path)
    assert torch.equal(torch.rand(3), wanted)


def test_registry_entries_resolve() -> None:
    for name in KINDS:
        network = kind_named(name).network
        assert network.make or network.own
        assert bool(network.shapes()) == bool(network.make)


def test_published_layout_of_a_small_generator_round_trips() -> None:
    model, again = Generator(SMALL), Generator(SMALL)
    load_layout(again, published_state(model), layout_of(model))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_golden_weights_command(tmp_path: Path) -> None:
    path = tmp_path / "d.pth"
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        "-m",
        "tests.support.golden_weights",
        "--kind",
        "discriminator-finetune-v4",
        "--out",
        str(path),
    ]
    subprocess.run(command, cwd=root, check=True, timeout=300)
    assert isinstance(load("discriminator-finetune-v4", path), Discriminator)
