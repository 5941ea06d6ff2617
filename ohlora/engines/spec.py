"""What an engine is, and what it takes and gives: named tensors, and the checks every call goes through."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.closing import Closing
from ohlora.errors import EngineError

Arrays = dict[str, NDArray[Any]]

# The element types our models exchange, and the only ones both backends map to NumPy without loss.
DTYPES = ("uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `shape` holds None where the length is free; only the first, the batch, may be."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("N" if length is None else str(length) for length in self.shape)
        return f"{self.name}: {self.dtype} [{dims}]"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return tuple(length for length in self.shape[1:] if length is not None)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """All inputs and outputs of a network, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    def results(self, rows: int) -> Arrays:
        """Arrays for the outputs of so many rows, not filled."""
        return {tensor.name: np.empty((rows, *tensor.row_shape), tensor.dtype) for tensor in self.outputs}

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for a cache entry."""
        return {
            side: [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in getattr(self, side)]
            for side in ("inputs", "outputs")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineSpec:
        """Inverse of `to_json`."""
        inputs, outputs = (
            tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in data[side])
            for side in ("inputs", "outputs")
        )
        return cls(inputs, outputs)


class Engine(Closing):
    """A network ready to run (docs/design.md, section 4).

    Row i of a call is bit-identical whatever the number of rows, its position, its neighbours and `threads`.
    Attributes: name, spec, backend, precision, threads (rows computed at once), model_sha256 (of the ONNX file), cached
    (whether compiling was skipped), reason (one line: why this backend), selftest (what was measured at load).
    """

    def __init__(
        self, name: str, spec: EngineSpec, *, backend: str, precision: str, model_sha256: str, threads: int = 1,
        cached: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.spec, self.backend, self.precision = name, spec, backend, precision
        self.model_sha256, self.threads, self.cached = model_sha256, threads, cached
        self.reason = ""
        self.selftest: dict[str, Any] = {}
        # Rows always run on these threads, never on the caller's, whose floating-point mode is not ours.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"ohlora-{backend}")
        self._lock = threading.Lock()
        self._closed = self._forked = False
        _ENGINES.add(self)

    def __call__(self, **inputs: Any) -> Arrays:
        """Compute N rows; returns arrays [N, ...] by output name. Safe to call from several threads.

        N = 0 gives empty arrays.
        Raises EngineError naming the input when a name, dtype or shape is wrong or a float is not finite.
        """
        return self.submit(**inputs).result()

    def submit(self, **inputs: Any) -> Future[Arrays]:
        """Start a call and return at once. The inputs must stay unchanged until the future is done.

        Raises EngineError like a call does, before anything is started.
        """
        arrays, rows = check_inputs(self.spec, inputs, f"engine {self.name}")
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name} is closed: open it again")
            if self._forked:
                self._reopen()
                self._forked = False
            return self._start(arrays, rows)

    def close(self) -> None:
        """Wait for running calls, then free the network. Calls after that raise EngineError."""
        with self._lock:
            closed, self._closed = self._closed, True
        self._pool.shutdown(wait=True)
        if not closed:
            self._free()

    @abstractmethod
    def _start(self, inputs: Arrays, rows: int) -> Future[Arrays]: ...

    @abstractmethod
    def _free(self) -> None: ...

    def _reopen(self) -> None:
        """In a forked process, before the first call there: make ready again what the fork left unusable.

        Raises EngineError where that cannot be done.
        """
        raise EngineError(
            f"engine {self.name} ({self.backend}) was opened before this process was forked, which a device does not "
            "survive: start processes by 'spawn', or open it in the process that uses it"
        )

    def _after_fork(self) -> None:
        """In a forked process: the parent's threads are not here, and its locks may be held for ever."""
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=f"ohlora-{self.backend}")
        self._lock, self._forked = threading.Lock(), True

    def __repr__(self) -> str:
        return f"<engine {self.name}: {self.backend} {self.precision}, {self.threads} threads>"


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def never_freed(value: object) -> None:
    """Keep `value` until the process ends, and then too: freeing it would wait for threads that a fork left behind."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def batch_spec(name: str, dtype: str, shape: tuple[int | None, ...], role: str) -> TensorSpec:
    """Spec of a tensor read from a model; the batch dimension becomes None.

    Rows are computed one by one, so a batch length fixed at 1 serves as well as a dynamic one.
    Raises EngineError for a fixed batch above 1, no batch dimension, or an element type outside DTYPES.
    """
    if dtype not in DTYPES:
        raise EngineError(f"{role} '{name}' has element type {dtype}; supported are {', '.join(DTYPES)}")
    if not shape or shape[0] not in (None, 1):
        raise EngineError(
            f"{role} '{name}' has shape {list(shape)}: its first dimension must be the batch and dynamic; "
            "export the model with a dynamic first dimension"
        )
    return TensorSpec(name, dtype, (None, *shape[1:]))


def require_fixed_rows(tensors: tuple[TensorSpec, ...], role: str) -> None:
    """Raise EngineError where a dimension besides the batch is dynamic: rows need a size known in advance."""
    for tensor in tensors:
        if None in tensor.shape[1:]:
            raise EngineError(
                f"{role} '{tensor.name}' has dynamic dimensions besides the batch ({tensor}): "
                "export the model with fixed sizes"
            )


def measured_outputs(results: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
    """Specs of outputs from a run of one row, by (name, element type, shape): exporters often leave sizes open."""
    specs = []
    for name, dtype, shape in results:
        if shape[:1] != (1,):
            raise EngineError(
                f"output '{name}' has shape {list(shape)} for one row: its first dimension must be the batch"
            )
        specs.append(batch_spec(name, dtype, shape, "output"))
    return tuple(specs)


def check_inputs(spec: EngineSpec, given: Mapping[str, Any], owner: str) -> tuple[Arrays, int]:
    """Validate one call. Returns the arrays by name and their common number of rows N.

    Nothing is converted: a float64 array for a float32 input is a mistake upstream that a cast would hide.
    Raises EngineError naming the input, what was expected and what came.
    """
    names = [tensor.name for tensor in spec.inputs]
    missing, unknown = [n for n in names if n not in given], sorted(set(given) - set(names))
    if missing or unknown:
        parts = [f"missing input {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unknown input {', '.join(map(repr, unknown))}"] if unknown else []
        raise EngineError(f"{owner}: {' and '.join(parts)}; it takes {', '.join(map(str, spec.inputs))}")
    arrays: Arrays = {}
    rows: int | None = None
    for tensor in spec.inputs:
        array = np.asarray(given[tensor.name])
        if array.dtype != np.dtype(tensor.dtype) or array.ndim == 0 or array.shape[1:] != tensor.row_shape:
            raise EngineError(f"{owner}: input '{tensor.name}' expects {tensor}, got {array.dtype} {list(array.shape)}")
        if rows is not None and len(array) != rows:
            raise EngineError(
                f"{owner}: input '{tensor.name}' has {len(array)} rows, '{names[0]}' has {rows}; "
                "all inputs of a call need as many"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
            raise EngineError(f"{owner}: input '{tensor.name}' holds NaN or infinity, first in row {bad}")
        arrays[tensor.name], rows = array, len(array)
    return arrays, rows or 0
