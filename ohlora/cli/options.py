"""Options that several commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ohlora.base.values import Expression, Ombre
    from ohlora.latents.directions import Directions as DirectionSet

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; the same folder resumes.")]
BundleName = Annotated[str, typer.Option("--bundle", "-b", help="Bundle folder, or 'demo' for the one that ships.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, openvino or onnxruntime.")]
RenderBackend = Annotated[
    str, typer.Option("--backend", help="auto, openvino or onnxruntime; on a GPU torch, tensorrt or onnxruntime.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16 (faster where the CPU has it), or auto: the bundle's own.")
]
RenderPrecision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, on a GPU fp16; auto: the bundle's own, on a GPU fp32.")
]
Device = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda:N, several (cuda:0,cuda:1; cuda:all), or auto: a GPU if one is there."),
]
Engines = Annotated[
    Path | None, typer.Option("--engines", help="Folder of the bundle's TensorRT engines (ohlora export).")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Engine streams; default: usable cores.")]
Color = Annotated[
    str | None, typer.Option("--color", help="Hue 0..1: 0 red, 0.1 orange, 0.5 sky blue, 0.9 pink. VALUES.")
]
Height = Annotated[str, typer.Option("--ombre-height", help="Share of the hair that is dyed, from below. VALUES.")]
GradHeight = Annotated[str, typer.Option("--grad-height", help="Share of the dyed part that fades in. VALUES.")]
Format = Annotated[str, typer.Option("--format", "-f", help="jpeg, png or webp.")]
Quality = Annotated[int, typer.Option("--quality", min=1, max=100, help="Of JPEG and WebP.")]
Rounding = Annotated[str, typer.Option("--rounding", help="truncate (as documented for frames) or nearest.")]
Encoder = Annotated[
    str, typer.Option("--encoder", help="Of JPEG on a GPU: cpu, or nvimgcodec (nvImageCodec; other bytes).")
]
RenderBatch = Annotated[
    int | None, typer.Option("--batch", min=1, max=4096, help="Pictures under way at once; default 8, on a GPU 64.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=4096, help="Pictures under way at once.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, max=256, help="Encoding threads; default: cores.")]
Restart = Annotated[bool, typer.Option("--restart", help="Start over where --out holds another job.")]
Sheet = Annotated[bool, typer.Option("--contact-sheet", help="Also write contact_sheet.jpg (up to 400 pictures).")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]
Directions = Annotated[
    Path | None,
    typer.Option("--directions", help="Folder of published direction tables, instead of the bundle's."),
]
Space = Annotated[
    str | None,
    typer.Option(
        "--space", help="Of --directions, where a folder holds several: z, w, mapping_split1 or mapping_split2."
    ),
]
ExpressionSeed = Annotated[
    int | None,
    typer.Option("--expression-seed", help="Draw the strengths of --expression from their ranges, not the middles."),
]


def own_directions(directions: Path | None, space: str | None) -> DirectionSet | None:
    """The set of --directions and --space; None for the bundle's own. Raises InvalidInputError."""
    from ohlora.errors import InvalidInputError
    from ohlora.latents.directions import read_directions

    if directions is None and space is not None:
        raise InvalidInputError(f"--space {space} chooses among the tables of a folder: give --directions FOLDER too")
    return None if directions is None else read_directions(directions, space)


def make_ombres(color: str | None, height: str, grad_height: str) -> list[Ombre] | None:
    """VALUES of the three options, zipped -> ombres; None when no colour is given."""
    from ohlora.base.values import Ombre
    from ohlora.render.job import spread, zip_values

    if color is None:
        return None
    values = {
        "color": spread("--color", color),
        "height": spread("--ombre-height", height),
        "grad_height": spread("--grad-height", grad_height),
    }
    return [Ombre(**row) for row in zip_values("ombre", values)]


def make_presets(texts: list[str], seed: int | None) -> list[Expression]:
    """--expression, repeated -> expressions. Preset i is drawn by (seed, i) alone; the middles without a seed."""
    from ohlora.errors import InvalidInputError
    from ohlora.latents.expression_words import preset_expression

    if seed is not None and not texts:
        raise InvalidInputError(
            f"--expression-seed {seed} draws words: give --expression 'eyes wide, mouth normal, pose none' too"
        )
    return [preset_expression(text, seed, number) for number, text in enumerate(texts)]


def make_expressions(eyes: str, mouth: str, pose: str) -> list[Expression]:
    """VALUES of the three options, zipped -> expressions."""
    from ohlora.base.values import Expression
    from ohlora.render.job import spread, zip_values

    values = {name: spread(f"--{name}", v) for name, v in (("eyes", eyes), ("mouth", mouth), ("pose", pose))}
    return [Expression(**row) for row in zip_values("expression", values)]
