"""`ohlora train sample | unbundle`: numbered pictures of a generator; a bundle's generator as weights to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohlora.cli import options

if TYPE_CHECKING:
    from ohlora.training.nets.stylegan import Generator

Kind = Annotated[
    str | None, typer.Option("--kind", help="Kind of the weights file; default: recognised by its contents.")
]


def sample(
    generator: Annotated[
        str, typer.Option("--generator", "-g", help="Weights (.pth published, .safetensors of ours), or a bundle.")
    ] = "demo",
    out: options.Out = Path("runs/sample"),
    preset: Annotated[
        str, typer.Option("--preset", help="original-10k (no label) or finetune-v1-15k (random labels).")
    ] = "original-10k",
    count: Annotated[int | None, typer.Option("--count", "-n", help="Pictures, in place of the preset's.")] = None,
    first_number: Annotated[int | None, typer.Option("--first-number", help="Name of the first: 0 is 000000.")] = None,
    first_seed: Annotated[
        int | None, typer.Option("--first-seed", help="Picture n shows the seed FIRST_SEED + n. Default 0.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Pictures computed together.")] = None,
    psi: Annotated[float | None, typer.Option("--psi", help="Truncation; the documents use 1.")] = None,
    layers: Annotated[
        int | None, typer.Option("--truncation-layers", help="Style layers truncated; 0 (documented) is none.")
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="none, normal or zeros.")] = None,
    train_mode: Annotated[
        bool,
        typer.Option("--train-mode/--eval-mode", help="As the published code sampled: styles mixed, w_avg moving."),
    ] = False,
    kind: Kind = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="The weight-averaged copy of a published file.")] = False,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Sample a generator: NNNNNN.jpg, samples.safetensors (z, label) and metadata.jsonl. Stopped runs go on.

    Example: `ohlora train sample --generator demo --count 2000 --out runs/sample`
    """
    import json as json_module
    import sys

    from ohlora.cli.progress import Progress
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.sampling import recipes as sample_recipes
    from ohlora.training.sampling.sample import require_labels, sample_images

    changes: dict[str, Any] = {
        "count": count,
        "first_number": first_number,
        "first_seed": first_seed,
        "batch": batch,
        "psi": psi,
        "layers": layers,
        "labels": labels,
        "train_mode": train_mode,
    }
    settings = sample_recipes.preset(preset, **{key: value for key, value in changes.items() if value is not None})
    module = open_generator(generator, kind, smooth)
    require_labels(module, settings)
    progress = Progress(settings.count, "pictures", quiet=json and not sys.stderr.isatty())
    try:
        with progress:
            result = sample_images(
                module, out, settings, accelerator=accelerator, restart=restart, advance=progress.advance
            )
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    if json:
        summary = {
            "out": str(result.out),
            "pictures": result.count,
            "made": result.made,
            "mixed": result.mixed,
            "generator_sha256": result.generator_sha256,
            "samples": str(result.samples),
            "seconds": round(progress.seconds, 2),
        }
        typer.echo(json_module.dumps(summary))
        return
    rate = result.made / max(progress.seconds, 1e-9)
    there = f", {result.count - result.made} were there" if result.made < result.count else ""
    typer.echo(f"{result.made} pictures in {progress.seconds:.1f} s ({rate:.1f}/s){there} -> {result.out}")


def unbundle(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, or 'demo' for the one that ships.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Weights to write; default generator.safetensors or student.safetensors."),
    ] = None,
    network: Annotated[
        str, typer.Option("--network", help="`generator` (kind stylegan) or `hair`, the hair student.")
    ] = "generator",
    json: options.Json = False,
) -> None:
    """Write a bundle's generator or hair student as weights to train on; what they make is checked against the bundle.

    Example: `ohlora train unbundle demo --out generator.safetensors`
    """
    import json as json_module
    from dataclasses import asdict

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.errors import InvalidInputError

    if network == "hair":
        from ohlora.training.unbundle.student import student_from_bundle
        from ohlora.training.weights.student import save_student

        out = out or Path("student.safetensors")
        student = student_from_bundle(bundle)
        save_student(out, student.state_dict(), student.encoder_name)
        if json:
            typer.echo(json_module.dumps({"out": str(out), "encoder": student.encoder_name}))
        else:
            typer.echo(f"hair student on {student.encoder_name} -> {out}")
        return
    if network != "generator":
        raise InvalidInputError(f"there is no network '{network}' to take out of a bundle: choose generator or hair")
    from ohlora.training import checkpoints
    from ohlora.training.unbundle.generator import generator_from_bundle

    out = out or Path("generator.safetensors")
    module = generator_from_bundle(bundle)
    checkpoints.save(module, out, "stylegan")
    config = module.config
    if json:
        typer.echo(json_module.dumps({"out": str(out), **asdict(config)}))
        return
    typer.echo(f"generator of {config.resolution} px, {config.label_size} label values -> {out}")


def open_generator(source: str, kind: str | None, smooth: bool) -> Generator:
    """A generator by its file or bundle. Raises InvalidInputError, CheckpointError or BundleError."""
    from ohlora.errors import InvalidInputError
    from ohlora.training import checkpoints
    from ohlora.training.finetune.inputs import load_generator
    from ohlora.training.nets.stylegan import Generator

    if kind is None:
        return load_generator(source, smooth=smooth)
    module = checkpoints.load(kind, source, smooth=smooth)
    if not isinstance(module, Generator):
        raise InvalidInputError(f"'{kind}' is no generator: only generators can be sampled")
    return module
