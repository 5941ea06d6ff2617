"""The table of backends, and the choice among them. A new one is an entry here and a module in this folder."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ohlora.base.installation import install_command, repair_command
from ohlora.base.types import Backend, FloatPrecision, check_choice
from ohlora.errors import EngineError, one_line

PRECISIONS: tuple[FloatPrecision, ...] = get_args(FloatPrecision)


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One way to run a network. `machines`: where 'auto' considers it, empty for everywhere; if it is `automatic`.

    extra: the extra of ohlora that brings `package`; "" for what the runtime itself depends on.
    """

    name: Backend
    package: str
    precisions: tuple[FloatPrecision, ...] = ("fp32",)
    machines: tuple[str, ...] = ()
    automatic: bool = True
    extra: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.extra) if self.extra else f"pip install {self.package}"

    def load(self) -> Any:
        """Its module. Raises EngineError when its package is missing or broken."""
        if importlib.util.find_spec(self.package) is None:
            raise EngineError(f"backend {self.name} is not installed: {self.install}")
        room = "ohlora.engines.onnx_torch" if self.package == "torch" else "ohlora.engines"  # PyTorch: in one room only
        try:
            module = importlib.import_module(f"{room}.{self.name}_backend")
            importlib.import_module(self.package)
        except Exception as error:  # a broken install fails in any way, ImportError to missing system libraries
            raise EngineError(
                f"backend {self.name} does not import ({one_line(error)}): {repair_command(self.extra, [self.package])}"
            ) from error
        return module


# In 'auto' order: OpenVINO is the faster one on x86, ONNX Runtime runs everywhere.
BACKENDS = (
    BackendEntry("openvino", "openvino", ("fp32", "bf16"), ("x86_64", "AMD64")),
    BackendEntry("onnxruntime", "onnxruntime"),
    BackendEntry("torch", "torch", PRECISIONS, automatic=False, extra="train"),
)


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One row of `ohlora doctor`. `detail`: device and capabilities, or why it is not available."""

    name: Backend
    version: str
    available: bool
    bf16: bool
    detail: str


def candidates(backend: str, precision: str) -> list[BackendEntry]:
    """What may run a network in this precision, the preferred one first. Raises EngineError for what cannot be."""
    check_choice("precision", precision, PRECISIONS, EngineError)
    by_name: dict[str, BackendEntry] = {entry.name: entry for entry in BACKENDS}
    check_choice("backend", backend, ("auto", *by_name), EngineError)
    if backend == "auto":
        here = [b for b in BACKENDS if b.automatic and (not b.machines or platform.machine() in b.machines)]
        able = [b for b in here if precision in b.precisions]
        if not able:
            raise EngineError(f"no backend computes in {precision} on {platform.machine()}: use precision fp32")
        return able
    if precision not in by_name[backend].precisions:
        others = [b.name for b in BACKENDS if precision in b.precisions and b.automatic] or ["torch"]
        raise EngineError(
            f"backend {backend} does not compute in {precision}: use {' or '.join(others)}, or precision fp32"
        )
    return [by_name[backend]]


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


def backend_report(names: Sequence[str] | None = None) -> list[BackendStatus]:
    """What is installed and works here, in 'auto' order, of all or `names`. Never raises for a broken backend."""
    rows = []
    for backend in BACKENDS if names is None else [entry for entry in BACKENDS if entry.name in names]:
        try:
            version, bf16, detail = backend.load().describe()
        except Exception as error:  # not there, or one that imports but finds no device
            detail = str(error) if isinstance(error, EngineError) else one_line(error)
            rows.append(BackendStatus(backend.name, "", False, False, detail))
        else:
            rows.append(BackendStatus(backend.name, version, True, bf16, detail))
    return rows
