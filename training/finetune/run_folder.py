"""The folder of a fine-tuning run: resume states, logs, stop requests; the same for every family of recipes.

Only the first of several processes writes; all of them read, so several machines need a common file system.
"""

from __future__ import annotations

import csv
import io
import json
import math
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.base.atomic import explain_os_error, make_folder, remove_leftovers, write_bytes
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training.finetune.published import write_torch

FORMAT = "ohlora-finetune-1"
KEPT = 2  # resume states
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStoppedError(OhloraError):
    """Training met a loss or gradient that is not finite; the weights from before that step are kept."""


class CsvLog:
    """A table that grows by rows, with an index column first as in the documented logs.

    A value that is a float is written with `decimals` places, None as an empty cell.
    """

    def __init__(self, path: Path, columns: Sequence[str], decimals: int = 4, write: bool = True) -> None:
        self.path, self.columns, self.decimals, self.write = path, tuple(columns), decimals, write
        self.count = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """One row more: {column: value} with all of the columns. Raises OutputError; then the row is not there."""
        cells = [self._cell(row[name]) for name in self.columns]
        text = self._line(["", *self.columns]) if not self.count else ""
        text += self._line([str(self.count), *cells])
        self.count += 1
        if not self.write:
            return
        size = self.path.stat().st_size if self.count > 1 and self.path.is_file() else 0
        try:
            with self.path.open("r+b" if size else "wb") as file:
                file.seek(size)
                file.write(text.encode())
        except OSError as error:
            self._truncate(size)
            raise explain_os_error(self.path, error) from error

    def cut(self, count: int) -> None:
        """Keep the first `count` rows: what comes after them is written again by the resumed run."""
        self.count = count
        if not self.write or not self.path.is_file():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if len(lines) > count + 1 or (lines and not lines[-1].endswith("\n")):
            write_bytes(self.path, "".join(lines[: count + 1] if count else []).encode())

    def rows(self) -> list[dict[str, str]]:
        """What the file holds, as text."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _truncate(self, size: int) -> None:
        try:
            with self.path.open("r+b") as file:
                file.truncate(size)
        except OSError:
            pass  # a resumed run cuts the torn row away

    def _cell(self, value: Any) -> str:
        if isinstance(value, Tensor):
            value = value.item()
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return repr(round(value, self.decimals)) if isinstance(value, float) else str(value)

    @staticmethod
    def _line(cells: Iterable[str]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(list(cells))
        return text.getvalue()


class RunFolder:
    """A run's folder, open while it trains:

        with RunFolder(out, {"recipe": recipe.identity(), "inputs": inputs.identity(recipe)}, fabric) as folder:
            log = folder.log("train_log.csv", ("epoch", "idx", "d_loss"))
            state = folder.state            # None at the start of a run, else what `save` got
            ...                             # restore networks from `state`
            while ...:
                if folder.should_stop(): ...  # once a step, in every process
                ...                         # train
                folder.save_if_due(step, make_state)

    `folder.state` is read with weights_only, so states hold tensors and plain values. Rows that were logged after the
    state was saved are cut off when it is resumed.
    """

    state: dict[str, Any] | None

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Mapping[str, Any]],
        fabric: Fabric,
        *,
        resume: bool = True,
        stop_after: int = 0,
        checkpoint_minutes: float = 5.0,
    ) -> None:
        self.out, self.fabric, self.resume = Path(out), fabric, resume
        self.identity = json.dumps(identity, sort_keys=True)
        self.stop_after, self.checkpoint_minutes = stop_after, checkpoint_minutes
        self.writes = bool(fabric.is_global_zero)
        self.state = None
        self._logs: dict[str, CsvLog] = {}
        self._logged: dict[str, int] = {}
        self._asked = threading.Event()
        self._before: list[Any] = []
        self._steps = 0
        self._saved = time.monotonic()

    def __enter__(self) -> RunFolder:
        """Raises InvalidInputError when the folder holds another run or damaged state, OutputError for a full disk."""
        found = self.checkpoints() if self.resume else []
        if found:  # looked at before anything is touched
            self.state = self._read(found[-1])
        if self.writes:
            make_folder(self.out)
            remove_leftovers(self.out)
            if not self.resume:
                for old in self.checkpoints():
                    old.unlink()
        self.fabric.barrier()
        if threading.current_thread() is threading.main_thread():
            self._before = [signal.signal(name, lambda *_: self._asked.set()) for name in SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, handler in zip(SIGNALS, self._before, strict=False):
            signal.signal(name, handler)

    # Resume states

    def checkpoints(self) -> list[Path]:
        """Resume states, oldest first."""
        return sorted(self.out.glob("checkpoint-*.pt"))

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write checkpoint-STEP.pt, then drop all but the last KEPT."""
        self._saved = time.monotonic()
        if not self.writes:
            return
        logged = {name: log.count for name, log in self._logs.items()}
        content = {"format": FORMAT, "identity": self.identity, "logged": logged, "state": dict(state)}
        write_torch(self.out / f"checkpoint-{step:08d}.pt", content)
        for old in self.checkpoints()[:-KEPT]:
            old.unlink(missing_ok=True)

    def due(self) -> bool:
        """Whether checkpoint_minutes have passed since the last save; 0 = never by time."""
        return self.checkpoint_minutes > 0 and time.monotonic() - self._saved > self.checkpoint_minutes * 60

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            state, identity, self._logged = content["state"], content["identity"], content["logged"]
        except Exception as error:  # the unpickler raises whatever the bytes make it raise
            raise InvalidInputError(
                f"cannot resume from {path}: {(str(error).splitlines() or [''])[0][:200]}; delete it to go on from "
                "the one before, or use --restart"
            ) from error
        if other := difference(identity, self.identity):
            raise InvalidInputError(f"{self.out} holds a run {other}: choose another --out, or --restart")
        assert isinstance(state, dict)
        return state

    # Logs

    def log(self, name: str, columns: Sequence[str], decimals: int = 4) -> CsvLog:
        """The table OUT/name, cut back to the resumed step."""
        log = CsvLog(self.out / name, columns, decimals, self.writes)
        log.cut(self._logged.get(name, 0))
        self._logs[name] = log
        return log

    # Stopping

    def should_stop(self) -> bool:
        """Ask before every step, in every process: a signal to one of them stops all. Counts the steps of this call."""
        stop = self._asked.is_set() or (self.stop_after > 0 and self._steps >= self.stop_after)
        if self.fabric.world_size > 1:
            flag = torch.tensor(float(stop), device=self.fabric.device)
            stop = float(self.fabric.all_reduce(flag, reduce_op="sum")) > 0
        self._steps += not stop
        return stop


def difference(old: str, new: str) -> str:
    """What differs between two identities, in words; empty when nothing does."""
    before, now = json.loads(old), json.loads(new)
    for part in now:
        for key in sorted(now[part].keys() | before.get(part, {}).keys()):
            first, second = before.get(part, {}).get(key), now[part].get(key)
            if first != second:
                return f"with other {part} ({key} was {str(first)[:80]}, now {str(second)[:80]})"
    return ""


def require_finite(where: str, losses: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> None:
    """Raises when a loss, or a gradient of a network, is NaN or infinite; call before an optimiser's step."""
    for name, value in losses.items():
        if not bool(torch.isfinite(value).all()):
            raise TrainingStoppedError(_stop_message(where, f"the loss '{name}' is {float(value.detach().mean())}"))
    for name, network in networks.items():
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if gradients:
            norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
            if not bool(torch.isfinite(norm)):
                raise TrainingStoppedError(_stop_message(where, f"the gradients of the {name} have norm {float(norm)}"))


def _stop_message(where: str, what: str) -> str:
    return (
        f"training stopped at {where}: {what}. The weights from before that step are kept in this folder; go on in "
        "another --out with a smaller learning rate"
    )
