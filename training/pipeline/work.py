"""What a stage's function is given, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from ohlora.engines import backend_report
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.pipeline.exhibits import Exhibits
from ohlora.training.pipeline.manifest import Output

Note = Callable[[str], None]

EVERY_S = 10.0  # from one line of progress to the next


@dataclass(frozen=True)
class Outcome:
    """What a stage made.

    outputs: by name, for other stages. figures: counts and measures for the report, JSON values, the same for the same
    key however often the stage was interrupted; what depends on the machine goes to timings.
    """

    outputs: Mapping[str, Output]
    figures: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a stage's function is given.

    folder: its own, kept between interrupted calls with the same key. inputs: files or folders of other stages by the
    stage's own name for them. settings: its sections by name. machine: the section of that name. shown: what the report
    shows beside the figures.
    """

    stage: str
    folder: Path
    inputs: Mapping[str, Path]
    settings: Mapping[str, Any]
    machine: Any
    note: Note
    shown: Exhibits = field(default_factory=Exhibits)

    @property
    def section(self) -> Any:
        """Its first section."""
        return next(iter(self.settings.values()))

    @property
    def recipe(self) -> Any:
        """The recipe that its first section stands for."""
        return self.section.recipe(next(iter(self.settings)))

    @property
    def device(self) -> torch.device:
        there = self.machine.accelerator != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if there else "cpu")

    @property
    def precision(self) -> str:
        """fp32 or bf16."""
        asked: str = self.machine.precision
        return fast_precision(self.device.type == "cuda") if asked == "auto" else asked

    @property
    def compute(self) -> dict[str, Any]:
        """Arguments of functions that run a network over pictures."""
        return {"accelerator": self.machine.accelerator, "precision": self.precision}

    def fabric(self) -> Fabric:
        """One process on the device that is asked for."""
        return make_fabric(self.machine.accelerator, precision=self.precision)

    def counter(self, total: int) -> Callable[[int], None]:
        """A function that is told how many more pictures are done, and says so now and then."""
        state = {"done": 0, "shown": time.monotonic(), "began": time.monotonic()}

        def advance(count: int) -> None:
            state["done"] += count
            now = time.monotonic()
            if now - state["shown"] >= EVERY_S:
                state["shown"] = now
                rate = state["done"] / max(now - state["began"], 1e-9)
                self.note(f"{int(state['done'])}/{total} pictures, {rate:.1f}/s")

        return advance

    def listener(self, line: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], None]:
        """A function that is told events of a training, and shows one every few seconds."""
        state = {"shown": 0.0}

        def report(row: dict[str, Any]) -> None:
            text, now = line(row), time.monotonic()
            if text and now - state["shown"] >= EVERY_S:
                state["shown"] = now
                self.note(text)

        return report


@cache
def fast_precision(cuda: bool) -> str:
    """bf16 where the device has instructions for it, else fp32."""
    has = torch.cuda.is_bf16_supported() if cuda else any(row.bf16 for row in backend_report())
    return "bf16" if has else "fp32"
