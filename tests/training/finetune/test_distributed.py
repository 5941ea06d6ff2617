"""Two processes give what one gives: gradients averaged, batches shared, random numbers drawn for the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.finetune.draws import Draws, mixed
from ohlora.training.finetune.pictures import Batches
from ohlora.training.finetune.run import run_recipe
from ohlora.training.loop.distributed import average_gradients, gathered, make_fabric, mean_of, my_share
from ohlora.training.nets.stylegan import GeneratorConfig
from tests.support.finetune_processes import CHANGES, inputs_of
from tests.support.finetune_sets import make_inputs, short

ROOT = Path(__file__).resolve().parents[3]


def as_process(rank: int, world: int) -> Any:
    return cast(Any, SimpleNamespace(world_size=world, global_rank=rank))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder, "v1")
    return folder


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    run_recipe(short("v1", **CHANGES), inputs_of(inputs), out, fabric=make_fabric("cpu"))
    return out


def launch(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_as_alone(alone: Path, together: Path) -> None:
    assert (together / "train_log.csv").read_text().splitlines()[0] == (
        (alone / "train_log.csv").read_text().splitlines()[0]
    )
    for name, kind in (("generator", "stylegan"), ("discriminator", "discriminator")):
        first = checkpoints.load(kind, alone / f"{name}.safetensors").state_dict()
        second = checkpoints.load(kind, together / f"{name}.safetensors").state_dict()
        for key, value in first.items():
            # AdamW's first steps have length learning_rate whatever the gradient: rounding of a gradient that is
            # nearly zero can turn one of them around.
            torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-3, msg=key)
            close = (second[key] - value).abs() <= 1e-5 + 1e-5 * value.abs()
            assert close.float().mean() > 0.98, key
    rows = [(out / "train_log.csv").read_text().splitlines()[1:] for out in (alone, together)]
    for one, two in zip(*rows, strict=True):
        for a, b in zip(one.split(","), two.split(","), strict=True):
            assert float(a) == pytest.approx(float(b), abs=2e-3)


@pytest.mark.slow  # starts Python and PyTorch three times
def test_two_processes_of_fabrics_launcher_give_the_result_of_one(inputs: Path, alone: Path, tmp_path: Path) -> None:
    launch("-m", "tests.support.finetune_processes", str(inputs), str(tmp_path), "2")
    assert_as_alone(alone, tmp_path)


@pytest.mark.slow  # as above
def test_two_processes_below_fabric_run_give_the_result_of_one(inputs: Path, alone: Path, tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.support.finetune_processes import main\nmain()\n"
    )
    options = ("--accelerator=cpu", "--strategy=ddp", "--devices=2", "--num-nodes=1")
    launch("-m", "lightning.fabric.cli", *options, str(script), str(inputs), str(tmp_path / "out"), "0")
    assert_as_alone(alone, tmp_path / "out")


def test_one_process_needs_no_messages() -> None:
    fabric = make_fabric("cpu")
    value = torch.randn(3)
    assert mean_of(fabric, value) is value
    assert gathered(fabric, value) is value
    parameter = torch.nn.Parameter(value)
    parameter.grad = torch.ones(3)
    average_gradients(fabric, [parameter])
    assert torch.equal(parameter.grad, torch.ones(3))


def test_shares_cover_the_batch_and_uneven_ones_are_refused() -> None:
    shares = [my_share(as_process(rank, 3), 12) for rank in range(3)]
    assert [i for share in shares for i in range(12)[share]] == list(range(12))
    with pytest.raises(InvalidInputError, match="batch of 10 cannot be divided among 3 processes"):
        my_share(as_process(0, 3), 10)


def test_every_process_draws_the_same_batch() -> None:
    config = GeneratorConfig(resolution=8, z_size=5)
    cpu = torch.device("cpu")
    whole = Draws(7, 2, 3, 4, slice(0, 4), cpu)
    halves = [Draws(7, 2, 3, 4, slice(i, i + 2), cpu, rank=i // 2) for i in (0, 2)]
    assert torch.equal(whole.latents(100, 5), torch.cat([half.latents(100, 5) for half in halves]))
    assert torch.equal(whole.centers(100, 3, 5), torch.cat([half.centers(100, 3, 5) for half in halves]))
    for maps in zip(whole.noise(100, config), *(half.noise(100, config) for half in halves), strict=True):
        assert torch.equal(maps[0], torch.cat(maps[1:]))
    mixing = whole.mixing(100, 1.0, config)
    parts = [half.mixing(100, 1.0, config) for half in halves]
    assert mixing is not None
    assert all(part is not None and part[1] == mixing[1] for part in parts)
    assert torch.equal(mixing[0], torch.cat([part[0] for part in parts if part is not None]))
    assert not torch.equal(whole.latents(100, 5), whole.latents(200, 5))
    assert whole.mixing(100, 0.0, config) is None


def test_seeds_differ_for_near_keys() -> None:
    seeds = {mixed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_batches_of_several_processes_leave_no_remainder() -> None:
    batches = Batches(count=4703, batch_size=16, processes=4)
    assert len(batches) == 294
    assert batches.size(293) == 12  # of 15
    with pytest.raises(InvalidInputError, match="batch_size 6 cannot be divided among 4"):
        Batches(count=100, batch_size=6, processes=4)


def test_devices_that_are_not_there_are_named() -> None:
    if torch.cuda.device_count() < 64:
        with pytest.raises(InvalidInputError, match="cannot train on 64 device"):
            make_fabric("cuda", devices=64)
    with pytest.raises(InvalidInputError, match="devices and nodes must be 1 or more"):
        make_fabric("cpu", devices=0)
    with pytest.raises(InvalidInputError, match="unknown precision '8'"):
        make_fabric("cpu", precision="8")
