"""What a training computes on, as groups of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from ohlora.cli.report import Training

Accelerator = Annotated[str, Option("--accelerator", help="auto, cpu or cuda.")]
Precision = Annotated[str, Option("--precision", help="fp32 (exact) or bf16.")]


@dataclass(frozen=True, kw_only=True)
class Loop(Training):
    """Of a training in one process."""

    accelerator: Accelerator = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        """How its function is to run."""
        return {"resume": self.resume, "accelerator": self.accelerator}


@dataclass(frozen=True, kw_only=True)
class Machine(Training):
    """Of a training in several processes."""

    accelerator: Accelerator = "auto"
    devices: Annotated[int, Option(min=1, help="Processes on this machine, one a device.")] = 1
    nodes: Annotated[int, Option(min=1, help="Machines; see docs/finetune.md.")] = 1
    precision: Precision = "fp32"

    def launch(self) -> Any:
        """A Fabric whose processes have been started, by us or by `fabric run`."""
        from ohlora.training.loop.distributed import make_fabric, started_by_fabric_run

        fabric = make_fabric(self.accelerator, self.devices, self.nodes, self.precision)
        if fabric.world_size > 1 and not started_by_fabric_run():
            fabric.launch()
        return fabric


def first_process(fabric: Any, report: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """`report` in the first process; the others say nothing."""
    return report if fabric.is_global_zero else lambda row: None
