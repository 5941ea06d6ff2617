"""`ohlora export`: networks of a source, in one format and precision, written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ohlora.base.atomic import install_folder, write_json
from ohlora.base.types import Report, check_choice
from ohlora.base.version import __version__
from ohlora.bundle.files import file_sha256
from ohlora.engines.gpu.tensorrt_sidecar import sidecar_path
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.preset import JUDGED_SEEDS, preset_bundle
from ohlora.export.formats import DEFAULT_BATCH, FORMATS, Batch, refuse
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
    batch: Batch = DEFAULT_BATCH
    package: str = "auto"
    compute_capabilities: tuple[str, ...] | None = None
    seeds: int = JUDGED_SEEDS
    overwrite: bool = False


@dataclass(frozen=True)
class Written:
    """One network of a finished export, and its files."""

    lowered: Lowered
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.lowered.graph.name


def export(source: Source, request: Request, report: Report = print) -> list[Written]:
    """Write the export to `request.out`; its networks in order, those of a bundle without files.

    Raises InvalidInputError before any work for what does not go together or when `out` is in the way, EngineError when
    a network misses its gate or an engine cannot be built, OutputError when `out` cannot be written; then `out` is as
    it was.
    """
    target = FORMATS[check_choice("format", request.to, FORMATS)]
    preset = None if request.preset is None else preset_named(request.preset)
    names = source.chosen(request.networks)
    refuse(target, names, request.precision, request.preset, source.rows_depend, request.networks)
    # What plans are held to; float32 needs no plan.
    gate = preset or preset_named("fast" if request.precision in ("int8", "bf16") else "exact")
    if target.name == "bundle":
        if source.bundle is None:
            raise InvalidInputError("a bundle at a preset is made of a bundle: build one first (`ohlora bundle build`)")
        if request.networks:
            raise InvalidInputError("--model does not go with --to bundle: a bundle is exported whole")
        preset_bundle(
            source.bundle.path,
            gate,
            request.out,
            precision=request.precision,
            seeds=request.seeds,
            name=request.out.resolve().name,
            overwrite=request.overwrite,
            report=report,
        )
        return []
    if source.bundle is None and (preset is not None or request.precision == "int8"):
        raise InvalidInputError(
            "presets and int8 are judged on a bundle's faces: build one (`ohlora bundle build`) and export that"
        )
    symmetric = target.name == "tensorrt"
    lowering = Lowering(source, request.precision, preset, gate, request.seeds, symmetric, report)
    with install_folder(request.out, what="an export", known=_is_export, overwrite=request.overwrite) as folder:
        lowered = []
        for name in names:
            report(f"{name}: {target.name}")
            lowered.append(lowering.of(name))
        files = WRITERS[target.name](lowered, folder, source, request, report)
        made = [Written(one, tuple(paths)) for one, paths in zip(lowered, files, strict=True)]
        write_json(folder / REPORT_NAME, _report(source, request, made))
    return [replace(one, files=tuple(request.out / path.relative_to(folder) for path in one.files)) for one in made]


def _is_export(folder: Path) -> bool:
    return (folder / REPORT_NAME).is_file()


def _onnx_files(lowered: Sequence[Lowered], folder: Path, *_: object) -> Iterator[list[Path]]:
    for one in lowered:
        path = folder / f"{one.graph.name}.onnx"
        path.write_bytes(serialized(one))
        yield [path]


def _openvino_files(lowered: Sequence[Lowered], folder: Path, *_: object) -> Iterator[list[Path]]:
    from ohlora.engines.openvino_backend import openvino

    core = openvino.Core()
    for one in lowered:
        path = folder / f"{one.graph.name}.xml"
        # Weights stay in the type they have: float16 storage would be a precision of its own.
        openvino.save_model(core.read_model(serialized(one)), path, compress_to_fp16=False)
        yield [path, path.with_suffix(".bin")]


def _tensorrt_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Report
) -> Iterator[list[Path]]:
    from ohlora.export.tensorrt.builder import build_engine

    hashes = source.bundle.engine_hashes if source.bundle else {}
    for one in lowered:
        path = folder / f"{one.graph.name}.engine"
        built = build_engine(
            serialized(one),
            path,
            package=request.package,
            batch=request.batch,
            compute_capabilities=request.compute_capabilities,
            network_sha256=hashes.get(one.graph.name, ""),
            report=report,
        )
        megabytes = path.stat().st_size / 1e6
        report(
            f"  {one.graph.name}: {megabytes:.1f} MB in {built.build_seconds:.1f} s ({built.package} {built.version})"
        )
        yield [path, sidecar_path(path)]


def _triton_files(
    lowered: Sequence[Lowered], folder: Path, source: Source, request: Request, report: Report
) -> list[list[Path]]:
    from ohlora.export.triton.export import write_lowered

    return write_lowered(lowered, folder, source, request.batch, report)


# Files of each network, in order.
WRITERS: dict[str, Callable[[Sequence[Lowered], Path, Source, Request, Report], Iterable[list[Path]]]] = {
    "onnx": _onnx_files,
    "openvino": _openvino_files,
    "tensorrt": _tensorrt_files,
    "triton": _triton_files,
}


def _report(source: Source, request: Request, written: Sequence[Written]) -> dict[str, Any]:
    def entry(path: Path) -> dict[str, Any]:
        return {"file": path.name, "sha256": file_sha256(path), "size": path.stat().st_size}

    content = {
        "source": source.name,
        "bundle_sha256": source.bundle.identity if source.bundle else None,
        "format": request.to,
        "preset": request.preset,
        "batch": str(request.batch) if FORMATS[request.to].profile else None,
        "ohlora_version": __version__,
        "networks": {
            one.name: {"files": [entry(path) for path in one.files], **one.lowered.to_json()} for one in written
        },
    }
    return {key: value for key, value in content.items() if value is not None}
