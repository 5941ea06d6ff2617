"""`ohlora train sample | unbundle`: numbered pictures of a generator; a bundle's generator as weights to train on."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ohlora.cli.report import Told
from ohlora.cli.train.machine import Loop
from ohlora.cli.train.recipe_options import Changes, RecipeFields

if TYPE_CHECKING:
    from ohlora.training.nets.families import AnyGenerator


def sample(
    *,
    changes: Annotated[Changes, RecipeFields("sampling.recipes:SampleSettings")],
    generator: Annotated[
        str,
        Option("--generator", "-g", help="Weights (.pth published, .safetensors ours), or a bundle (demo, photo)."),
    ] = "demo",
    preset: Annotated[str, Option(help="original-10k (no label) or finetune-v1-15k (random labels).")] = "original-10k",
    kind: Annotated[str | None, Option(help="Kind of the weights file; default: recognised by its contents.")] = None,
    smooth: Annotated[bool, Option("--smooth", help="The weight-averaged copy of a published file.")] = False,
    how: Loop = Loop(out=Path("runs/sample")),
) -> None:
    """Sample a generator: NNNNNN.jpg, samples.safetensors (z, label) and metadata.jsonl. Stopped runs go on.

    Example: `ohlora train sample --generator demo --count 2000 --out runs/sample`
    """
    from ohlora.cli.progress import Progress
    from ohlora.training.sampling import recipes
    from ohlora.training.sampling.sample import require_labels, sample_images

    settings = recipes.preset(preset, **changes)
    module = open_generator(generator, kind, smooth)
    require_labels(module, settings)
    progress = Progress(settings.count, "pictures")
    try:
        with progress:
            result = sample_images(
                module, how.out, settings, accelerator=how.accelerator, restart=how.restart, advance=progress.advance
            )
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    summary = {
        "out": str(result.out),
        "pictures": result.count,
        "made": result.made,
        "mixed": result.mixed,
        "generator_sha256": result.generator_sha256,
        "samples": str(result.samples),
        "seconds": round(progress.seconds, 2),
    }
    rate = result.made / max(progress.seconds, 1e-9)
    there = f", {result.count - result.made} were there" if result.made < result.count else ""
    how.tell(summary, f"{result.made} pictures in {progress.seconds:.1f} s ({rate:.1f}/s){there} -> {result.out}")


def unbundle(
    *,
    bundle: Annotated[str, Argument(help="Bundle folder, or 'demo' for the one that ships.")],
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="Weights to write; default generator.safetensors or student.safetensors."),
    ] = None,
    network: Annotated[str, Option(help="`generator` or `hair`, the hair student.")] = "generator",
    told: Told,
) -> None:
    """Write a bundle's generator or hair student as weights to train on; what they make is checked against the bundle.

    Example: `ohlora train unbundle demo --out generator.safetensors`
    """
    from ohlora.errors import InvalidInputError

    if network == "hair":
        from ohlora.training.unbundle.student import student_from_bundle
        from ohlora.training.weights.student import save_student

        out = out or Path("student.safetensors")
        student = student_from_bundle(bundle)
        save_student(out, student.state_dict(), student.encoder_name)
        line = f"hair student on {student.encoder_name} -> {out}"
        told.tell({"out": str(out), "encoder": student.encoder_name}, line)
        return
    if network != "generator":
        raise InvalidInputError(f"there is no network '{network}' to take out of a bundle: choose generator or hair")
    from ohlora.bundle.photo.install import KIND
    from ohlora.training import checkpoints
    from ohlora.training.nets.stylegan import Generator
    from ohlora.training.unbundle.generator import unbundled

    out = out or Path("generator.safetensors")
    module = unbundled(bundle)
    checkpoints.save(module, out, "stylegan" if isinstance(module, Generator) else KIND)
    config = module.config
    line = f"generator of {config.resolution} px, {config.label_size} label values -> {out}"
    told.tell({"out": str(out), **asdict(config)}, line)


def open_generator(source: str, kind: str | None, smooth: bool) -> AnyGenerator:
    """A generator by its file or bundle. Raises InvalidInputError, CheckpointError or BundleError."""
    from ohlora.errors import InvalidInputError
    from ohlora.training import checkpoints
    from ohlora.training.finetune.inputs import load_any_generator
    from ohlora.training.nets.mobilestylegan import MobileStyleGAN
    from ohlora.training.nets.stylegan import Generator

    if kind is None:
        return load_any_generator(source, smooth=smooth)
    module = checkpoints.load(kind, source, smooth=smooth)
    if not isinstance(module, Generator | MobileStyleGAN):
        raise InvalidInputError(f"'{kind}' is no generator: only generators can be sampled")
    return module
