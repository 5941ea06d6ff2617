"""One entrance for all fine-tuning recipes: the family decides which training runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from ohlora.base.atomic import write_json
from ohlora.training.finetune.cvae import CvaeTraining
from ohlora.training.finetune.gan_loop import GanTraining
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.score_guided import GuidedTraining
from ohlora.training.finetune.training import KIND, Report, Training
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder

FAMILIES: dict[str, Callable[[Recipe, FineTuneInputs, RunFolder, Report], Training]] = {
    "gan": GanTraining,
    "cvae": CvaeTraining,
    "score-guided": GuidedTraining,
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
    """Fine-tune by `recipe` in folder `out`; the same call resumes where a stopped one ended. Returns a summary.

    Writes generator.safetensors (and discriminator.safetensors or encoder.safetensors), the documented .pth files in
    the published layout, the documented logs, picture grids, checkpoint-*.pt (the last two) and summary.json.
    SIGINT and SIGTERM end it after the step under way, saved ("stopped": True in the summary).

    resume: False starts anew. fabric: an already launched one for several processes; default one process, any device.
    report: gets one dict per event: "pictures", "start", "row", "epoch" (of v2 a step group). stop_after: stop cleanly
    after so many steps of this call, 0 = never. Raises InvalidInputError for inputs that are missing or do not fit and
    for another run's folder, TrainingStoppedError for a loss or gradient that is not finite, OutputError when something
    cannot be written.
    """
    inputs.require(recipe)
    fabric = fabric or make_fabric()
    keep_freed_memory()
    identity = {"recipe": recipe.identity(), "inputs": inputs.identity(recipe)}
    if recipe.family == "gan":
        identity["processes"] = {"number": fabric.world_size}
    minutes = recipe.checkpoint_minutes
    folder = RunFolder(
        out,
        identity,
        fabric,
        reads=inputs.reads(recipe),
        resume=resume,
        stop_after=stop_after,
        checkpoint_minutes=minutes,
        kind=KIND,
    )
    training = FAMILIES[recipe.family](recipe, inputs, folder, report)
    result = training.run()
    if fabric.is_global_zero:
        write_json(folder.out / "summary.json", result)
    return result
