"""One fine-tuning run in several processes: `python -m tests.support.finetune_processes INPUTS OUT PROCESSES`.

PROCESSES 0: below `fabric run`, which started them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.run import run_recipe
from ohlora.training.loop.distributed import make_fabric
from tests.support.finetune_sets import short

# Minibatch standard deviation is taken within a process: groups of one keep it out of the comparison.
CHANGES: dict[str, Any] = {"group": 1, "epochs": 1, "mixing": 0.9, "random_noise": True, "repeat": "v9"}


def inputs_of(folder: Path) -> FineTuneInputs:
    return FineTuneInputs(
        folder / "generator.safetensors", folder / "discriminator.safetensors", folder / "images", folder / "scores.csv"
    )


def main() -> None:
    folder, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    fabric = make_fabric("cpu", devices=max(processes, 1))
    if processes:
        fabric.launch()
    assert fabric.world_size == 2
    run_recipe(short("v1", **CHANGES), inputs_of(folder), out, fabric=fabric)


if __name__ == "__main__":
    main()
