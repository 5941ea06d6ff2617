"""`ohlora bundle`: build, look into and verify bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ohlora.cli import options

if TYPE_CHECKING:
    from ohlora.export.graphs.generator import Storage

app = typer.Typer(help="Build, inspect and verify model bundles.", no_args_is_help=True)
Where = Annotated[str, typer.Argument(help="Bundle folder, or 'demo'.")]


@app.command()
def info(bundle: Where = "demo", json: options.Json = False) -> None:
    """Show what a bundle holds, after verifying every file's hash. Example: `ohlora bundle info demo`"""
    import json as json_module

    from ohlora.bundle import Bundle
    from ohlora.bundle.description import describe

    opened = Bundle.open(bundle)
    if json:
        typer.echo(json_module.dumps(opened.manifest.model_dump(mode="json")))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "what")
    for name, text in describe(opened):
        table.add_row(name, text)
    Console().print(table)


@app.command()
def verify(bundle: Where = "demo") -> None:
    """Check every file's hash and run the engines' self-tests. Example: `ohlora bundle verify my-bundle`"""
    from ohlora.bundle import Bundle

    opened = Bundle.open(bundle)
    if opened.manifest.hair:
        opened.hair_engine().close()
    if opened.manifest.parsing:
        opened.parsing_engine().close()
    if opened.manifest.generator:
        for engine in opened.generator_engines():
            engine.close()
        if opened.manifest.generator.mapping_end:
            opened.mapping_end_engine().close()
    typer.echo(f"bundle '{opened.name}': {len(opened.manifest.files)} files and all engines are good")


@app.command()
def build(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    generator: Annotated[
        Path | None, typer.Option("--generator", help="Generator: a published .pth or a .safetensors of `train`.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Of the checkpoint; default: stylegan for .safetensors, else stylegan-celeba256."),
    ] = None,
    storage: Annotated[
        str, typer.Option("--storage", help="Generator weights: float32, or float16 (a third of the size).")
    ] = "float32",
    hair: Annotated[
        str,
        typer.Option("--hair", help="Student: .safetensors of `train distill`, published .pth, or a bundle's."),
    ] = "demo",
    parsing: Annotated[
        str | None, typer.Option("--parsing", help="Face parser: .safetensors of `train parsing`, or a bundle's.")
    ] = None,
    directions: Annotated[
        Path | None,
        typer.Option("--directions", help="Of `train directions`, or a folder of published tables with its gallery."),
    ] = None,
    space: options.Space = None,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", help="Named faces: a gallery.csv, as `train gallery` writes it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: the folder's name.")] = None,
    license: Annotated[str, typer.Option("--license", help="Licence of the weights.")] = "unknown",
    provenance: Annotated[str | None, typer.Option("--provenance", help="Where the weights come from.")] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="report.json of `train distill`: its figures go into the bundle.")
    ] = None,
    parsing_metrics: Annotated[
        Path | None, typer.Option("--parsing-metrics", help="report.json of `train parsing`, likewise.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="Text for MODEL_CARD.md; default: made of the parts.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Compile checkpoints into a bundle: exact rewrites, ONNX, parity checks, hashes. Needs the train extra.

    Example: `ohlora bundle build --generator runs/gan/generator.safetensors --storage float16 --out my-bundle`
    """
    import json

    from ohlora.cli.train.requirements import require_training
    from ohlora.errors import InvalidInputError

    require_training()
    try:
        text = None if card is None else card.read_text(encoding="utf-8")
        figures, parsed = (
            None if report is None else json.loads(report.read_text(encoding="utf-8"))["test"]
            for report in (metrics, parsing_metrics)
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(f"cannot read --card, --metrics or --parsing-metrics: {error!r}") from error
    from ohlora.export.bundle.builder import build_bundle

    bundle = build_bundle(
        out,
        generator=generator,
        kind=kind or ("stylegan" if generator and generator.suffix == ".safetensors" else "stylegan-celeba256"),
        storage=cast("Storage", storage),
        hair=hair,
        directions=directions,
        space=space,
        gallery=gallery,
        name=name or out.resolve().name,
        license=license,
        provenance=provenance,
        metrics=figures,
        card=text,
        parsing=parsing,
        parsing_metrics=parsed,
        overwrite=overwrite,
        report=typer.echo,
    )
    typer.echo(f"bundle '{bundle.name}' -> {out}")


@app.command()
def update(
    bundle: Where,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    directions: Annotated[
        Path | None, typer.Option("--directions", help="A run of `train vectorfind` or `train directions`, or tables.")
    ] = None,
    space: options.Space = None,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", help="Named faces: gallery.csv of `train select` or `train gallery`.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="Text for MODEL_CARD.md.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: as before.")] = None,
    provenance: Annotated[str | None, typer.Option("--provenance", help="Default: as before.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Give a bundle other directions, faces or card; its networks stay byte for byte. Needs the train extra.

    Example: `ohlora bundle update demo --directions runs/vectorfind --out my-demo`
    """
    from ohlora.cli.train.requirements import require_training
    from ohlora.errors import InvalidInputError

    require_training()
    try:
        text = None if card is None else card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read --card {card}: {error}") from error
    from ohlora.export.bundle.update import update_bundle

    made = update_bundle(
        bundle,
        out,
        directions=directions,
        space=space,
        gallery=gallery,
        card=text,
        name=name,
        provenance=provenance,
        overwrite=overwrite,
    )
    typer.echo(f"bundle '{made.name}' -> {out}")
