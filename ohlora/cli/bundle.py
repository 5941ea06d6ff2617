"""`ohlora bundle`: build, look into and verify bundles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from ohlora.base.reading import read_object, read_text
from ohlora.cli import bundle_installed, options
from ohlora.cli.report import Told, say, table
from ohlora.errors import InvalidInputError

app = typer.Typer(help="Build, inspect and verify model bundles.", no_args_is_help=True)
app.command("get")(bundle_installed.get)
app.command("list")(bundle_installed.list_bundles)
app.command("remove")(bundle_installed.remove)
Where = Annotated[str, typer.Argument(help="Name of a shipped or installed bundle, or a bundle's folder.")]


@app.command()
@options.grouped
def info(*, bundle: Where = "demo", told: Told) -> None:
    """Show what a bundle holds, after verifying every file's hash. Example: `ohlora bundle info demo`"""
    from ohlora.bundle import Bundle
    from ohlora.bundle.description import describe

    opened = Bundle.open(bundle)
    told.tell(opened.manifest.model_dump(mode="json"))
    if not told.json:
        table([("part", "what"), *describe(opened)])


@app.command()
def verify(bundle: Where = "demo") -> None:
    """Check every file's hash and run the engines' self-tests. Example: `ohlora bundle verify ./my-bundle`"""
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
    say(f"bundle '{opened.name}': {len(opened.manifest.files)} files and all engines are good")


@dataclass(frozen=True)
class NewBundle:
    """Where a bundle goes and what is said of it."""

    out: Annotated[Path, Option("--out", "-o", help="Folder of the new bundle.")]
    name: Annotated[str | None, Option(help="Default: the folder's name, or as before.")] = None
    provenance: Annotated[str | None, Option(help="Where the weights come from. Default: as before.")] = None
    card: Annotated[Path | None, Option(help="Text of MODEL_CARD.md. Default: of the parts, or as before.")] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing bundle.")] = False


@dataclass(frozen=True)
class Additions:
    """What needs no network of its own."""

    directions: Annotated[
        Path | None,
        Option(help="A run of `train vectorfind` or `train directions`, or a folder of published tables."),
    ] = None
    space: options.Space = None
    gallery: Annotated[Path | None, Option(help="Named faces: gallery.csv of `train select` or `train gallery`.")] = (
        None
    )


HAIR_HELP = "Student: .safetensors of `train distill`, published .pth, or a bundle's."
ParsingSource = Annotated[
    str | None, Option("--parsing", help="Face parser: .safetensors of `train parsing`, or a bundle's.")
]


@dataclass(frozen=True)
class Figures:
    """What was measured of students."""

    metrics: Annotated[Path | None, Option(help="report.json of `train distill`: its figures go into the bundle.")] = (
        None
    )
    parsing_metrics: Annotated[Path | None, Option(help="report.json of `train parsing`, likewise.")] = None

    def read(self) -> dict[str, Any]:
        """By the names of `build_bundle`. Raises InvalidInputError."""
        return {
            "metrics": _figures(self.metrics, "--metrics"),
            "parsing_metrics": _figures(self.parsing_metrics, "--parsing-metrics"),
        }


@dataclass(frozen=True)
class Students:
    """Students in place of a bundle's own."""

    hair: Annotated[str | None, Option(help=f"{HAIR_HELP} Default: as before.")] = None
    parsing: ParsingSource = None


@dataclass(frozen=True)
class Networks:
    """Checkpoints and their kinds."""

    generator: Annotated[Path | None, Option(help="Generator: a published .pth or a .safetensors of `train`.")] = None
    kind: Annotated[
        str | None, Option(help="Of the checkpoint; default: stylegan for .safetensors, else stylegan-celeba256.")
    ] = None
    storage: Annotated[str, Option(help="Generator weights: float32, or float16 (a third of the size).")] = "float32"
    hair: Annotated[str, Option(help=HAIR_HELP)] = "demo"
    parsing: ParsingSource = None
    license: Annotated[str, Option(help="Licence of the weights.")] = "unknown"


@app.command()
@options.grouped
def build(*, new: NewBundle, networks: Networks, additions: Additions, figures: Figures) -> None:
    """Compile checkpoints into a bundle: exact rewrites, ONNX, parity checks, hashes. Needs the train extra.

    Example: `ohlora bundle build --generator runs/gan/generator.safetensors --storage float16 --out my-bundle`
    """
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.export.bundle.builder import build_bundle

    published = networks.generator is None or networks.generator.suffix != ".safetensors"
    parts: dict[str, Any] = {**vars(networks), **vars(additions), **figures.read()}
    parts["kind"] = networks.kind or ("stylegan-celeba256" if published else "stylegan")
    bundle = build_bundle(
        new.out,
        **parts,
        name=new.name or new.out.resolve().name,
        provenance=new.provenance,
        card=_text(new.card, "--card"),
        overwrite=new.overwrite,
        report=say,
    )
    say(f"bundle '{bundle.name}' -> {new.out}")


@app.command()
@options.grouped
def update(*, bundle: Where, new: NewBundle, students: Students, additions: Additions, figures: Figures) -> None:
    """Give a bundle another hair model, face parser, directions, faces or card; the rest stays byte for byte.

    Needs the train extra. Example: `ohlora bundle update demo --hair runs/student/student.safetensors --out my-demo`
    """
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.export.bundle.update import update_bundle

    parts: dict[str, Any] = {**vars(new), **vars(students), **vars(additions), **figures.read()}
    parts["card"] = _text(new.card, "--card")
    updated = update_bundle(bundle, parts.pop("out"), **parts, report=say)
    say(f"bundle '{updated.name}' -> {new.out}")


def _text(path: Path | None, option: str) -> str | None:
    return None if path is None else read_text(path, f"file of {option}")


def _figures(report: Path | None, option: str) -> Any:
    """The test figures of a training's report."""
    if report is None:
        return None
    content = read_object(report, f"file of {option}")
    if "test" not in content:
        raise InvalidInputError(f"{option} {report} is not the report.json of a training: it has no 'test'")
    return content["test"]
