"""`ohlora train`: the training stages. PyTorch is imported only when a stage runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from ohlora.cli.train import (
    cnn,
    cnn_scores,
    compare_losses,
    directions,
    distill,
    finetune,
    finetune_test,
    gan,
    hairzoo,
    label,
    parse,
    parsing,
    pipeline,
    portraits,
    sample,
    select,
    vectorfind,
)

# As `ohlora train --help` lists them. A further stage is one entry.
STAGES: Mapping[str, Callable[..., Any]] = {
    "distill": distill.distill,
    "directions": directions.directions,
    "gallery": directions.gallery,
    "reader": directions.reader,
    "gan": gan.gan,
    "portraits": portraits.portraits,
    "evaluate-hair": portraits.evaluate_hair,
    "parse": parse.parse,
    "compare-losses": compare_losses.compare_losses,
    "parsing": parsing.parsing,
    "hairzoo": hairzoo.hairzoo,
    "hairzoo-data": hairzoo.hairzoo_data,
    "hairzoo-inference": hairzoo.hairzoo_inference,
    "sample": sample.sample,
    "unbundle": sample.unbundle,
    "finetune": finetune.finetune,
    "finetune-discriminator": finetune.finetune_discriminator,
    "label": label.label,
    "pipeline": pipeline.pipeline,
    "classifier": cnn.classifier,
    "classify": cnn.classify,
    "filter": cnn.filter,
    "property-cnn": cnn_scores.property_cnn,
    "hairstyle-cnn": cnn_scores.hairstyle_cnn,
    "merge-cnn": cnn_scores.merge_cnn,
    "rescore": cnn_scores.rescore,
    "finetune-test": finetune_test.finetune_test,
    "select": select.select,
    "vectorfind": vectorfind.vectorfind,
}

app = typer.Typer(help="Train the networks of the chain, stage by stage (needs the train extra).", no_args_is_help=True)
for _name, _stage in STAGES.items():
    app.command(_name)(_stage)
