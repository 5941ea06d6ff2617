"""`ohlora export`: networks of a source, in one format and precision, written as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.atomic import install_folder
from ohlora.base.version import __version__
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.preset import JUDGED_SEEDS, preset_bundle
from ohlora.export.formats import Batch, format_named, refuse
from ohlora.export.lowering import Lowered, Lowering, serialized
from ohlora.export.precision.presets import preset_named
from ohlora.export.sources import Source

REPORT_NAME = "export.json"


@dataclass(frozen=True)
class Request:
    """What is asked of an export. networks: empty for all of the source.

    package, compute_capabilities: of TensorRT engines. seeds: faces that presets are judged on.
    """

    to: str
    out: Path
    networks: Sequence[str] = ()
    precision: str | None = None
    preset: str | None = None
    batch: Batch = field(default_factory=lambda: Batch(1, 8, 32))
    package: str = "auto"
    compute_capabilities: tuple[str, ...] | None = None
    seeds: int = JUDGED_SEEDS
    overwrite: bool = False


@dataclass(frozen=True)
class Written:
    """One network of a finished export: its files, and what is in export.json of it."""

    name: str
    files: tuple[Path, ...]
    lowered: Lowered
    record: dict[str, Any]


def export(source: Source, request: Request, report: Callable[[str], None] = print) -> list[Written]:
    """Write the export to `request.out`; its networks in order, those of a bundle without files.

    Raises InvalidInputError before any work for what does not go together or when `out` is in the way, EngineError when
    a network misses its gate or an engine cannot be built, OutputError when `out` cannot be written. Nothing is left
    half written.
    """
    target = format_named(request.to)
    if request.preset is not None:
        preset_named(request.preset)
    names = source.chosen(request.networks)
    refuse(target, names, request.precision, request.preset, source.rows_depend, request.networks)
    if target.name == "bundle":
        return _export_bundle(source, request, report)
    if source.bundle is None and (request.preset is not None or request.precision == "int8"):
        raise InvalidInputError(
            "presets and int8 are judged on a bundle's faces: build one (`ohlora bundle build`) and export that"
        )
    lowering = Lowering(
        source,
        request.precision,
        None if request.preset is None else preset_named(request.preset),
        preset_named(request.preset or ("fast" if request.precision == "int8" else "exact")),
        request.seeds,
        symmetric=target.name == "tensorrt",
        report=report,
    )
    with install_folder(request.out, what="an export", known=_is_export, overwrite=request.overwrite) as staging:
        lowered = []
        for name in names:
            report(f"{name}: {target.name}")
            lowered.append(lowering.of(name))
        written = WRITERS[target.name](lowered, staging, source, request, report)
        (staging / REPORT_NAME).write_text(_report(source, request, written), encoding="utf-8")
    return [
        Written(one.name, tuple(request.out / path.relative_to(staging) for path in one.files), one.lowered, one.record)
        for one in written
    ]


def _export_bundle(source: Source, request: Request, report: Callable[[str], None]) -> list[Written]:
    if source.bundle is None:
        raise InvalidInputError("a bundle at a preset is made of a bundle: build one first (`ohlora bundle build`)")
    if request.networks:
        raise InvalidInputError("--model does not go with --to bundle: a bundle is exported whole")
    preset = preset_named(request.preset or ("exact" if request.precision == "fp32" else "fast"))
    preset_bundle(
        source.bundle.path,
        preset,
        request.out,
        precision=request.precision,
        seeds=request.seeds,
        name=request.out.resolve().name,
        overwrite=request.overwrite,
        report=report,
    )
    return []


def _onnx_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Callable[[str], None]
) -> list[Written]:
    written = []
    for one in lowered:
        path = folder / f"{one.graph.name}.onnx"
        path.write_bytes(serialized(one))
        written.append(_written(one, (path,)))
    return written


def _openvino_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Callable[[str], None]
) -> list[Written]:
    from ohlora.engines.openvino_backend import openvino

    core = openvino.Core()
    written = []
    for one in lowered:
        path = folder / f"{one.graph.name}.xml"
        # Weights stay in the type they have: float16 storage would be a precision of its own.
        openvino.save_model(core.read_model(serialized(one)), path, compress_to_fp16=False)
        written.append(_written(one, (path, path.with_suffix(".bin"))))
    return written


def _tensorrt_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Callable[[str], None]
) -> list[Written]:
    from ohlora.export.tensorrt.builder import build_engine

    written = []
    for one in lowered:
        built = build_engine(
            serialized(one),
            folder / f"{one.graph.name}.engine",
            package=request.package,
            batch=(request.batch.least, request.batch.best, request.batch.most),
            compute_capabilities=request.compute_capabilities,
            network_sha256=source.bundle.engine_hashes.get(one.graph.name, "") if source.bundle else "",
            on_progress=report,
        )
        report(
            f"  {one.graph.name}: {built.bytes / 1e6:.1f} MB in {built.seconds:.1f} s ({built.package} {built.version})"
        )
        written.append(_written(one, (built.path, built.sidecar)))
    return written


def _triton_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Callable[[str], None]
) -> list[Written]:
    from ohlora.export.triton.export import write_lowered

    return [_written(one, tuple(files)) for one, files in write_lowered(lowered, folder, source, request.batch, report)]


WRITERS: dict[str, Callable[..., list[Written]]] = {
    "onnx": _onnx_files,
    "openvino": _openvino_files,
    "tensorrt": _tensorrt_files,
    "triton": _triton_files,
}


def _written(one: Lowered, files: tuple[Path, ...]) -> Written:
    record = {
        "precision": one.precision,
        "runtime_precision": one.runtime,
        "parity": {name: dict(found) for name, found in one.graph.parity.items()},
        "quality": one.quality,
        "rows_depend_on_batch": one.graph.rows_depend,
    }
    return Written(one.graph.name, files, one, record)


def _report(source: Source, request: Request, written: Sequence[Written]) -> str:
    def entry(path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    content = {
        "source": source.name,
        "bundle_sha256": source.bundle.identity if source.bundle else None,
        "format": request.to,
        "preset": request.preset,
        "batch": str(request.batch) if request.to in ("tensorrt", "triton") else None,
        "ohlora_version": __version__,
        "networks": {one.name: {"files": [entry(path) for path in one.files], **one.record} for one in written},
    }
    return json.dumps({key: value for key, value in content.items() if value is not None}, indent=1) + "\n"


def _is_export(folder: Path) -> bool:
    return (folder / REPORT_NAME).is_file()
