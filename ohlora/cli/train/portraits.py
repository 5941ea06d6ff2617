"""`ohlora train portraits | evaluate-hair`: painted training data, and how well a student finds hair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.report import Results, table

if TYPE_CHECKING:
    from ohlora.training.data.generated_faces import PortraitGenerator
    from ohlora.training.students.evaluate_hair import PictureSet


def portraits(
    *,
    count: Annotated[int, Option("--count", "-n", help="Number of portraits.")] = 1000,
    resolution: Annotated[int, Option("--resolution", "-r", help="Pixels a side.")] = 256,
    first_seed: Annotated[
        int, Option(help="Seeds count up from here; below lie demo people, above test people.")
    ] = 2_000_000,
    format: Annotated[str, Option("--format", "-f", help="png or jpeg; the maps are PNG.")] = "png",
    workers: options.Workers = None,
    how: Results = Results(out=Path("runs/portraits")),
) -> None:
    """Paint portraits with their class maps, soft hair maps and parameters. The same command goes on or adds more.

    Example: `ohlora train portraits --count 2000 --resolution 256 --out data/portraits`
    """
    from ohlora.cli.progress import Progress
    from ohlora.training.data.portrait_faces import write_portraits

    with Progress(max(count, 1), "portraits") as progress:
        about = write_portraits(
            how.out,
            count=count,
            resolution=resolution,
            first_seed=first_seed,
            format=format,
            workers=workers,
            advance=progress.advance,
        )
    rate = about["painted"] / max(progress.seconds, 1e-9)
    line = f"{about['painted']} of {count} portraits painted, {rate:.1f}/s -> {how.out}"
    how.tell({"out": str(how.out), **about, "seconds": round(progress.seconds, 2)}, line)


def evaluate_hair(
    *,
    student: Annotated[str, Argument(help="Student (.safetensors of `train distill`) or a bundle.")],
    data: Annotated[list[Path] | None, Option(help="Folder of pictures with hair_soft/NAME.png. Repeatable.")] = None,
    holdout: Annotated[float, Option(min=0, max=0.9, help="Only the people that `train distill` holds out.")] = 0.0,
    split_seed: Annotated[int, Option(help="The --seed of that training.")] = 7,
    portraits: Annotated[int | None, Option(min=1, help="This many unseen portraits.")] = None,
    generated: Annotated[str | None, Option(help="Pictures of this portrait-trained generator or bundle.")] = None,
    count: Annotated[int, Option("--count", "-n", min=1, help="Number of generated pictures.")] = 500,
    teacher: Annotated[
        Path | None, Option(help="Published BiSeNet-19 or FaceXFormer: its maps of drawn pictures join the truth.")
    ] = None,
    first_seed: Annotated[int, Option(min=0, help="Of portraits and generated pictures.")] = 4_000_000,
    resolution: Annotated[int, Option("--resolution", "-r", help="Of the portraits.")] = 256,
    how: Results = Results(out=Path("runs/evaluate-hair")),
) -> None:
    """Measure a hair student: pooled IoU, mean and worst face, Dice, true MSE; the worst faces as overlays.

    Example: `ohlora train evaluate-hair demo --data faces --portraits 500 --generated demo --count 500`
    """
    from contextlib import ExitStack, closing

    from ohlora.cli.progress import Progress
    from ohlora.errors import InvalidInputError

    if not data and portraits is None and generated is None:
        raise InvalidInputError("nothing to measure on: give --data FOLDER, --portraits N or --generated GENERATOR")
    if holdout and not data:
        raise InvalidInputError("--holdout chooses among the pictures of --data: give --data too")
    from ohlora.training.data.generated_faces import open_generator
    from ohlora.training.students.evaluate_hair import (
        evaluate_all,
        folder_set,
        generated_set,
        open_student,
        portrait_set,
        table_rows,
        with_teacher,
    )
    from ohlora.training.teachers.registry import load_teacher

    expert = None if teacher is None else load_teacher(teacher)
    find, about = open_student(student)
    with ExitStack() as stack:
        sets: list[PictureSet] = []
        if data:
            sets.append(folder_set(data, holdout, split_seed))
        if portraits is not None:
            painted = portrait_set(portraits, first_seed, resolution)
            sets.append(painted if expert is None else with_teacher(painted, expert.hair))
        if generated is not None:
            generator: PortraitGenerator = stack.enter_context(closing(open_generator(generated)))
            made = generated_set(generator, count, first_seed)
            sets.append(made if expert is None else with_teacher(made, expert.hair))
        with Progress(sum(tests.size for tests in sets), "pictures") as progress:
            result = evaluate_all(find, about, sets, how.out, progress.advance)
    if not how.json:
        table(table_rows(result), f"{result['student']} ({result['runs']})")
    lines = [
        f"worst, {name}: " + ", ".join(f"{face} {iou:.3f}" for face, iou in figures["worst"].items())
        for name, figures in result["sets"].items()
    ]
    how.tell(result, *lines, f"evaluation.json and overlays -> {how.out}")
