"""Compiled networks behind one call; the backends are listed in `registry`."""

from __future__ import annotations

import logging
import platform
from functools import partial
from pathlib import Path
from typing import cast

from ohlora.engines.model_file import ModelFile, read_model_file
from ohlora.engines.registry import (
    BACKENDS,
    PRECISIONS,
    BackendEntry,
    BackendStatus,
    arithmetic,
    backend_report,
    candidates,
    has_int8_products,
)
from ohlora.engines.rows import Compiled, RowEngine
from ohlora.engines.selftest import ProbeSource, load_probe, with_selftest
from ohlora.engines.spec import Engine, EngineSpec, TensorSpec
from ohlora.errors import EngineError, one_line
from ohlora.kernels.threads import usable_cores

__all__ = [
    "BACKENDS", "PRECISIONS", "BackendEntry", "BackendStatus", "Engine", "EngineSpec", "TensorSpec",
    "arithmetic", "backend_report", "has_int8_products", "open_engine", "usable_cores",
]  # fmt: skip

_LOG = logging.getLogger("ohlora")


def open_engine(
    path: Path | str | ModelFile,
    *,
    backend: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    probe: ProbeSource | None = None,
) -> RowEngine:
    """Load the ONNX model at `path`, or one that was read, compile it for this machine and test it.

    backend: 'auto' takes the first of BACKENDS that is installed and passes, with one warning line when that
        is not the preferred one; a name takes that backend or fails. `.reason` says which and why.
    precision: 'fp32', 'bf16' (OpenVINO on CPUs that have it; a looser self-test), 'fp16' (torch).
    threads: rows computed at once; default: usable cores. Changes speed, never results.
    probe: input and output that the engine must reproduce: a file of `selftest.save_probe`, or
        {'inputs': {name: array [N, ...]}, 'outputs': {...}}.
    Raises EngineError: unknown backend or precision, unreadable model, no backend works, self-test failed.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise EngineError(f"threads must be a whole number of at least 1, got {threads!r}")
    entries = candidates(backend, precision)
    model = read_model_file(path)
    model.require_independent_rows()
    loaded = None if probe is None else load_probe(probe)
    if model.quantized and not has_int8_products():
        _LOG.warning("%s is int8, and this CPU has no int8 products (VNNI): it works, but is no faster", model.name)
    failures: list[str] = []
    for entry in entries:
        try:
            engine = _opened(entry, model, precision, threads or usable_cores(), loaded)
        except EngineError as error:
            if backend != "auto":
                raise
            failures.append(f"{entry.name}: {one_line(error)}")
            continue
        if backend != "auto":
            engine.reason = f"{entry.name}: asked for"
        elif failures:
            engine.reason = f"{entry.name}: fallback, {'; '.join(failures)}"
            _LOG.warning("engine %s falls back to %s; %s", model.name, entry.name, "; ".join(failures))
        else:
            engine.reason = f"{entry.name}: preferred on {platform.machine()}, passed its self-test"
        return engine
    raise EngineError(f"no backend can run {model.path}. " + "; ".join(failures))


def _opened(
    entry: BackendEntry, model: ModelFile, precision: str, threads: int, probe: ProbeSource | None
) -> RowEngine:
    engine = _compiled(entry, model, precision, threads, use_cache=True)
    try:
        return with_selftest(engine, probe)
    except EngineError:
        if not engine.cached:
            raise
    # It may be the cache's fault.
    return with_selftest(_compiled(entry, model, precision, threads, use_cache=False), probe)


def _compiled(entry: BackendEntry, model: ModelFile, precision: str, threads: int, *, use_cache: bool) -> RowEngine:
    compiled = _compile(entry, model, precision, threads, use_cache=use_cache)
    return RowEngine(
        model.name, compiled, backend=entry.name, precision=model.precision_label(precision),
        model_sha256=model.sha256,
        compile_again=partial(_compile_again, entry, model.path, model.sha256, precision, threads),
    )  # fmt: skip


def _compile(entry: BackendEntry, model: ModelFile, precision: str, threads: int, *, use_cache: bool) -> Compiled:
    module = entry.load()
    try:
        return cast(Compiled, module.compile_model(model, precision=precision, threads=threads, use_cache=use_cache))
    except EngineError as error:
        raise EngineError(f"{entry.name} cannot run {model.path}: {error}") from error
    except Exception as error:  # backends raise types of their own, down to RuntimeError
        raise EngineError(f"{entry.name} cannot load {model.path}: {one_line(error)}") from error


def _compile_again(entry: BackendEntry, path: Path, sha256: str, precision: str, threads: int) -> Compiled:
    """In a forked process. From the file, not from its bytes: engines do not keep them."""
    model = read_model_file(path)
    if model.sha256 != sha256:
        raise EngineError(f"{path} was changed after it was opened, before this process was forked: open it here")
    return _compile(entry, model, precision, threads, use_cache=True)
