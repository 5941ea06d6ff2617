"""ONNX -> TensorRT engines, by `tensorrt` or `tensorrt_rtx`, whose interface is the same.

Networks are strongly typed: precision is in the graph (`mixed_precision`, `quantize`), never a builder's flag.
`tensorrt_rtx` builds without a GPU, for the compute capabilities that are named; `tensorrt` builds on and for the GPU
of this machine.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import onnx

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.base.types import Report, check_choice
from ohlora.base.version import __version__
from ohlora.engines.cache import cache_root
from ohlora.engines.gpu.tensorrt_sidecar import Sidecar
from ohlora.engines.model_file import read_model_file
from ohlora.engines.spec import EngineSpec, TensorSpec
from ohlora.errors import EngineError, InvalidInputError, OutputError
from ohlora.export.formats import DEFAULT_BATCH, Batch
from ohlora.export.tensorrt.graph import bytes_outside

PACKAGES = {
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
    "tensorrt": "pip install tensorrt",
}
WORKSPACE = 4 << 30
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
           "INT8": "int8", "BOOL": "bool"}  # fmt: skip


def build_engine(
    model: Path | bytes,
    out: Path,
    *,
    package: str = "auto",
    batch: Batch = DEFAULT_BATCH,
    compute_capabilities: Sequence[str] | None = None,
    network_sha256: str = "",
    report: Report = lambda line: None,
) -> Sidecar:
    """Build `out` (NAME.engine) and its sidecar, atomic each.

    package: 'tensorrt', 'tensorrt_rtx', or 'auto': the first that is installed and can build what is asked.
    batch: of every input's first axis. compute_capabilities: of the GPUs that it is for ("8.9"), None for
    the one of this machine. network_sha256: of a bundle's file, so that renderers know whose engine it is.
    Returns what the sidecar says. Raises InvalidInputError for capabilities that make no sense, EngineError for a
    package that is not there, no GPU, or a graph that TensorRT cannot take (naming the node), OutputError.
    """
    name, trt = _package(package, compute_capabilities)
    data = read_model_file(model).data if isinstance(model, Path) else model
    source = hashlib.sha256(data).hexdigest()
    logger = _logger(trt)
    started = time.perf_counter()
    builder = _builder(trt, logger)
    network, parser = _parsed(trt, builder, logger, data)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    capabilities = _target(trt, config, compute_capabilities)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        row = tuple(tensor.shape)[1:]
        if -1 in row:
            raise EngineError(f"input '{tensor.name}' has free sides besides the batch: no profile fits it")
        profile.set_shape(tensor.name, *((size, *row) for size in (batch.min, batch.opt, batch.max)))
    config.add_optimization_profile(profile)
    cache = _timing_cache(trt, config, name, capabilities)
    report(f"  building with {name} {trt.__version__} for {', '.join(capabilities)}, batch {batch}")
    built = builder.build_serialized_network(network, config)
    if built is None:
        said = _short("; ".join(logger.errors[:2])) or "it does not say why"
        remedy = "; its largest batch needs too much memory: give a smaller --batch" if "OutOfMemory" in said else ""
        raise EngineError(f"{name} could not build {out.name}: {said}{remedy}")
    _keep_timing_cache(config, cache)
    engine = bytes(built)
    make_folder(out.parent)
    sidecar = Sidecar(
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        model_sha256=source,
        package=name,
        version=trt.__version__,
        compute_capabilities=capabilities,
        batch=(batch.min, batch.opt, batch.max),
        precision=_precision(data),
        spec=_spec(network),
        ohlora_version=__version__,
        build_seconds=round(time.perf_counter() - started, 3),
        layers=network.num_layers,
        network_sha256=network_sha256,
    )
    # The engine first: a sidecar without its engine says so when it is read.
    write_bytes(out, engine)
    sidecar.write(out)
    del parser
    return sidecar


def available() -> dict[str, str]:
    """Installed packages and their versions."""
    found = {}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            try:
                found[name] = str(importlib.import_module(name).__version__)
            except Exception:  # a broken install: not available
                continue
    return found


def _package(asked: str, capabilities: Sequence[str] | None) -> tuple[str, Any]:
    check_choice("package", asked, ("auto", *PACKAGES))
    installed = available()
    names = [asked] if asked != "auto" else [name for name in PACKAGES if name in installed] or ["tensorrt_rtx"]
    # Only RTX builds for a GPU that is not here; on one that is, the full TensorRT has more devices and tactics.
    if asked == "auto" and capabilities is None and "tensorrt" in installed:
        names = ["tensorrt"]
    if names[0] not in installed:
        raise EngineError(f"{names[0]} is not installed: {PACKAGES[names[0]]}")
    if names[0] == "tensorrt" and capabilities is not None:
        raise InvalidInputError(
            "tensorrt builds for the GPU of this machine: leave compute capabilities out, or tensorrt_rtx"
        )
    return names[0], importlib.import_module(names[0])


def _logger(trt: Any) -> Any:
    """Keeps what TensorRT says of errors, which its exceptions do not carry, in place of printing it."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            # Without a GPU every start says that the driver is missing: no error for a builder that needs none.
            if severity <= trt.ILogger.Severity.ERROR and "Cuda Runtime" not in message:
                self.errors.append(message)

    return Log()


