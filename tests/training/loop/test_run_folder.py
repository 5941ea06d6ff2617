"""A run folder: what it refuses, what it keeps, how it is stopped; a training in it resumes to the same numbers."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ohlora.errors import InvalidInputError, OutputError
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import CsvLog, append_row, read_rows, write_rows, write_table
from ohlora.training.loop.run_folder import RunFolder, difference
from ohlora.training.loop.states import load_states, save_tensors, states_of
from ohlora.training.loop.steps import (
    EpochState,
    TrainingStoppedError,
    gradient_norm,
    require_finite,
    train_epochs,
    train_steps,
)

IDENTITY = {"recipe": {"rate": 0.1, "betas": [0.0, 0.99]}, "pictures": "f00d"}


class Descent:
    """Adam on a small network; every step's numbers depend on its number alone."""

    def __init__(self, out: Path, steps: int = 8, identity: Any = None, **options: Any) -> None:
        self.folder = RunFolder(out, identity or IDENTITY, make_fabric("cpu"), **options)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.network = nn.Linear(3, 2)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.1)
        self.parts = {"network": self.network, "more": {"optimizer": self.optimizer}}
        self.steps, self.at = steps, 0

    def run(self) -> bool:
        saved = self.folder.saved
        if saved is not None:
            load_states(self.parts, saved)
            self.at = saved["at"]
        with self.folder:
            return self._run()

    def _run(self) -> bool:
        self.table = self.folder.table("log.csv", ("step", "loss"))
        with self.folder.stop_requests():
            ended = train_steps(self.folder, lambda: self.at >= self.steps, self.step, self.save)
        if ended:
            self.save()
        return ended

    def step(self) -> None:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(self.at))
        loss = self.network(x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.table.append({"step": self.at, "loss": float(loss.detach())})
        self.at += 1

    def save(self) -> None:
        self.folder.save({"at": self.at, **states_of(self.parts)}, self.at)


def test_stopped_runs_end_like_one_that_never_was(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert Descent(whole).run()
    for stop in (3, 1):
        assert not Descent(parts, stop_after=stop).run()
    last = Descent(parts)
    assert last.run()
    assert torch.equal(last.network.weight, torch.load(whole / "checkpoint-00000008.pt")["network"]["weight"])
    assert (parts / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    assert [path.name for path in last.folder.states()] == ["checkpoint-00000004.pt", "checkpoint-00000008.pt"]


def test_settings_that_are_left_out_count_with_their_defaults() -> None:
    plain, mixed = (json.dumps({"recipe": {"rate": 1, **more}}) for more in ({}, {"mix": 0.5}))
    assert difference(plain, mixed) == ""
    defaults = {"recipe": {"mix": None}}
    assert "mix was None, now 0.5" in difference(plain, mixed, defaults)
    assert "mix was 0.5, now None" in difference(mixed, plain, defaults)
    assert difference(plain, plain, defaults) == difference(mixed, mixed, defaults) == ""


def test_a_folder_forgets_its_states(tmp_path: Path) -> None:
    run = Descent(tmp_path, 3)
    assert run.run()
    run.folder.forget()
    assert not list(tmp_path.glob("*.pt"))
    assert Descent(tmp_path, 3).folder.saved is None


def test_rows_after_the_last_state_are_written_again(tmp_path: Path) -> None:
    assert not Descent(tmp_path, stop_after=3).run()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("3,3,9.9\n4,4,0.")
    (tmp_path / ".ohlora-tmp-left.pt").write_bytes(b"half")
    assert Descent(tmp_path, 5).run()
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["step", "0", "1", "2", "3", "4"]
    assert not list(tmp_path.glob(".ohlora-tmp-*"))


def test_a_signal_ends_the_step_under_way_and_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run = Descent(tmp_path)
    original = run.step

    def step() -> None:
        original()
        if run.at == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run.step = step  # type: ignore[method-assign]
    assert not run.run()
    assert run.at == 2
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "checkpoint-00000002.pt").is_file()


def test_a_folder_may_keep_one_state(tmp_path: Path) -> None:
    assert Descent(tmp_path, 3, state_file="last.pt").run()
    assert [path.name for path in tmp_path.glob("*.pt")] == ["last.pt"]
    assert Descent(tmp_path, 3, state_file="last.pt").folder.saved is not None
    assert Descent(tmp_path, 3, state_file="last.pt", resume=False).folder.saved is None


def test_another_run_or_a_damaged_state_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    Descent(tmp_path, 2).run()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    other = {**IDENTITY, "recipe": {**IDENTITY["recipe"], "rate": 0.2}}  # type: ignore[dict-item]
    with pytest.raises(InvalidInputError, match=r"holds a run with other recipe \(rate was 0.1, now 0.2\)"):
        Descent(tmp_path, identity=other)
    with pytest.raises(InvalidInputError, match="format; delete it to resume from the one before, or use --restart"):
        Descent(tmp_path, kind="another")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    (tmp_path / "checkpoint-00000002.pt").write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match=r"cannot resume from .*checkpoint-00000002.pt: .*use --restart"):
        Descent(tmp_path)
    assert Descent(tmp_path, 1, resume=False).run()
    assert not (tmp_path / "checkpoint-00000002.pt").exists()


def test_differences_are_named_and_settings_of_one_version_only_are_none() -> None:
    def named(**parts: Any) -> str:
        return difference(json.dumps(IDENTITY), json.dumps({**IDENTITY, **parts}))

    assert named() == ""
    assert named(recipe={"rate": 0.1, "warm": 3}) == ""
    assert named(recipe={"betas": [0.5, 0.99]}) == "with other recipe (betas was [0.0, 0.99], now [0.5, 0.99])"
    assert named(pictures="beef") == "with other pictures (it was f00d, now beef)"
    assert named(drawn="x" * 200) == f"with other drawn (it was None, now {'x' * 80})"


def test_states_of_other_networks_are_refused() -> None:
    states = states_of({"network": nn.Linear(3, 2)})
    with pytest.raises(InvalidInputError, match="the resume state is of other networks"):
        load_states({"network": nn.Linear(4, 2)}, states)
    with pytest.raises(InvalidInputError, match="the resume state is of other networks"):
        load_states({"generator": nn.Linear(3, 2)}, states)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    save_tensors(tmp_path / "last.pt", {"a": 1})
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*last.pt: the disk is full"):
        save_tensors(tmp_path / "last.pt", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert torch.load(tmp_path / "last.pt") == {"a": 1}


def test_numbers_that_are_not_finite_are_named() -> None:
    require_finite("step 3", {"pixel": torch.ones(2), "other": 0.5}, {"generator": torch.tensor(2.0)})
    with pytest.raises(TrainingStoppedError, match="stopped at step 3: the loss 'pixel' is nan"):
        require_finite("step 3", {"pixel": math.nan})
    with pytest.raises(TrainingStoppedError, match="the gradients of the generator have norm inf"):
        require_finite("step 3", {}, {"generator": torch.tensor(math.inf)})
    network = nn.Linear(2, 1)
    assert float(gradient_norm(network.parameters())) == 0
    network(torch.tensor([3.0, 4.0])).backward()
    assert float(gradient_norm(network.parameters())) == pytest.approx(26**0.5)


@pytest.mark.parametrize(("higher", "best", "kept"), [(False, 1.0, [0, 2]), (True, 5.0, [0, 1])])
def test_the_best_epoch_is_kept(higher: bool, best: float, kept: list[int]) -> None:
    figures, calls, rows = [3.0, 5.0, 1.0, 2.0], [], []
    state = EpochState(best=-math.inf if higher else math.inf)
    train_epochs(
        state,
        lambda now: now.epoch >= 4,
        lambda number: ({"epoch": number}, figures[number]),
        keep=lambda: calls.append(state.best_epoch),
        save=lambda: rows.append(len(state.log)),
        report=lambda row: rows.append(row["epoch"]),
        higher_is_better=higher,
    )
    assert (state.best, calls) == (best, kept)
    assert rows == [1, 0, 2, 1, 3, 2, 4, 3]
    assert all(row["seconds"] >= 0 for row in state.log)


def test_without_a_figure_the_last_epoch_is_kept() -> None:
    state, calls = EpochState(), []
    train_epochs(state, lambda s: s.epoch >= 2, lambda n: ({}, None), keep=lambda: calls.append(state.best_epoch))
    assert (calls, state.best) == ([0, 1], math.inf)


def test_rows_of_tables_are_whole(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ("name", "value"))
    for i in range(3):
        log.append({"name": f"a,{i}", "value": i / 3})
    log.append({"name": "x", "value": None})
    assert (tmp_path / "log.csv").read_text() == ',name,value\n0,"a,0",0.0\n1,"a,1",0.3333\n2,"a,2",0.6667\n3,x,\n'
    log.cut(1)
    log.append({"name": "b", "value": float("nan")})
    assert (tmp_path / "log.csv").read_text() == ',name,value\n0,"a,0",0.0\n1,b,\n'
    write_table(tmp_path / "all.csv", ("name", "value"), [("a", 1 / 3), ("b", None)], decimals=None)
    assert (tmp_path / "all.csv").read_text() == f"name,value\na,{1 / 3!r}\nb,\n"


def test_json_rows_survive_a_half_written_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in (1, 2):
        append_row(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    write_rows(path, read_rows(path))
    append_row(path, {"step": 3})
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]
    assert read_rows(tmp_path / "none.jsonl") == []
