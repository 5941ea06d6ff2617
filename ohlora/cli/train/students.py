"""`ohlora train distill | parsing | compare-losses`: light students, taught a teacher's soft maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from ohlora.cli.report import note, table
from ohlora.cli.train.machine import Loop
from ohlora.cli.train.recipe_options import Changes, RecipeFields

HairMaps = Annotated[
    list[Path], Option("--data", help="Folder of pictures with hair_soft/NAME.png teacher maps. Repeatable.")
]
Drawn = Annotated[Changes, RecipeFields("students.recipes:PortraitMix")]
Portraits = Annotated[
    str | None,
    Option("--portraits", help="Mix in painted portraits: how many, or a folder of `train portraits`."),
]

HeldOut = Annotated[
    list[Path] | None,
    Option(
        "--held-out",
        help="Folder of pictures to measure on and choose the epoch by, in place of --holdout. Repeatable.",
    ),
]


def distill(
    *,
    data: HairMaps,
    changes: Annotated[Changes, RecipeFields("students.recipes:DistillConfig")],
    portraits: Portraits = None,
    drawn: Drawn,
    recipe: Annotated[
        str, Option(help="documented (B0, thousands of faces), few-faces, or portraits (fine-tunes).")
    ] = "documented",
    held_out: HeldOut = None,
    how: Loop = Loop(out=Path("runs/distill")),
) -> None:
    """Distil a light hair student from a teacher's soft maps. Stopped runs resume from the same --out.

    Example: `ohlora train distill --data faces --recipe few-faces --out runs/student`
    """
    from ohlora.training.students import distill, recipes, report

    teach(
        distill,
        report,
        data,
        recipes.with_portraits(recipes.preset(recipe, **changes), portraits, **drawn),
        how,
        held_out,
    )


def teach(stage: Any, report: Any, data: list[Path], config: Any, how: Loop, held_out: list[Path] | None) -> None:
    """Run a stage (module), write and tell what its report (module) has to say."""
    from ohlora.training.students.report import epoch_line

    def show(row: dict[str, Any]) -> None:
        note(epoch_line(row, config.epochs))

    result, sources = stage.run(data, how.out, config, **how.arguments, report=show, note=note, held_out=held_out or ())
    report.write_report(how.out, result, sources.pictures)
    how.tell(result, report.figures_line(how.out, result))


def parsing(
    *,
    data: Annotated[
        list[Path],
        Option(help="Folder of pictures with class maps in parsing11/ or parsing19/, or of `train parse`. Repeatable."),
    ],
    changes: Annotated[
        Changes, RecipeFields("students.recipes:ParsingConfig", "PARSERS", without=("encoder_weights",))
    ],
    portraits: Portraits = None,
    drawn: Drawn,
    recipe: Annotated[
        str, Option(help="short (11 classes, after a hair student) or faces (13, from thousands of faces).")
    ] = "short",
    held_out: HeldOut = None,
    how: Loop = Loop(out=Path("runs/parsing")),
) -> None:
    """Distil a face parser from a teacher's class maps, with up to 2000 painted portraits (--portraits 0: without).
    Stopped runs resume from the same --out.

    Example: `ohlora train parsing --data faces --start-from runs/student/student.safetensors --out runs/parsing`
    """
    from ohlora.base.recipe import changed, pick
    from ohlora.training.students import recipes
    from ohlora.training.students.parsing import distill, report

    config: recipes.DistillConfig = changed(pick(recipes.PARSERS, recipe, "recipe"), changes)
    alone = portraits == "0" and "generator" not in drawn
    config = replace(config, mix=None) if alone else recipes.with_portraits(config, portraits, **drawn)
    teach(distill, report, data, config, how, held_out)


def compare_losses(
    *,
    data: HairMaps,
    changes: Annotated[
        Changes, RecipeFields("students.recipes:DistillConfig", without=("loss", "phases", "encoder_weights"))
    ],
    losses: Annotated[str, Option(help="Comma-separated.")] = "mse,soft_bce,kl",
    recipe: Annotated[str, Option(help="Of `train distill`: documented or few-faces.")] = "documented",
    epochs: Annotated[int | None, Option(min=1, help="Instead of the recipe's phases: so many at --size.")] = None,
    size: Annotated[int, Option(min=64, help="Pixels of the training pictures, with --epochs.")] = 224,
    portraits: Portraits = None,
    held_out_portraits: Annotated[int, Option(min=1, help="Portraits to measure on, with --portraits.")] = 40,
    shown: Annotated[int, Option(min=0, help="Test pictures to draw overlays of.")] = 4,
    how: Loop = Loop(out=Path("runs/losses")),
) -> None:
    """Train one student per loss under one recipe, start and split; compare. Stopped comparisons resume.

    Example: `ohlora train compare-losses --data faces --recipe few-faces --size 128 --epochs 30 --out runs/losses`
    """
    from ohlora.training.students.compare_losses import compare, table_rows, verdict
    from ohlora.training.students.recipes import parse_phases, preset, with_portraits
    from ohlora.training.students.report import epoch_line

    phases = {} if epochs is None else {"phases": parse_phases(f"{size}:{epochs}")}
    config = with_portraits(preset(recipe, **changes, **phases), portraits)
    if config.mix is not None:
        config = replace(config, mix=replace(config.mix, held_out=held_out_portraits))
    result = compare(
        data,
        how.out,
        config,
        losses=losses.split(","),
        shown=shown,
        **how.arguments,
        report=lambda loss, row: note(f"{loss}: {epoch_line(row, config.epochs)}"),
        note=note,
    )
    if not how.json:
        table(table_rows(result["rows"]), "Distillation losses")
    how.tell(result, *verdict(result["ordering"]), f"comparison.md, .csv, .json and overlays -> {how.out}")
