"""Compiled networks behind one call. A new backend is one entry in BACKENDS and one module in this folder."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora.base.installation import install_command, repair_command
from ohlora.engines.spec import Engine, EngineSpec, TensorSpec
from ohlora.errors import EngineError
from ohlora.kernels.threads import usable_cores

if TYPE_CHECKING:
    from ohlora.engines.model_file import ModelFile
    from ohlora.engines.rows import RowEngine
    from ohlora.engines.selftest import Probe

__all__ = [
    "BACKENDS", "PRECISIONS", "Backend", "BackendStatus", "Engine", "EngineSpec", "TensorSpec",
    "arithmetic", "backend_report", "has_int8_products", "open_engine", "usable_cores",
]  # fmt: skip

PRECISIONS = ("fp32", "bf16", "fp16")
_LOG = logging.getLogger("ohlora")


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a network. `machines`: where 'auto' considers it, empty for everywhere; if it is `automatic`.

    extra: the extra of ohlora that brings `package`; "" for what the runtime itself depends on.
    """

    name: str
    package: str
    precisions: tuple[str, ...] = ("fp32",)
    machines: tuple[str, ...] = ()
    automatic: bool = True

    extra: str = ""

    @property
    def module(self) -> str:
        """Where it is: PyTorch is imported in one room only."""
        room = "ohlora.engines.onnx_torch" if self.package == "torch" else "ohlora.engines"
        return f"{room}.{self.name}_backend"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.extra) if self.extra else f"pip install {self.package}"


# In 'auto' order: OpenVINO is the faster one on x86, ONNX Runtime runs everywhere.
BACKENDS = (
    Backend("openvino", "openvino", ("fp32", "bf16"), ("x86_64", "AMD64")),
    Backend("onnxruntime", "onnxruntime"),
    Backend("torch", "torch", PRECISIONS, automatic=False, extra="train"),
)


def open_engine(
    path: Path | str,
    *,
    backend: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    probe: Probe | Mapping[str, Mapping[str, Any]] | Path | str | None = None,
) -> RowEngine:
    """Load the ONNX model at `path`, compile it for this machine and test it.

    backend: 'auto' takes the first of BACKENDS that is installed and passes, with one warning line when that
        is not the preferred one; a name takes that backend or fails. `.reason` says which and why.
    precision: 'fp32', 'bf16' (OpenVINO on CPUs that have it; a looser self-test), 'fp16' (torch).
    threads: rows computed at once; default: usable cores. Changes speed, never results.
    probe: input and output that the engine must reproduce: a file of `selftest.save_probe`, or
        {'inputs': {name: array [N, ...]}, 'outputs': {...}}.
    Raises EngineError: unknown backend or precision, unreadable model, no backend works, self-test failed.
    """
    from ohlora.engines.model_file import read_model_file
    from ohlora.engines.selftest import load_probe

    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise EngineError(f"threads must be a whole number of at least 1, got {threads!r}")
    candidates = _candidates(backend, precision)
    model = read_model_file(Path(path))
    model.require_independent_rows()
    loaded_probe = None if probe is None else load_probe(probe)
    if model.quantized and not has_int8_products():
        _LOG.warning("%s is int8, and this CPU has no int8 products (VNNI): it works, but is no faster", model.name)
    failures: list[str] = []
    for candidate in candidates:
        try:
            engine = _open_with(candidate, model, precision, threads or usable_cores(), loaded_probe)
        except EngineError as error:
            if backend != "auto":
                raise
            failures.append(f"{candidate.name}: {_one_line(error)}")
            continue
        if backend != "auto":
            engine.reason = f"{candidate.name}: asked for"
        elif failures:
            engine.reason = f"{candidate.name}: fallback, {'; '.join(failures)}"
            _LOG.warning("engine %s falls back to %s; %s", model.name, candidate.name, "; ".join(failures))
        else:
            engine.reason = f"{candidate.name}: preferred on {platform.machine()}, passed its self-test"
        return engine
    raise EngineError(f"no backend can run {model.path}. " + "; ".join(failures))


