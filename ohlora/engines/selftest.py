"""The test before an engine is used: equal rows give equal results, a probe input gives its stored output."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ohlora.base.arrays import read_safetensors
from ohlora.base.atomic import write_bytes
from ohlora.engines.spec import Arrays, Engine, TensorSpec
from ohlora.errors import EngineError

EngineT = TypeVar("EngineT", bound=Engine)
IDENTICAL_DB = 100.0  # reported for equal images, whose PSNR is infinite and would not survive JSON


@dataclass(frozen=True, slots=True)
class Probe:
    """Input rows and the outputs they must give, by name; arrays [N, ...] with the same N >= 1."""

    inputs: Arrays
    outputs: Arrays


# A probe, the same as plain mappings, or a file of `save_probe`.
ProbeSource: TypeAlias = "Probe | Mapping[str, Mapping[str, Any]] | str | os.PathLike[str]"


def save_probe(path: Path | str, **networks: Probe) -> None:
    """Write probes as safetensors, tensors '<network>.inputs.<name>' and '<network>.outputs.<name>'.

    One file may serve several networks: save_probe(path, mapping=Probe(...), synthesis=Probe(...)).
    Atomic, deterministic bytes.
    """
    from safetensors.numpy import save

    tensors = {
        f"{network}.{side}.{name}": np.ascontiguousarray(array)
        for network, probe in networks.items()
        for side in ("inputs", "outputs")
        for name, array in getattr(probe, side).items()
    }
    write_bytes(path, save(tensors))


def load_probe(source: ProbeSource, network: str | None = None) -> Probe:
    """A probe from {'inputs': {name: array}, 'outputs': {name: array}} or from a file of `save_probe`.

    network: which of the file's networks; may be None when it holds one.
    Raises EngineError for anything else.
    """
    if isinstance(source, Probe):
        return source
    if isinstance(source, Mapping):
        sides, owner = {k: dict(v) for k, v in source.items()}, "probe"
    else:
        owner = f"probe {source}"
        stored = _read_probe(Path(source))
        if network is None and len(stored) == 1:
            network = next(iter(stored))
        if network not in stored:
            raise EngineError(f"{owner} holds {', '.join(sorted(stored)) or 'nothing'}, not {network!r}")
        sides = stored[network]
    if set(sides) != {"inputs", "outputs"} or not all(sides.values()):
        raise EngineError(f"{owner} must hold both 'inputs' and 'outputs', arrays by name")
    return Probe(*({n: np.asarray(a) for n, a in sides[side].items()} for side in ("inputs", "outputs")))


def _read_probe(path: Path) -> dict[str, dict[str, Arrays]]:
    _, tensors = read_safetensors(path, "probe", EngineError)
    networks: dict[str, dict[str, Arrays]] = {}
    for key, array in tensors.items():
        network, side, name = [*key.split(".", 2), "", ""][:3]
        networks.setdefault(network, {}).setdefault(side, {})[name] = array
    return networks


def with_selftest(engine: EngineT, probe: ProbeSource | None, reason: str = "") -> EngineT:
    """`engine` after its self-test; closed when that fails. reason: why it was chosen."""
    try:
        engine.selftest = run_selftest(engine, None if probe is None else load_probe(probe))
    except EngineError:
        engine.close()
        raise
    engine.reason = reason
    return engine


def run_selftest(engine: Engine, probe: Probe | None) -> dict[str, Any]:
    """Test `engine`; returns what was measured, plain values fit for JSON.

    {'rows': batch size of the equal-rows test, 'probe': {output: {'max_abs', 'mean_abs', ...}} or None}
    Raises EngineError on the first failure.
    """
    inputs = {name: array[:1] for name, array in probe.inputs.items()} if probe else _random_row(engine.spec.inputs)
    rows = engine.threads + 1  # every thread computes at least one, and one has a predecessor in its buffers
    outputs = engine(**{name: np.repeat(array, rows, axis=0) for name, array in inputs.items()})
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineError(f"{_who(engine)}: output '{name}' holds NaN or infinity for a valid input")
        different = [row for row in range(1, rows) if array[row].tobytes() != array[0].tobytes()]
        if different:
            raise EngineError(
                f"{_who(engine)}: a batch of {rows} equal rows gives different '{name}' in rows {different}"
            )
    return {"rows": rows, "probe": _compare(engine, probe) if probe else None}


def _who(engine: Engine) -> str:
    return f"self-test of {engine.name} ({engine.backend}, {engine.precision}) failed"


def _random_row(inputs: tuple[TensorSpec, ...]) -> Arrays:
    rng = np.random.default_rng(0)
    row: Arrays = {}
    for tensor in inputs:
        shape = (1, *tensor.row_shape)
        if tensor.dtype.startswith("float"):
            row[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
        elif tensor.dtype == "uint8":
            row[tensor.name] = rng.integers(0, 256, shape, np.uint8)
        else:  # indices or flags, whose valid range only the model knows; zero is in it
            row[tensor.name] = np.zeros(shape, tensor.dtype)
    return row


def _compare(engine: Engine, probe: Probe) -> dict[str, dict[str, float]]:
    outputs = engine(**probe.inputs)
    if set(outputs) != set(probe.outputs):
        raise EngineError(f"{_who(engine)}: the probe has outputs {sorted(probe.outputs)}, the model {sorted(outputs)}")
    measured = {}
    for name, got in outputs.items():
        expected = probe.outputs[name]
        if got.dtype != expected.dtype or got.shape != expected.shape:
            raise EngineError(
                f"{_who(engine)}: probe output '{name}' is {expected.dtype} {list(expected.shape)}, "
                f"the model gives {got.dtype} {list(got.shape)}"
            )
        kind = "float" if got.dtype.kind == "f" else "integer"
        figures = _figures(got, expected, kind)
        gate = GATES[engine.precision.split("+")[0], kind]
        if not gate.passed(figures):
            shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            raise EngineError(
                f"{_who(engine)}: output '{name}' is not the probe's: {shown}; allowed {gate.text}. "
                "The model or the probe is damaged, or they do not belong together"
            )
        measured[name] = figures
    return measured


def _figures(got: NDArray[Any], expected: NDArray[Any], kind: str) -> dict[str, float]:
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    if kind == "float":
        scale = max(1.0, float(np.abs(expected).max()))  # latents reach several units
        return {"max_abs": float(difference.max() / scale), "mean_abs": float(difference.mean() / scale)}
    mse = float(np.mean(difference**2))
    psnr = IDENTICAL_DB if mse == 0 else min(IDENTICAL_DB, 10 * float(np.log10(255.0**2 / mse)))
    return {
        "max_abs": float(difference.max()),
        "share": float(np.mean(difference > 0)),
        "psnr_db": psnr,
    }


@dataclass(frozen=True, slots=True)
class Gate:
    """How far an output may be from the probe's."""

    text: str
    passed: Callable[[dict[str, float]], bool]


# A NaN fails every gate: comparisons with it are false.
GATES = {
    ("fp32", "integer"): Gate("1 on at most 0.1 % of the values", lambda f: f["max_abs"] <= 1 and f["share"] <= 1e-3),
    ("fp32", "float"): Gate("max_abs 1e-3 relative to max(1, |output|)", lambda f: f["max_abs"] <= 1e-3),
    ("bf16", "integer"): Gate("PSNR of at least 30 dB", lambda f: f["psnr_db"] >= 30),
    ("bf16", "float"): Gate("mean_abs 0.02 relative to max(1, |output|)", lambda f: f["mean_abs"] <= 0.02),
    ("fp16", "integer"): Gate("PSNR of at least 40 dB", lambda f: f["psnr_db"] >= 40),
    ("fp16", "float"): Gate("mean_abs 0.005 relative to max(1, |output|)", lambda f: f["mean_abs"] <= 0.005),
    # A sum that another backend orders otherwise may round to the neighbouring step, and layers carry that on.
    ("int8", "integer"): Gate("PSNR of at least 35 dB", lambda f: f["psnr_db"] >= 35),
    ("int8", "float"): Gate("mean_abs 0.02 relative to max(1, |output|)", lambda f: f["mean_abs"] <= 0.02),
}
