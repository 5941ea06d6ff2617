"""`ohlora doctor`: what works on this machine, and how fast the shipped bundle runs."""

from __future__ import annotations

import typer

from ohlora.cli import options

# A row: "check" says of what, "ok" is None for what may well be missing, "detail" has versions or the remedy.
Row = dict[str, object]


def doctor(bundle: options.BundleName = "demo", json: options.Json = False) -> None:
    """Import every package, run backends, a kernel and the bundle's engines; exit status 1 when something is broken.

    Example: `ohlora doctor --bundle my-bundle`
    """
    import json as json_module
    import platform

    from ohlora.base.version import __version__
    from ohlora.bundle import Bundle
    from ohlora.engines import backend_report, usable_cores
    from ohlora.errors import OhloraError

    backends = backend_report()  # first: the OpenVINO backend imports its package without telemetry
    rows: list[Row] = [
        {"check": "ohlora", "ok": True, "detail": f"{__version__}, Python {platform.python_version()}"},
        {"check": "machine", "ok": True, "detail": f"{platform.machine()}, {usable_cores()} usable cores"},
        *packages(),
        numba_kernel(),
    ]
    rows += [
        {"check": f"backend {b.name}", "ok": b.available, "detail": f"{b.version} {b.detail}".strip()} for b in backends
    ]
    rows.append(cuda_kernels())
    works = any(b.available for b in backends)
    try:
        opened = Bundle.open(bundle)
        rows.append(
            {
                "check": f"bundle {opened.name}",
                "ok": True,
                "detail": f"{len(opened.manifest.files)} files verified",
            }
        )
        rows += [check_network(opened, role) for role in ("hair", "generator") if getattr(opened.manifest, role)]
    except OhloraError as error:
        rows.append({"check": f"bundle {bundle}", "ok": False, "detail": str(error)})
    healthy = works and all(row["ok"] is not False for row in rows if not str(row["check"]).startswith("backend"))
    if json:
        typer.echo(json_module.dumps({"healthy": healthy, "checks": rows}))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("check", "", "detail")
        for row in rows:
            mark = "-" if row["ok"] is None else "[green]ok" if row["ok"] else "[red]no"
            table.add_row(str(row["check"]), mark, Text(str(row["detail"])))  # '.[train]' is not markup
        Console().print(table)
    raise typer.Exit(0 if healthy else 1)


def packages() -> list[Row]:
    """The packages that the runtime and each extra ask for: imported, and new enough."""
    import warnings

    from ohlora.base.installation import install_command, package_reports

    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's packages
        reports = list(package_reports())
    for report in reports:
        check = f"extra {report.name}" if report.name else "packages"
        absent = f"not installed: {', '.join(report.missing)}"
        if report.name and not report.working and not report.broken:
            rows.append({"check": check, "ok": None, "detail": f"not installed: {install_command(report.name)}"})
        elif (report.broken and not report.missing) or (report.missing and not report.name):
            problems = [*report.broken, *([absent] if report.missing else [])]
            rows.append({"check": check, "ok": False, "detail": f"{'; '.join(problems)}: {report.repair}"})
        elif report.missing:  # some of an extra's packages, which may be here for something else
            problems = [*report.broken, absent]
            rows.append({"check": check, "ok": None, "detail": f"{'; '.join(problems)}: {report.repair}"})
        else:
            rows.append({"check": check, "ok": True, "detail": ", ".join(report.working)})
    return rows


def numba_kernel() -> Row:
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
            return {"check": "numba kernel", "ok": True, "detail": "ombre, compiled: equal to NumPy"}
        detail = "the compiled ombre kernel differs from NumPy"
    return {"check": "numba kernel", "ok": False, "detail": f"{detail}: {repair_command('', ['numba', 'llvmlite'])}"}


def cuda_kernels() -> Row:
    """Whether `--device cuda` and the kernels' CUDA forms can be used; a machine without a GPU is healthy."""
    from ohlora.kernels.gpu.arrays import CudaUnavailable, device_names

    try:
        return {"check": "backend cuda", "ok": True, "detail": "; ".join(device_names())}
    except CudaUnavailable as error:
        return {"check": "backend cuda", "ok": False, "detail": error.reason}


def check_network(bundle: object, role: str) -> Row:
    """Open an engine (which runs its self-test) and time a few rows."""
    import time

    import numpy as np

    from ohlora.bundle import Bundle
    from ohlora.errors import OhloraError

    assert isinstance(bundle, Bundle)
    try:
        engine = bundle.hair_engine() if role == "hair" else bundle.generator_engines()[1]
        rows = 2 * engine.threads
        inputs = {tensor.name: np.zeros((rows, *tensor.row_shape), dtype=tensor.dtype) for tensor in engine.spec.inputs}
        engine(**inputs)
        started = time.perf_counter()
        engine(**inputs)
        speed = rows / (time.perf_counter() - started)
        return {"check": f"{role} engine", "ok": True, "detail": f"{engine.reason}; {speed:.0f} images/s"}
    except OhloraError as error:
        return {"check": f"{role} engine", "ok": False, "detail": str(error)}
