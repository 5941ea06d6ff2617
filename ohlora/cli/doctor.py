"""`ohlora doctor`: what works on this machine, and how fast the shipped bundle runs."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import typer

from ohlora.cli import options
from ohlora.cli.report import Told, plain, say
from ohlora.errors import OhloraError

if TYPE_CHECKING:
    from ohlora.bundle import Bundle

# A row: "check" says of what, "ok" is None for what may well be missing, "detail" has versions or what is wrong,
# "repair", where it is there, the command that mends it.
Row = dict[str, object]


@options.grouped
def doctor(*, bundle: options.BundleName = "demo", told: Told) -> None:
    """Import every package, run backends, a kernel and the bundle's engines; exit status 1 when something is broken.

    Example: `ohlora doctor --bundle ./my-bundle`
    """
    rows = [
        *section("ohlora", version),
        *section("machine", machine),
        *section("packages", packages),
        *section("numba kernel", numba_kernel),
        *(backends := section("backends", engine_backends)),
        *section("backend cuda", cuda_kernels),
        *section(f"bundle {bundle}", lambda: bundle_and_engines(bundle)),
    ]
    works = any(row["ok"] for row in backends)
    healthy = works and all(row["ok"] is not False for row in rows if not str(row["check"]).startswith("backend"))
    told.tell({"healthy": healthy, "checks": rows})
    if not told.json:
        show(rows)
    raise typer.Exit(0 if healthy else 1)


def show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "detail")
    for row in rows:
        mark = "-" if row["ok"] is None else "[green]ok" if row["ok"] else "[red]no"
        table.add_row(plain(row["check"]), mark, plain(row["detail"]))
    Console().print(table)
    # Below the table, whose columns would break them: commands are to be copied.
    for row in rows:
        if row.get("repair"):
            verb = "repair" if row["ok"] is False else "install"
            say(f"{verb} {str(row['check']).removeprefix('extra ')}: {row['repair']}")


def section(name: str, rows: Callable[[], Iterable[Row]]) -> list[Row]:
    """What `rows` finds. A broken package breaks whatever imports it, in any way: then that is the row."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # packages that fail print: stdout is the report's alone
            return list(rows())
    except OhloraError as error:
        return [{"check": name, "ok": False, "detail": str(error)}]
    except Exception as error:
        return [{"check": name, "ok": False, "detail": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}]


def version() -> Iterable[Row]:
    from ohlora.base.version import __version__

    yield {"check": "ohlora", "ok": True, "detail": f"{__version__}, Python {platform.python_version()}"}


def machine() -> Iterable[Row]:
    """The processor's kind, and its cores that this process may use."""
    from ohlora.engines import usable_cores

    yield {"check": "machine", "ok": True, "detail": f"{platform.machine()}, {usable_cores()} usable cores"}


def packages() -> Iterable[Row]:
    """The packages that the runtime and each extra ask for: imported, and new enough."""
    from ohlora.base.installation import install_command, package_reports

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's packages
        reports = list(package_reports())
    for report in reports:
        check = f"extra {report.name}" if report.name else "packages"
        problems = [*report.failing.values(), *report.outdated.values()]
        if report.name and not report.working and not problems:
            yield {"check": check, "ok": None, "detail": "not installed", "repair": install_command(report.name)}
            continue
        if report.missing:
            problems.append(f"not installed: {', '.join(report.missing)}")
        # An extra of which some packages are missing was perhaps never asked for: the others are here for something
        # else, in versions of their own.
        needed = not report.name or not report.missing
        ok = True if not problems else False if report.failing or needed else None
        detail = "; ".join(problems) or ", ".join(report.working)
        yield {"check": check, "ok": ok, "detail": detail, "repair": report.repair}


def numba_kernel() -> Iterable[Row]:
    """Compile the ombre kernel and hold it to the NumPy form, bit for bit."""
    import numpy as np

    from ohlora.base.installation import repair_command
    from ohlora.kernels.ombre import apply_ombre

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    hair = rng.random((2, 32, 32), dtype=np.float32)
    try:
        dyed = apply_ombre(images, hair, 0.5, 0.7, 0.5, backend="cpu")
    except Exception as error:  # Numba and LLVM raise types of their own
        detail = f"the ombre kernel does not compile ({' '.join(str(error).split())[:200]})"
    else:
        if np.array_equal(dyed, apply_ombre(images, hair, 0.5, 0.7, 0.5, backend="reference")):
            yield {"check": "numba kernel", "ok": True, "detail": "ombre, compiled: equal to NumPy"}
            return
        detail = "the compiled ombre kernel differs from NumPy"
    repair = repair_command("", ["numba", "llvmlite"])
    yield {"check": "numba kernel", "ok": False, "detail": detail, "repair": repair}


def engine_backends() -> Iterable[Row]:
    """The engines that are installed here; one that works is enough."""
    from ohlora.engines import backend_report

    for backend in backend_report():
        detail = f"{backend.version} {backend.detail}".strip()
        yield {"check": f"backend {backend.name}", "ok": backend.available, "detail": detail}


def cuda_kernels() -> Iterable[Row]:
    """Whether `--device cuda` and the kernels' CUDA forms can be used; a machine without a GPU is healthy."""
    from ohlora.kernels.gpu.arrays import CudaUnavailableError, device_names

    try:
        yield {"check": "backend cuda", "ok": True, "detail": "; ".join(device_names())}
    except CudaUnavailableError as error:
        yield {"check": "backend cuda", "ok": False, "detail": error.reason}


def bundle_and_engines(name: str) -> Iterable[Row]:
    """The bundle's files against their hashes, then its networks."""
    from ohlora.bundle import Bundle

    bundle = Bundle.open(name)
    yield {"check": f"bundle {bundle.name}", "ok": True, "detail": f"{len(bundle.manifest.files)} files verified"}
    for role in ("hair", "generator"):
        if getattr(bundle.manifest, role):
            yield from section(f"{role} engine", partial(check_network, bundle, role))


def check_network(bundle: Bundle, role: str) -> Iterable[Row]:
    """Open an engine (which runs its self-test) and time a few rows."""
    import numpy as np

    engine = bundle.hair_engine() if role == "hair" else bundle.generator_engines()[1]
    rows = 2 * engine.threads
    inputs = {tensor.name: np.zeros((rows, *tensor.row_shape), dtype=tensor.dtype) for tensor in engine.spec.inputs}
    engine(**inputs)
    started = time.perf_counter()
    engine(**inputs)
    speed = rows / (time.perf_counter() - started)
    yield {"check": f"{role} engine", "ok": True, "detail": f"{engine.reason}; {speed:.0f} images/s"}
