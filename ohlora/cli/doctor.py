"""`ohlora doctor`: what works on this machine, and how fast the shipped bundle runs."""

from __future__ import annotations

import typer

from ohlora.cli import options


def doctor(bundle: options.BundleName = "demo", json: options.Json = False) -> None:
    """Check backends, the bundle and its engines; exit status 1 when something does not work.

    Example: `ohlora doctor --bundle my-bundle`
    """
    import json as json_module
    import platform

    from ohlora import __version__
    from ohlora.bundle import Bundle
    from ohlora.engines import backend_report, usable_cores
    from ohlora.errors import OhloraError

    rows: list[dict[str, object]] = [
        {"check": "ohlora", "ok": True, "detail": f"{__version__}, Python {platform.python_version()}"},
        {"check": "machine", "ok": True, "detail": f"{platform.machine()}, {usable_cores()} usable cores"},
    ]
    backends = backend_report()
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
    healthy = works and all(row["ok"] for row in rows if not str(row["check"]).startswith("backend"))
    if json:
        typer.echo(json_module.dumps({"healthy": healthy, "checks": rows}))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("check", "", "detail")
        for row in rows:
            table.add_row(str(row["check"]), "[green]ok" if row["ok"] else "[red]no", str(row["detail"]))
        Console().print(table)
    raise typer.Exit(0 if healthy else 1)


def cuda_kernels() -> dict[str, object]:
    """Whether `--device cuda` and the kernels' CUDA forms can be used; a machine without a GPU is healthy."""
    from ohlora.kernels.cuda_arrays import CudaUnavailable, device_names

    try:
        return {"check": "backend cuda", "ok": True, "detail": "; ".join(device_names())}
    except CudaUnavailable as error:
        return {"check": "backend cuda", "ok": False, "detail": error.reason}


def check_network(bundle: object, role: str) -> dict[str, object]:
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
