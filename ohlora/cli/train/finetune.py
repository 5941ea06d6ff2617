"""`ohlora train finetune | finetune-discriminator | finetune-test`: the documented fine-tuning recipes, and whether a
conditional generator obeys its label.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ohlora.cli.report import Results, indented, note
from ohlora.cli.train.machine import Machine, first_process
from ohlora.cli.train.recipe_options import Changes, RecipeFields

StopAfter = Annotated[int, Option("--stop-after", min=0, help="Stop cleanly after so many batches; 0 = never.")]


def show(event: dict[str, Any]) -> None:
    """One event of a loop, for people."""
    kind = event["event"]
    if kind == "pictures":
        note(f"pictures {event['done']}/{event['count']}")
    elif kind == "start":
        note(f"{event['pictures']} pictures, {event['batches']} batches an epoch, from step {event['step']}")
    else:
        numbers = {name: value for name, value in event.items() if name != "event" and value is not None}
        parts = (f"{n} {v:.4f}" if isinstance(v, float) else f"{n} {v}" for n, v in numbers.items())
        note(("end of " if kind == "epoch" else "") + ", ".join(parts))


def finetune(
    *,
    version: Annotated[str, Argument(help="v1, v2, v3, v4, v5, v8 or v9.")],
    changes: Annotated[Changes, RecipeFields("finetune.recipes:Recipe", table="RECIPES", without=("discriminator",))],
    generator: Annotated[str | None, Option(help="Start generator: .pth, .safetensors, or a bundle's name.")] = None,
    discriminator: Annotated[Path | None, Option(help="Start discriminator.")] = None,
    images: Annotated[Path | None, Option(help="Folder of pictures NNNNNN.jpg.")] = None,
    scores: Annotated[Path | None, Option(help="Score table of the pictures.")] = None,
    property_cnn: Annotated[Path | None, Option(help="For v2, v3, v5; v4 is judged by it.")] = None,
    gender_cnn: Annotated[Path | None, Option(help="For v3.")] = None,
    monitor_models: Annotated[Path | None, Option(help="Folder of classifier CNNs that watch v8 and v9.")] = None,
    set: Annotated[list[str] | None, Option(help="NAME=VALUE of any field, as the options below. Repeatable.")] = None,
    compat: Annotated[
        bool, Option("--compat", help="As the published program ran it, where that differs (docs/finetune.md).")
    ] = False,
    show_recipe: Annotated[bool, Option("--show", help="Print the recipe as JSON and stop.")] = False,
    stop_after: StopAfter = 0,
    how: Machine = Machine(out=Path("runs/finetune")),
) -> None:
    """Fine-tune a generator by a documented recipe. Stopped runs (Ctrl-C too) resume from the same --out.

    Example: `ohlora train finetune v1 --generator g.pth --discriminator g.pth --images faces --scores all_scores.csv
    --set epochs=39 --out runs/v1`
    """
    from ohlora.base.recipe import read_changes
    from ohlora.errors import InvalidInputError
    from ohlora.training.finetune.inputs import FineTuneInputs
    from ohlora.training.finetune.recipes import Recipe, recipe
    from ohlora.training.finetune.run import run_recipe

    changes |= read_changes(Recipe, set or [], f"recipe {version}: ")
    chosen = recipe(version, compat=compat, **changes)
    if show_recipe:
        typer.echo(indented(asdict(chosen)))
        return
    if generator is None:
        raise InvalidInputError("no start generator: --generator FILE, or the name of a bundle ('demo')")
    inputs = FineTuneInputs(generator, discriminator, images, scores, property_cnn, gender_cnn, monitor_models)
    inputs.require(chosen)  # before further processes are started
    fabric = how.launch()
    report = first_process(fabric, show)
    result = run_recipe(chosen, inputs, how.out, resume=how.resume, fabric=fabric, report=report, stop_after=stop_after)
    if fabric.is_global_zero:
        length = f"{result['epochs']} epochs, {result['steps']} steps"
        how.trained(result, f"{version} -> {how.out}", length, asked=stop_after > 0)


def finetune_discriminator(
    *,
    generator: Annotated[str, Option(help="The frozen generator: file or bundle's name.")],
    images: Annotated[Path, Option(help="Folder of real pictures NNNNNN.jpg.")],
    changes: Annotated[Changes, RecipeFields("finetune.recipes:DiscriminatorStart")],
    stop_after: StopAfter = 0,
    how: Machine = Machine(out=Path("runs/discriminator")),
) -> None:
    """Train a start discriminator for a generator that has none, such as the demo's. Resumes from the same --out.

    Example: `ohlora train finetune-discriminator --generator demo --images faces --steps 1000 --out runs/d0`
    """
    from ohlora.training.finetune.discriminator_start import train_discriminator
    from ohlora.training.finetune.recipes import DiscriminatorStart

    settings, fabric = DiscriminatorStart(**changes), how.launch()
    report = first_process(fabric, show)
    result = train_discriminator(
        generator,
        images,
        how.out,
        settings,
        resume=how.resume,
        fabric=fabric,
        report=report,
        stop_after=stop_after,
    )
    if fabric.is_global_zero:
        where, length = f"discriminator -> {result['discriminator']}", f"{result['steps']} steps"
        how.trained(result, where, length, asked=stop_after > 0)


def finetune_test(
    *,
    generator: Annotated[Path, Argument(help="Fine-tuned generator with a label (.safetensors or .pth).")],
    z: Annotated[
        str, Option(help="Row of a z-vector table, FILE.csv:ROW (such as test_zs.csv of a run), or a seed.")
    ] = "0",
    property_cnn: Annotated[Path | None, Option(help="Score the pictures: correlation and error per property.")] = None,
    final: Annotated[int, Option(min=0, help="Also so many pictures of the chosen face, near its latent.")] = 0,
    files: Annotated[bool, Option("--files", help="Single PNG files instead of sheets.")] = False,
    seed: Annotated[int, Option(min=0, help="Of the latents near z.")] = 0,
    how: Results = Results(out=Path("runs/finetune-test")),
) -> None:
    """Draw 125 labels (eyes, mouth, pose) at one latent and near it, and compare label and score.

    Example: `ohlora train finetune-test runs/v3/generator.safetensors --z test_zs.csv:21 --property-cnn cnn.pth`
    """
    from ohlora.errors import InvalidInputError
    from ohlora.training import checkpoints
    from ohlora.training.finetune.cvae_tester import checkpoint_test, final_pictures
    from ohlora.training.finetune.inputs import load_generator
    from ohlora.training.finetune.property_test_files import read_latent
    from ohlora.training.nets.score_cnns import PropertyCnn

    if not generator.is_file():
        raise InvalidInputError(f"no generator {generator}: it is made by ohlora train finetune v3")
    module = load_generator(generator)
    cnn = None if property_cnn is None else checkpoints.load_as(PropertyCnn, "cnn-property", property_cnn)
    latent = read_latent(z, module.config.z_size)
    result = checkpoint_test(module, latent, how.out, property_cnn=cnn, seed=seed, dump="files" if files else "grid")
    if final:
        result["final"] = str(
            final_pictures(module, latent, how.out / "final_inference_test_v3", count=final, seed=seed)
        )
    lines = [
        f"{name}, {label}: correlation {figures['correlation']:.3f}, error {figures['mae']:.3f}"
        for name in ("exact", "near")
        for label, figures in result.get(name, {}).items()
    ]
    how.tell({"out": str(how.out), **result}, *lines, f"{result['pictures']} pictures -> {how.out}")