def arithmetic(asked: str, recorded: str, backend: str = "auto") -> str:
    """Precision to open a network with. 'auto' is what its preset was measured in, where that runs here; else fp32,
    which is nearer to the exact network.
    """
    if asked != "auto" or recorded == "fp32":
        return recorded if asked == "auto" else asked
    # Not those that are never chosen: looking at PyTorch loads it.
    names = [entry.name for entry in BACKENDS if (entry.automatic if backend == "auto" else entry.name == backend)]
    able = any(status.bf16 for status in backend_report(names))
    return recorded if able else "fp32"


def has_int8_products() -> bool:
    """Whether this CPU multiplies int8 in one step (VNNI, AMX); True where that cannot be found out."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return any(name in flags for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _candidates(backend: str, precision: str) -> list[Backend]:
    by_name = {entry.name: entry for entry in BACKENDS}
    if backend == "auto":
        here = [b for b in BACKENDS if b.automatic and (not b.machines or platform.machine() in b.machines)]
        able = [b for b in here if precision in b.precisions]
        if not able:
            raise EngineError(f"no backend computes in {precision} on {platform.machine()}: use precision fp32")
        return able
    if backend not in by_name:
        raise EngineError(f"unknown backend {backend!r}: choose auto, {' or '.join(by_name)}")
    if precision not in by_name[backend].precisions:
        others = [b.name for b in BACKENDS if precision in b.precisions and b.automatic] or ["torch"]
        raise EngineError(
            f"backend {backend} does not compute in {precision}: use {' or '.join(others)}, or precision fp32"
        )
    return [by_name[backend]]


def _open_with(backend: Backend, model: ModelFile, precision: str, threads: int, probe: Probe | None) -> RowEngine:
    try:
        return _tested(backend, model, precision, threads, probe, use_cache=True)
    except _CachedEngineError:
        return _tested(backend, model, precision, threads, probe, use_cache=False)


class _CachedEngineError(Exception):
    """A network from the cache failed its self-test, which may be the cache's fault."""


def _tested(
    backend: Backend, model: ModelFile, precision: str, threads: int, probe: Probe | None, *, use_cache: bool
) -> RowEngine:
    from ohlora.engines.rows import RowEngine
    from ohlora.engines.selftest import run_selftest

    module = _module(backend)
    try:
        compiled = module.compile_model(model, precision=precision, threads=threads, use_cache=use_cache)
    except EngineError as error:
        raise EngineError(f"{backend.name} cannot run {model.path}: {error}") from error
    except Exception as error:  # backends raise types of their own, down to RuntimeError
        raise EngineError(f"{backend.name} cannot load {model.path}: {_one_line(error)}") from error
    label = model.precision_label(precision)
    engine = RowEngine(model.name, compiled, backend=backend.name, precision=label, model_sha256=model.sha256)
    try:
        engine.selftest = run_selftest(engine, probe)
    except EngineError as error:
        engine.close()
        if compiled.cached:
            raise _CachedEngineError from error
        raise
    return engine


def _module(backend: Backend) -> Any:
    if importlib.util.find_spec(backend.package) is None:
        raise EngineError(f"backend {backend.name} is not installed: {backend.install}")
    try:
        module = importlib.import_module(backend.module)
        importlib.import_module(backend.package)
    except Exception as error:  # a broken install fails in any way, ImportError to missing system libraries
        raise EngineError(
            f"backend {backend.name} does not import ({_one_line(error)}): "
            f"{repair_command(backend.extra, [backend.package])}"
        ) from error
    return module


def _one_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One row of `ohlora doctor`. `detail`: device and capabilities, or why it is not available."""

    name: str
    version: str
    available: bool
    bf16: bool
    detail: str


def backend_report(names: Sequence[str] | None = None) -> list[BackendStatus]:
    """What is installed and works here, in 'auto' order, of all or `names`. Never raises for a broken backend."""
    rows = []
    for backend in BACKENDS if names is None else [entry for entry in BACKENDS if entry.name in names]:
        try:
            version, bf16, detail = _module(backend).describe()
        except EngineError as error:
            rows.append(BackendStatus(backend.name, "", False, False, str(error)))
        except Exception as error:  # a backend that imports but finds no device
            rows.append(BackendStatus(backend.name, "", False, False, _one_line(error)))
        else:
            rows.append(BackendStatus(backend.name, version, True, bf16, detail))
    return rows
