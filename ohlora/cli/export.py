"""`ohlora export`: compile networks into ONNX, OpenVINO, TensorRT, a Triton repository or a faster bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.report import Told, say
from ohlora.errors import InvalidInputError


@options.grouped
def export(
    *,
    source: Annotated[
        str, Argument(help="Bundle ('demo' or a folder), a file of weights, or a packaged network ('mtcnn').")
    ],
    to: Annotated[str, Option(help="onnx, openvino, tensorrt, triton or bundle.")] = "onnx",
    out: Annotated[Path | None, Option("--out", "-o", help="New folder for the export.")] = None,
    model: Annotated[
        list[str] | None,
        Option(help="Only this network: mapping, synthesis, hair, parsing, portrait, recolor ... (repeat)."),
    ] = None,
    precision: Annotated[str | None, Option(help="fp32 (default), fp16, bf16 or int8.")] = None,
    preset: Annotated[
        str | None, Option(help="exact (2 levels), balanced (45 dB) or fast (35 dB): fastest that passes.")
    ] = None,
    batch: Annotated[str, Option(help="MIN:OPT:MAX of TensorRT engines and Triton models.")] = "1:8:32",
    compute_capability: Annotated[
        list[str] | None, Option(help="Of the GPU an engine is for, e.g. 8.9 (repeat). Default: the one here.")
    ] = None,
    package: Annotated[str, Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    size: Annotated[str, Option(help="Width x height of recolor.onnx's pictures.")] = "256x256",
    network: Annotated[
        str | None, Option(help="What a file of weights is: generator, facexformer, cnn-age ...")
    ] = None,
    kind: Annotated[str | None, Option(help="Kind of the weights, where a network has several.")] = None,
    option: Annotated[
        list[str] | None, Option(help="NAME=VALUE of that network, e.g. collapse=subpixel (repeat).")
    ] = None,
    seeds: Annotated[int, Option(min=8, help="Faces that presets and int8 are judged on.")] = 200,
    verify: Annotated[
        bool, Option("--verify", help="Run what was made beside PyTorch: parity, size, ms, images/s in one table.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an export that is there.")] = False,
    told: Told,
) -> None:
    """Compile networks: exact rewrites, precision behind measured gates, one report. Needs the train extra.

    Without --out, with --verify: nothing is kept. Examples:

    `ohlora export demo --to onnx --model portrait --out engines`

    `ohlora export demo --to bundle --preset fast --out demo-fast`

    `ohlora export demo --verify`
    """
    from ohlora.cli.train.requirements import require_training

    require_training()
    if out is None and not verify:
        raise InvalidInputError("give --out FOLDER to keep the export, or --verify to look at it")
    from ohlora.export.exporter import Request, export
    from ohlora.export.formats import parse_batch
    from ohlora.export.sources import open_source

    opened = open_source(source, network, kind, _pairs(option or []), _size(size))
    with tempfile.TemporaryDirectory(prefix="ohlora-export-") as temporary:
        request = Request(
            to=to,
            out=out or Path(temporary) / "export",
            networks=model or (),
            precision=precision,
            preset=preset,
            batch=parse_batch(batch),
            package=package,
            compute_capabilities=tuple(compute_capability) if compute_capability else None,
            seeds=seeds,
            overwrite=overwrite,
        )
        written = export(opened, request, _say(told.json))
        rows = []
        if verify:
            from ohlora.export.verify import show, verify_export

            found = verify_export(opened, request, written, _say(told.json))
            rows = [asdict(row) for row in found]
            if not told.json:
                show(found)
        networks = {one.name: {"files": [str(path) for path in one.files], **one.lowered.to_json()} for one in written}
        lines = [] if out is None else [f"{to}: {', '.join(networks) or 'bundle'} -> {out}"]
        told.tell({"out": str(out) if out else None, "networks": networks, "verified": rows}, *lines)


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda line: None) if quiet else say


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise InvalidInputError(f"--option must be NAME=VALUE, got '{text}'")
        pairs[name] = value
    return pairs


def _size(text: str) -> tuple[int, int]:
    """'WIDTHxHEIGHT' -> (height, width)."""

    width, sign, height = text.lower().partition("x")
    if not sign or not width.isdigit() or not height.isdigit():
        raise InvalidInputError(f"--size must be WIDTHxHEIGHT, got '{text}'")
    return int(height), int(width)
