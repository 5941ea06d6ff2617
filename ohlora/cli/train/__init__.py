"""`ohlora train`: the training stages. PyTorch is imported only when a stage runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

from ohlora.cli.options import grouped
from ohlora.cli.train import (
    cnn,
    directions,
    faces,
    finetune,
    gan,
    hairzoo,
    pages,
    parse,
    pipeline,
    portraits,
    sample,
    students,
    tail,
    vectorfind,
)
from ohlora.cli.train.requirements import TRAINING, ZOO, require_training


@dataclass(frozen=True)
class Stage:
    """What a command runs, and the packages that have to be installed for it."""

    run: Callable[..., None]
    packages: tuple[str, ...] = TRAINING


# As `ohlora train --help` lists them. A further stage is one entry.
STAGES: Mapping[str, Stage] = {
    "distill": Stage(students.distill),
    "directions": Stage(directions.directions),
    "gallery": Stage(directions.gallery),
    "reader": Stage(directions.reader),
    "gan": Stage(gan.gan),
    "portraits": Stage(portraits.portraits),
    "evaluate-hair": Stage(portraits.evaluate_hair),
    "parse": Stage(parse.parse),
    "faces-set": Stage(faces.faces_set),
    "compare-losses": Stage(students.compare_losses),
    "parsing": Stage(students.parsing),
    "hairzoo": Stage(hairzoo.hairzoo, ZOO),
    "hairzoo-data": Stage(hairzoo.hairzoo_data, ZOO),
    "hairzoo-inference": Stage(hairzoo.hairzoo_inference, ZOO),
    "sample": Stage(sample.sample),
    "unbundle": Stage(sample.unbundle),
    "finetune": Stage(finetune.finetune),
    "finetune-discriminator": Stage(finetune.finetune_discriminator),
    "label": Stage(pages.label, ()),
    "pipeline": Stage(pipeline.pipeline),
    "classifier": Stage(cnn.classifier),
    "classify": Stage(cnn.classify),
    "filter": Stage(cnn.filter),
    "property-cnn": Stage(cnn.property_cnn),
    "hairstyle-cnn": Stage(cnn.hairstyle_cnn),
    "merge-cnn": Stage(cnn.merge_cnn),
    "rescore": Stage(cnn.rescore),
    "finetune-test": Stage(finetune.finetune_test),
    "select": Stage(pages.select, ()),
    "tail": Stage(tail.tail),
    "vectorfind": Stage(vectorfind.vectorfind),
}


class StageCommand(TyperCommand):
    """The command of a stage. Its options are made when it is used, so that no other stage's recipes are read."""

    def get_params(self, ctx: Any) -> list[Any]:
        if not self.params:
            stage = STAGES[str(self.name)]
            alone = typer.Typer(add_completion=False)
            alone.command()(grouped(stage.run, before=lambda: require_training(stage.packages)))
            made = typer.main.get_command(alone)
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


app = typer.Typer(help="Train the networks of the chain, stage by stage (needs the train extra).", no_args_is_help=True)
for _name, _stage in STAGES.items():
    app.command(_name, cls=StageCommand, help=inspect.getdoc(_stage.run))(lambda: None)
