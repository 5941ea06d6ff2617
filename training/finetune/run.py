"""One entrance for all fine-tuning recipes: the family decides which loop runs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from ohlora.base.atomic import write_bytes
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.loop.distributed import make_fabric

Report = Callable[[dict[str, Any]], None]

LOOPS = {
    "gan": "ohlora.training.finetune.gan_loop",
    "cvae": "ohlora.training.finetune.cvae",
    "score-guided": "ohlora.training.finetune.score_guided",
}


def run_recipe(
    recipe: Recipe,
    inputs: FineTuneInputs,
    out: Path,
    *,
    resume: bool = True,
    fabric: Fabric | None = None,
    report: Report = lambda event: None,
    stop_after: int = 0,
) -> dict[str, Any]:
    """Fine-tune by `recipe` in folder `out`; the same call goes on where a stopped one ended. Returns a summary.

    Writes generator.safetensors (and discriminator.safetensors or encoder.safetensors), the documented .pth files in
    the published layout, the documented logs, picture grids, checkpoint-*.pt (the last two) and summary.json.
    SIGINT and SIGTERM end it after the step under way, saved ("stopped": True in the summary).

    resume: False starts anew. fabric: an already launched one for several processes; default one process, any device.
    report: gets one dict per event, each with "event". stop_after: stop cleanly after so many steps of this call, 0 =
    never. Raises InvalidInputError for inputs that are missing or do not fit and for another run's folder,
    TrainingStoppedError for a loss or gradient that is not finite, OutputError when something cannot be written.
    """
    inputs.require(recipe)
    loop = importlib.import_module(LOOPS[recipe.family])
    fabric = fabric or make_fabric()
    result: dict[str, Any] = loop.run(
        recipe, inputs, Path(out), resume=resume, fabric=fabric, report=report, stop_after=stop_after
    )
    if fabric.is_global_zero:
        write_bytes(Path(out) / "summary.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
