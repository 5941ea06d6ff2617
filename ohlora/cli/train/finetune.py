"""`ohlora train finetune | finetune-discriminator`: the documented fine-tuning recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options

Accelerator = Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option("--devices", min=1, help="Processes on this machine, one a device.")]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Machines; see docs/finetune.md.")]
TrainPrecision = Annotated[str, typer.Option("--precision", help="fp32 (exact) or bf16.")]
StopAfter = Annotated[int, typer.Option("--stop-after", min=0, help="Stop cleanly after so many batches; 0 = never.")]


def show(event: dict[str, Any]) -> None:
    """One event of a loop, for people."""
    kind = event["event"]
    if kind == "pictures":
        text = f"pictures {event['done']}/{event['count']}"
    elif kind == "start":
        text = f"{event['pictures']} pictures, {event['batches']} batches an epoch, from step {event['step']}"
    else:
        numbers = {name: value for name, value in event.items() if name != "event" and value is not None}
        text = ("end of " if kind == "epoch" else "") + ", ".join(
            f"{n} {v:.4f}" if isinstance(v, float) else f"{n} {v}" for n, v in numbers.items()
        )
    typer.echo(text, err=True)


def launched(accelerator: str, devices: int, nodes: int, precision: str) -> Any:
    """A Fabric whose processes have been started, by us or by `fabric run`."""
    from ohlora.training.loop.distributed import make_fabric, started_by_fabric_run

    fabric = make_fabric(accelerator, devices, nodes, precision)
    if fabric.world_size > 1 and not started_by_fabric_run():
        fabric.launch()
    return fabric


def finetune(
    version: Annotated[str, typer.Argument(help="v1, v2, v3, v4, v5, v8 or v9.")],
    generator: Annotated[
        str | None, typer.Option("--generator", help="Start generator: .pth, .safetensors, or a bundle's name.")
    ] = None,
    discriminator: Annotated[Path | None, typer.Option("--discriminator", help="Start discriminator.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of pictures NNNNNN.jpg.")] = None,
    scores: Annotated[Path | None, typer.Option("--scores", help="Score table of the pictures.")] = None,
    property_cnn: Annotated[
        Path | None, typer.Option("--property-cnn", help="For v2, v3, v5; v4 is judged by it.")
    ] = None,
    gender_cnn: Annotated[Path | None, typer.Option("--gender-cnn", help="For v3.")] = None,
    monitor_models: Annotated[
        Path | None, typer.Option("--monitor-models", help="Folder of classifier CNNs that watch v8 and v9.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of any field of the recipe. Repeatable.")
    ] = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="As the published program ran it, where that differs (docs/finetune.md).")
    ] = False,
    show_recipe: Annotated[bool, typer.Option("--show", help="Print the recipe as JSON and stop.")] = False,
    out: options.Out = Path("runs/finetune"),
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: TrainPrecision = "fp32",
    stop_after: StopAfter = 0,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Fine-tune a generator by a documented recipe. Stopped runs (Ctrl-C too) resume from the same --out.

    Example: `ohlora train finetune v1 --generator g.pth --discriminator g.pth --images faces --scores all_scores.csv
    --set epochs=39 --out runs/v1`
    """
    import json as json_module
    from dataclasses import asdict

    from ohlora.cli.train.requirements import require_training
    from ohlora.errors import InvalidInputError

    require_training()
    from ohlora.training.finetune.inputs import FineTuneInputs
    from ohlora.training.finetune.recipes import parse_changes, recipe
    from ohlora.training.finetune.run import run_recipe

    chosen = recipe(version, compat=compat, **parse_changes(version, set or []))
    if show_recipe:
        typer.echo(json_module.dumps(asdict(chosen), indent=1))
        return
    if generator is None:
        raise InvalidInputError("no start generator: --generator FILE, or the name of a bundle ('demo')")
    inputs = FineTuneInputs(generator, discriminator, images, scores, property_cnn, gender_cnn, monitor_models)
    inputs.require(chosen)  # before further processes are started
    fabric = launched(accelerator, devices, nodes, precision)
    report = show if fabric.is_global_zero else _silent
    result = run_recipe(chosen, inputs, out, resume=not restart, fabric=fabric, report=report, stop_after=stop_after)
    if not fabric.is_global_zero:
        return
    if json:
        typer.echo(json_module.dumps(result))
    else:
        state = "stopped; the same command resumes" if result["stopped"] else "done"
        typer.echo(f"{version} -> {out} ({result['epochs']} epochs, {result['steps']} steps; {state})")
    if result["stopped"] and not stop_after:
        raise KeyboardInterrupt


def finetune_discriminator(
    generator: Annotated[str, typer.Option("--generator", help="The frozen generator: file or bundle's name.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of real pictures NNNNNN.jpg.")],
    out: options.Out = Path("runs/discriminator"),
    steps: Annotated[int, typer.Option("--steps", min=1)] = 1000,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 8,
    learning_rate: Annotated[float, typer.Option("--learning-rate")] = 1e-3,
    r1_gamma: Annotated[float, typer.Option("--r1-gamma", min=0, help="Gradient penalty on real pictures.")] = 10.0,
    channel_base: Annotated[
        int, typer.Option("--channel-base", min=0, help="Width: channels at r pixels = this / r; 0 = the generator's.")
    ] = 0,
    group: Annotated[int, typer.Option("--group", min=1, help="Of the minibatch standard deviation.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 7,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: TrainPrecision = "fp32",
    stop_after: StopAfter = 0,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train a start discriminator for a generator that has none, such as the demo's. Resumes from the same --out.

    Example: `ohlora train finetune-discriminator --generator demo --images faces --steps 1000 --out runs/d0`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.finetune.discriminator_start import DiscriminatorStart, train_discriminator

    settings = DiscriminatorStart(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        r1_gamma=r1_gamma,
        channel_base=channel_base,
        group=group,
        seed=seed,
    )
    fabric = launched(accelerator, devices, nodes, precision)
    report = show if fabric.is_global_zero else _silent
    result = train_discriminator(
        generator, images, out, settings, resume=not restart, fabric=fabric, report=report, stop_after=stop_after
    )
    if not fabric.is_global_zero:
        return
    if json:
        typer.echo(json_module.dumps(result))
    else:
        state = "stopped; the same command resumes" if result["stopped"] else "done"
        typer.echo(f"discriminator -> {result['discriminator']} ({result['steps']} steps; {state})")
    if result["stopped"] and not stop_after:
        raise KeyboardInterrupt


def _silent(event: dict[str, Any]) -> None:
    pass