def _builder(trt: Any, logger: Any) -> Any:
    try:
        builder = trt.Builder(logger)
    except Exception as error:  # pybind raises TypeError when the library finds no driver
        raise EngineError(f"TensorRT cannot start here ({error}): it needs an NVIDIA driver") from error
    if builder is None:
        raise EngineError("TensorRT cannot start here: it needs an NVIDIA driver")
    return builder


def _parsed(trt: Any, builder: Any, logger: Any, data: bytes) -> tuple[Any, Any]:
    """(network, parser). The parser owns the weights: it has to live as long as the network is used."""
    model = bytes_outside(onnx.load_from_string(data))
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(index) for index in range(min(3, parser.num_errors))]
        shown = "; ".join(f"{error.node_operator()} (node '{error.node_name()}'): {error.desc()}" for error in errors)
        opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
        raise EngineError(f"TensorRT {trt.__version__} cannot take this graph (opset {opsets}): {_short(shown)}")
    return network, parser


def _short(text: str) -> str:
    return shorten(text, 600, placeholder="...")


def _target(trt: Any, config: Any, capabilities: Sequence[str] | None) -> tuple[str, ...]:
    """Sets what the engine is for; returns it as ("8.9", ...)."""
    if capabilities is None:
        from ohlora.engines.gpu.cuda_runtime import compute_capability

        return (compute_capability(0),)
    if len(set(capabilities)) != len(capabilities) or not capabilities:
        raise InvalidInputError(
            f"compute capabilities must be named once each, got {', '.join(capabilities) or 'none'}"
        )
    members = {_written(name): value for name, value in trt.ComputeCapability.__members__.items() if name[:2] == "SM"}
    for index, text in enumerate(capabilities):
        if text not in members:
            raise InvalidInputError(
                f"{trt.__name__} {trt.__version__} builds for compute capabilities {', '.join(members)}, not '{text}'"
            )
        if index == 0:
            config.num_compute_capabilities = len(capabilities)
        config.set_compute_capability(members[text], index)
    return tuple(capabilities)


def _written(member: str) -> str:
    """'SM89' -> '8.9', 'SM120' -> '12.0'."""
    digits = re.sub(r"\D", "", member)
    return f"{digits[:-1]}.{digits[-1]}"


def _timing_cache(trt: Any, config: Any, package: str, capabilities: Sequence[str]) -> Path | None:
    """Measured kernels of earlier builds (`tensorrt`; RTX measures nothing when it builds)."""
    root = cache_root()
    if root is None or package != "tensorrt":
        return None
    path = root / f"timing-{trt.__version__}-{'-'.join(capabilities)}.cache"
    known = path.read_bytes() if path.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known), False)
    return path


def _keep_timing_cache(config: Any, path: Path | None) -> None:
    if path is not None:
        try:
            make_folder(path.parent)
            write_bytes(path, bytes(config.get_timing_cache().serialize()))
        except OutputError:
            return  # a cache that cannot be written is just no cache


def _spec(network: Any) -> EngineSpec:
    def listed(count: int, get: Callable[[int], Any]) -> tuple[TensorSpec, ...]:
        tensors = [get(index) for index in range(count)]
        return tuple(
            TensorSpec(t.name, _DTYPES.get(t.dtype.name, t.dtype.name.lower()), (None, *(int(n) for n in t.shape[1:])))
            for t in tensors
        )

    return EngineSpec(listed(network.num_inputs, network.get_input), listed(network.num_outputs, network.get_output))


def _precision(data: bytes) -> str:
    """As the exporter wrote it into the model, else by the types of its weights."""
    model = onnx.load_from_string(data)
    for entry in model.metadata_props:
        if entry.key == "ohlora.precision":
            return str(entry.value)
    stored = {tensor.data_type for tensor in model.graph.initializer}
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return "int8"
    return "bf16" if onnx.TensorProto.BFLOAT16 in stored else "fp32"
