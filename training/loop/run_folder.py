"""The folder of a training: one run's states, logs and stop requests; the same for every training of this package.

Only the first of several processes writes; all of them read, so several machines need a common file system.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric

from ohlora.base.atomic import lock_file, make_folder, remove_leftovers
from ohlora.base.closing import Closing
from ohlora.errors import InvalidInputError
from ohlora.training.loop.contents import Contents
from ohlora.training.loop.logs import CsvLog
from ohlora.training.loop.states import damaged, load_tensors, save_tensors

NUMBERED = "checkpoint-{step:08d}.pt"
KEPT = 2  # numbered states
LOCK = ".ohlora-lock"
R = TypeVar("R", bound="RunFolder")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunFolder(Closing):
    """A run's folder:

        folder = RunFolder(out, {"recipe": recipe.identity()}, fabric, reads={"pictures": paths})
        saved = folder.saved            # None at the start of a run, else what `save` got
        with folder:                    # of this process alone
            log = folder.table("train_log.csv", ("epoch", "idx", "d_loss"))
            ...                         # restore networks from `saved`
            with folder.stop_requests():
                ended = train_steps(folder, finished, step, save)   # or, without, `train_epochs` (steps.py)

    State files are read with weights_only, so they hold tensors and plain values. Rows that were logged after the state
    was saved are cut off when it is resumed.

    Args:
        out: the folder; it is made when the `with` block begins.
        identity: what a resumed run must share with the one that began it: parts by name, JSON-able.
        reads: files that decide what is trained, by what they are. Their content must be the same too; where they lie
            and when they were touched does not matter.
        older: parts of the identity that count for a run of a version that did not keep the content of `reads`.
        fabric: the processes; with one of them nothing is exchanged.
        resume: False forgets the states of an earlier run.
        stop_after: ask for a stop after so many steps of this call; 0 = never.
        checkpoint_minutes: how often `due` says so; 0 = never.
        state_file: name of the states. With {step} in it the last KEPT are kept, else there is one.
        kind: of the states' content, written into them; a state of another kind is refused.
        defaults: values of settings where an identity leaves them out, by part; see `difference`.
        record: name of the file that keeps hashes of `reads`.

    Raises InvalidInputError when the folder holds another run or a damaged state; nothing is written before. The `with`
    block raises it when another process works in the folder.
    """

    saved: dict[str, Any] | None

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        fabric: Fabric,
        *,
        reads: Mapping[str, Iterable[Path]] | None = None,
        older: Mapping[str, Any] | None = None,
        resume: bool = True,
        stop_after: int = 0,
        checkpoint_minutes: float = 5.0,
        state_file: str = NUMBERED,
        kind: str = "",
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        record: str = "inputs.json",
    ) -> None:
        self.out, self.fabric, self.resume = Path(out), fabric, resume
        self.contents = Contents(reads or {}, self.out / record)
        self._asked_for, self._older = dict(identity), dict(older or {})
        digests = self.contents.digests
        self.identity = json.dumps({**identity, **({"content": digests} if digests else {})}, sort_keys=True)
        self.stop_after, self.checkpoint_minutes = stop_after, checkpoint_minutes
        self.state_file, self.kind, self.defaults = state_file, kind, defaults or {}
        self.writes = bool(fabric.is_global_zero)
        self._held = ExitStack()
        self._tables: dict[str, CsvLog] = {}
        self._asked = threading.Event()
        self._steps = 0
        self._saved_at = time.monotonic()
        states = self.states() if resume else []
        self.saved = self._read(states[-1]) if states else None
        self._logged: dict[str, int] = (self.saved or {}).get("logged", {})

    def __enter__(self: R) -> R:
        """Make the folder, keep other processes out and clear it of what a killed run left.

        Raises InvalidInputError when another process works in it, OutputError.
        """
        try:
            if self.writes:
                self._held.enter_context(locked_folder(self.out))
                remove_leftovers(self.out)
                if not self.resume:
                    self.forget()
                self.contents.write()
            self.fabric.barrier()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Let other processes work in the folder."""
        self._held.close()

    @contextmanager
    def stop_requests(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM ask for a stop (`should_stop`) instead of raising KeyboardInterrupt at once."""
        there = threading.current_thread() is threading.main_thread()
        before = [signal.signal(name, lambda *_: self._asked.set()) for name in SIGNALS if there]
        try:
            yield
        finally:
            for name, handler in zip(SIGNALS, before, strict=False):
                signal.signal(name, handler)

    # States

    def states(self) -> list[Path]:
        """Files of states, oldest first."""
        return sorted(self.out.glob(self.state_file.replace("{step:08d}", "*")))

    def save(self, content: Mapping[str, Any], step: int = 0) -> None:
        """Write a state: `content` holds tensors and plain values. Raises OutputError."""
        self._saved_at = time.monotonic()
        if not self.writes:
            return
        logged = {name: table.count for name, table in self._tables.items()}
        head = {"format": self.kind, "identity": self.identity, "logged": logged}
        save_tensors(self.out / self.state_file.format(step=step), {**head, **content})
        for old in self.states()[:-KEPT]:
            old.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the states: what they led to is recorded elsewhere."""
        for old in self.states() if self.writes else []:
            old.unlink(missing_ok=True)

    def due(self) -> bool:
        """Whether checkpoint_minutes have passed since the last save."""
        return self.checkpoint_minutes > 0 and time.monotonic() - self._saved_at > self.checkpoint_minutes * 60

    def _read(self, path: Path) -> dict[str, Any]:
        before = "delete it to resume from the one before, or " if "{step" in self.state_file else ""
        content = load_tensors(path, remedy := f"{before}use --restart")
        try:
            if content.get("format", self.kind) != self.kind:
                raise ValueError(f"format {content['format']}")
            other = self.other_than(content["identity"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(path, error, remedy) from error
        if other:
            raise InvalidInputError(f"{self.out} holds a run {other}: choose another --out, or --restart")
        return content

    def other_than(self, identity: str) -> str:
        """How this run differs from the one of an earlier call's identity, in words; empty when it does not."""
        before = json.loads(identity)
        kept = before.pop("content", None)
        if kept is not None and (changed := self.contents.difference(kept)):
            return changed
        now = self._asked_for if kept is not None else {**self._asked_for, **self._older}
        return difference(json.dumps(before), json.dumps(now), self.defaults)

    # Logs

    def table(self, name: str, columns: Sequence[str], decimals: int = 4) -> CsvLog:
        """The table OUT/name, cut back to the resumed state."""
        log = CsvLog(self.out / name, columns, decimals, self.writes)
        log.cut(self._logged.get(name, 0))
        self._tables[name] = log
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


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make a run's folder and keep other processes out of it.

    Raises InvalidInputError when another process works in it, OutputError.
    """
    path = make_folder(out) / LOCK
    with lock_file(path, out):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def difference(old: str, new: str, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """What differs between two identities, in words; empty when nothing does.

    A setting that only one of them has is no difference: the other version does not know it yet, or any more. Those of
    `defaults` always count, with these values where they are left out.
    """
    before, now = json.loads(old), json.loads(new)
    for part in now:
        first, second = before.get(part), now[part]
        if isinstance(first, dict) and isinstance(second, dict):
            first, second = ({**(defaults or {}).get(part, {}), **settings} for settings in (first, second))
            for key in sorted(first.keys() & second.keys()):
                if first[key] != second[key]:
                    return f"with other {part} ({key} was {_short(first[key])}, now {_short(second[key])})"
        elif first != second:
            return f"with other {part} (it was {_short(first)}, now {_short(second)})"
    return ""


def _short(value: Any) -> str:
    return str(value)[:80]
