"""`ohlora train faces-set`: faces of a photographic bundle or of photographs, labeled by a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from ohlora.cli.report import Run, note
from ohlora.cli.train.machine import Precision
from ohlora.cli.train.recipe_options import Changes, RecipeFields


def faces_set(
    *,
    teacher: Annotated[Path, Option(help="Published weights of the 19-class BiSeNet (79999_iter.pth).")],
    changes: Annotated[Changes, RecipeFields("faces.recipe:FacesRecipe")],
    bundle: Annotated[str, Option("--bundle", "-b", help="Bundle whose generator draws the faces.")] = "photo",
    images: Annotated[list[Path] | None, Option(help="Folder of photographs in place of a bundle. Repeatable.")] = None,
    recursive: Annotated[bool, Option("--recursive", "-r", help="Also look into subfolders of --images.")] = False,
    count: Annotated[
        int | None, Option(min=1, help="Faces of the whole set; default 5000, or all photographs.")
    ] = None,
    shard: Annotated[str, Option(help="K/N: only the K-th of N parts, in an --out of its own.")] = "1/1",
    precision: Precision = "fp32",
    batch: Annotated[int, Option(min=1, max=64, help="Faces in one run of the networks.")] = 4,
    device: Annotated[str, Option(help="Of the teacher: cpu, cuda or auto.")] = "auto",
    how: Run = Run(out=Path("runs/faces")),
) -> None:
    """Make a training set of faces for hair and face parsers: images, class maps, soft hair maps.

    The teacher sees each face at 512 px, straight and mirrored. Hats, bald heads, beards, gray hair and other rare
    kinds are found by its maps, and a third of the set is drawn near them. The same command resumes.

    Example: `ohlora train faces-set --bundle photo --count 5000 --teacher 79999_iter.pth --out data/faces`
    """
    from contextlib import closing

    from ohlora.base.recipe import changed
    from ohlora.bundle import Bundle
    from ohlora.cli.progress import Progress
    from ohlora.errors import InvalidInputError
    from ohlora.training.faces.recipe import FacesRecipe
    from ohlora.training.faces.sources import BundleFaces, FaceSource, Photographs
    from ohlora.training.faces.stage import make_faces
    from ohlora.training.loop.precision import precision_name
    from ohlora.training.teachers.bisenet import BiSeNetTeacher
    from ohlora.training.teachers.registry import load_teacher

    recipe, part, number = changed(FacesRecipe(), changes), read_shard(shard), precision_name(precision)
    source: FaceSource
    if images:
        source = Photographs(images, recipe, count, recursive)
    else:
        source = BundleFaces(
            Bundle.open(bundle), recipe, count or 5000, precision="bf16" if number == "bf16" else "fp32"
        )
    expert = load_teacher(teacher, BiSeNetTeacher.name, device)
    if not isinstance(expert, BiSeNetTeacher):
        raise InvalidInputError(f"{teacher} is not a 19-class BiSeNet")
    with closing(source), Progress(1, "faces") as progress:

        def advance(done: int, faces: int) -> None:
            progress.expect(faces)
            progress.advance(done - progress.done)

        result = make_faces(
            source,
            expert,
            how.out,
            shard=part,
            precision=number,
            batch=batch,
            restart=how.restart,
            advance=advance,
        )
    summary = {
        "out": str(how.out),
        "faces": result.faces,
        "labeled": result.labeled,
        "failures": result.failures,
        "seconds": round(progress.seconds, 3),
        **{key: value for key, value in result.report.items() if key != "request"},
    }
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.report["kinds"].items())
    if not how.json:
        note(f"of rare kinds: {kinds}")
    how.end(
        summary,
        [row["error"] for row in result.failures],
        f"{result.labeled} faces labeled in {progress.seconds:.1f} s, "
        f"{result.report['faces']} of {result.faces} are there -> {how.out}",
    )


def read_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4). Raises InvalidInputError."""
    from ohlora.errors import InvalidInputError

    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= 10_000:
        return int(part), int(parts)
    raise InvalidInputError(f"--shard '{text}' is not understood: write K/N with K from 1 to N, e.g. 2/4")
