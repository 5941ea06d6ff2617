"""`ohlora train parse`: class maps and soft hair labels of a folder of pictures, by a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.cli.report import Run, note


def parse(
    *,
    sources: Annotated[
        list[Path], Argument(help="Pictures, folders of pictures, or .txt lists of them (one path a line).")
    ],
    teacher: Annotated[
        str, Option(help="Published weights (FaceXFormer's model.pt, BiSeNet's 79999_iter.pth), or a bundle: demo.")
    ],
    variant: Annotated[
        str, Option(help="crop (the largest face with its margin) or full-frame (hair labels).")
    ] = "crop",
    kind: Annotated[
        str | None, Option("--teacher-kind", help="facexformer or bisenet-19; default: what the file is.")
    ] = None,
    exact_face: Annotated[
        bool, Option("--exact-face", help="face_* without the documented round trip, which darkens by up to 1.")
    ] = False,
    recursive: Annotated[bool, Option("--recursive", "-r", help="Also look into subfolders.")] = False,
    batch: Annotated[int, Option(min=1, max=256, help="Pictures in one run of the teacher.")] = 8,
    device: Annotated[str, Option(help="cpu, cuda or auto.")] = "auto",
    how: Run = Run(out=Path("runs/parse")),
) -> None:
    """Label pictures with a teacher: face, class map, overlay and soft hair map of each. The same command resumes.

    Example: `ohlora train parse photos --teacher model.pt --variant full-frame --out data/parsed`

    Example: `ohlora train parse photos --teacher demo --variant full-frame --out data/parsed`, without a file of your
    own: the hair model that ships finds the hair
    """
    from ohlora.cli.progress import Progress
    from ohlora.cli.sources import without
    from ohlora.io.images import list_images
    from ohlora.training.teachers.parse import ParseSettings, parse_pictures
    from ohlora.training.teachers.registry import open_labeller

    settings = ParseSettings(variant, exact_face)
    paths = without(list_images(expand_lists(sources), recursive), how.out)
    expert = open_labeller(teacher, kind, device)
    with Progress(len(paths), "pictures") as progress:

        def started(pending: int, done: int) -> None:
            progress.expect(pending)
            if done and not how.json:
                note(f"resuming: {done} of {pending + done} pictures are there")

        result = parse_pictures(
            paths,
            how.out,
            expert,
            settings,
            batch=batch,
            restart=how.restart,
            started=started,
            advance=progress.advance,
        )
    summary = {
        "out": str(how.out),
        "pictures": result.pictures,
        "parsed": result.parsed,
        "already_there": result.already_there,
        "failed": len(result.failures),
        "seconds": round(progress.seconds, 3),
        "failures": result.failures,
    }
    parts = [f"{result.parsed} pictures parsed in {progress.seconds:.1f} s -> {how.out}"]
    parts += [f"{result.already_there} were there already"] if result.already_there else []
    parts += [f"{len(result.failures)} left out (parse.jsonl)"] if result.failures else []
    how.end(summary, [f"{row['status']}: {row['error']}" for row in result.failures], "; ".join(parts))


def expand_lists(sources: list[Path]) -> list[Path]:
    """Replace each .txt file by the paths in it; relative ones start at the list's folder. Empty lines do not count.

    Raises InvalidInputError for a list that cannot be read or names nothing.
    """
    from ohlora.errors import InvalidInputError

    paths: list[Path] = []
    for source in sources:
        if source.suffix.lower() != ".txt":
            paths.append(source)
            continue
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"cannot read the list {source}: {error}") from error
        named = [source.parent / line.strip() for line in lines if line.strip()]
        if not named:
            raise InvalidInputError(f"the list {source} names no picture: one path a line")
        paths += named
    return paths
