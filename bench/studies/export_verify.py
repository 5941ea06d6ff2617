"""The `--verify` table of every network of the toolkit, in one run.

    python -m ohlora.bench.studies.export_verify --out bench/results/export_verify.json

Networks of the demo bundle with their weights; all others with seeded ones, since published weights cannot be had:
their speed is that of any weights. PyTorch is the exported graph, operation by operation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ohlora.bench.runner.study import study
from ohlora.engines import usable_cores
from ohlora.export.exporter import Request, export
from ohlora.export.sources import Source, bundle_source, module_source
from ohlora.export.verify import BATCH, Row, show, verify_export
from ohlora.training.checkpoints import SCORE_CNNS
from ohlora.training.data.parsing_classes import NAMES11
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.nets.stylegan import CONFIGS, Generator
from ohlora.training.nets.stylegan_discriminator import CONFIGS as DISCRIMINATORS
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.score_cnns_keys import make

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "generator": lambda: Generator(CONFIGS["original"]),
    "discriminator": lambda: Discriminator(DISCRIMINATORS["original"]),
    "parsing": lambda: EffiSegNet(SHIPPED_ENCODER, outputs=len(NAMES11)),
    "bisenet": BiSeNet,
    "facexformer": FaceXFormer,
    **{f"cnn-{name}": lambda name=name: make(name, 0.03) for name in SCORE_CNNS},  # type: ignore[misc]
}
OPTIONS = {"discriminator": {"statistics": "alone"}}


def sources() -> Iterator[tuple[str, Source]]:
    """(title, source)."""
    yield "demo bundle", bundle_source("demo", (256, 256))
    for name, maker in MAKERS.items():
        torch.manual_seed(0)
        options = OPTIONS.get(name, {})
        yield name, module_source(name, maker().eval(), options, f"{name}, seeded weights")


@study(shown=False, only="names, comma-separated")
def main(only: str = "") -> dict[str, Any]:
    rows: list[tuple[str, Row]] = []
    failed: dict[str, str] = {}
    for title, source in sources():
        if only and title not in only.split(","):
            continue
        print(title, flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                request = Request(to="onnx", out=Path(folder) / "made")
                found = verify_export(source, request, export(source, request, lambda line: None))
        except Exception as error:  # one network never takes the table with it
            failed[title] = str(error)
            print("  failed:", error, flush=True)
            continue
        rows += [(title, row) for row in found]
    show([row for _, row in rows])
    shown = [{"from": title, **asdict(row)} for title, row in rows]
    return {"cores": usable_cores(), "batch": BATCH, "rows": shown, "failed": failed}


if __name__ == "__main__":
    main()
