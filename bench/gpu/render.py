"""Rendering on a CUDA device: kernels exact and how near the memory's speed, and portraits a second end to end.

    python -m ohlora.bench.gpu.render --out bench/results/gpu_render.json

Kernels: checked against the reference with fresh random inputs and poisoned outputs, then timed as recorded graphs over
input sets that do not fit the cache together (CUDA events, median), against a device copy in the same run.
Pipeline: a bundle with a full-size generator (256 px, published channels, seeded weights) and the demo's hair finder,
latent to dyed picture; on the device alone, with JPEG, and with files. A section that fails is reported, the rest goes
on. --simulate runs the checks in Numba's simulator, with small inputs: does every step work.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args

if "--simulate" in sys.argv:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before Numba is imported

import numpy as np
import torch
from numba import cuda

from ohlora.base.types import FloatPrecision, check_choice
from ohlora.base.values import Ombre
from ohlora.bench.gpu.kernels import KERNELS, DeviceInputs, Kernel, differences, fresh
from ohlora.bench.gpu.timing import Report, timed
from ohlora.bench.runner.study import study
from ohlora.bundle import Bundle
from ohlora.engines import usable_cores
from ohlora.io.images import encode_image
from ohlora.kernels.gpu.arrays import Place, simulated
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.pipeline import run_on_device
from ohlora.render.job import Look, OutputFormat, RenderJob
from ohlora.render.journal import Journal
from ohlora.render.pipeline import Results
from ohlora.render.plan import Output, PortraitPlan
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import FolderSink

SIDE = 256
PICTURES = 2048  # that a timed graph goes through, batch by batch: what the least kernel reads of them is 200 MB


def check(report: Report, count: int, side: int) -> None:
    """Three fresh sets of inputs; a wrong kernel is named."""
    for seed in range(3 if not simulated() else 1):
        report.add(what="exactness", pictures=count, **differences(DeviceInputs(fresh(count, side, seed), here())))


def here() -> Place:
    if simulated():
        return Place(0, 0)
    return Place(0, cuda.external_stream(torch.cuda.current_stream().cuda_stream))


def time_kernels(report: Report, batches: list[int]) -> None:
    host = fresh(PICTURES, SIDE, 0)
    for count in batches:
        sets = [DeviceInputs(host.part(start, start + count), here()) for start in range(0, PICTURES, count)]
        for inputs in sets:
            inputs.prepare()  # blends read a mask, facts read its rows: not what outputs are poisoned with
        for kernel in KERNELS:
            try:
                seconds = kernel_seconds(report, kernel, sets)
            except Exception as error:
                report.fail(kernel.name, error, batch=count)
                continue
            moved = kernel.bytes_of(SIDE) * count
            speed = moved / seconds / 1e12
            copy = report.ceilings["copy_tb_per_s"]
            report.add(
                what=kernel.name, batch=count, us=round(seconds * 1e6, 2),
                ns_per_picture=round(seconds / count * 1e9, 1), mb=round(moved / 1e6, 2),
                floor_us=round(moved / copy / 1e6, 2), tb_per_s=round(speed, 3), of_copy=round(speed / copy, 3),
            )  # fmt: skip


def kernel_seconds(report: Report, kernel: Kernel, sets: list[DeviceInputs]) -> float:
    """Of one call: a recorded graph of a call for each set, so that launching costs nothing and caches are cold."""
    for inputs in sets:
        inputs.place = here()
        kernel.run(inputs)  # compiles
    torch.cuda.synchronize()
    new_stream: Callable[[], Any] = torch.cuda.Stream
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=new_stream()):
        place = here()
        for inputs in sets:
            inputs.place = place
            kernel.run(inputs)
    return timed(graph.replay, report.device) / len(sets)


def full_size_bundle(folder: Path) -> Bundle:
    """A generator as published, with seeded weights, and the demo's hair finder."""
    from ohlora.bench.gpu.engines import generator
    from ohlora.export.bundle.builder import build_bundle
    from ohlora.training import checkpoints
    from ohlora.training.nets.stylegan import CONFIGS

    checkpoints.save(generator(CONFIGS["original"]), folder / "generator.safetensors", "stylegan")
    return build_bundle(
        folder / "bundle", generator=folder / "generator.safetensors", kind="stylegan", hair="demo", directions=None,
        name="full-size", license="none", provenance="seeded weights, for measurements",
    )  # fmt: skip


class Nowhere(FolderSink):
    """Encodes and keeps nothing; a record likewise."""

    def store(
        self,
        image: np.ndarray,
        output: Output,
        facts: dict[str, Any],
        dyed: bool,
        data: bytes | None = None,
        *,
        srgb: bool = False,
    ) -> dict[str, Any]:
        return {"bytes": len(data or encode_image(image, "jpeg", 95)), "dyed": dyed}

    def record(self, item: int, row: dict[str, Any]) -> None: ...
    def record_failure(self, item: int, message: str) -> None:
        raise RuntimeError(message)


def pipeline(
    report: Report, bundle: Bundle, portraits: int, bucket: int, precisions: list[FloatPrecision], workers: int
) -> None:
    from ohlora.faces import load_faces

    faces = load_faces([f"0-{portraits - 1}"], bundle.generator_part().label_size, bundle)
    job = RenderJob(faces, (Look(ombre=Ombre(0.5, 0.7, 0.5)),), OutputFormat("jpeg"))
    for precision in precisions:
        with Renderer(bundle) as renderer:
            began = time.perf_counter()
            chain = renderer.device_pipeline(job, 0, DeviceSetting(precision=precision, bucket=bucket))
            row: dict[str, Any] = {"what": "portraits", "precision": precision, "batch": bucket, "workers": workers,
                                   "open_s": round(time.perf_counter() - began, 1)}  # fmt: skip
            plan, items = PortraitPlan(job), range(len(job))

            def on_device(count: int, chain: Any = chain, plan: PortraitPlan = plan) -> None:
                for batch in chain.finished(plan.units(range(count))):
                    batch.release()

            on_device(2 * bucket)  # warm
            run = partial(run_on_device, workers=workers)
            memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
            with ExitStack() as stack:
                out = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory))) / "out"
                journal = stack.enter_context(Journal.open(out, {"bench": precision}))
                sink = FolderSink(out, job.output, {"bundle": bundle.name})
                nowhere = Nowhere(Path())
                for name, work in (
                    ("device", partial(on_device, portraits)),
                    ("with_jpeg", partial(run, plan.units(items), chain, nowhere, Results(nowhere))),
                    ("with_files", partial(run, plan.units(items), chain, sink, Results(journal))),
                ):
                    began = time.perf_counter()
                    work()
                    row[f"{name}_per_second"] = round(portraits / (time.perf_counter() - began), 1)
            chain.close()
        report.add(**row)


def table(report: Report) -> None:
    """The short one, last."""
    print(f"\n{device_name(report.device)}, ceilings {report.ceilings}")
    for row in report.rows:
        if "failed" in row:
            print(f"FAILED {row['what']}: {row['failed']}")
        elif "of_copy" in row:
            print(
                f"{row['what']:28} batch {row['batch']:5} {row['us']:9.1f} us, floor {row['floor_us']:8.1f} us, "
                f"{row['of_copy']:6.1%} of a copy"
            )
        elif row["what"] == "portraits":
            print(
                f"portraits {row['precision']:5} batch {row['batch']:4}: {row['device_per_second']:8.1f}/s on the "
                f"device, {row['with_jpeg_per_second']:8.1f}/s as JPEG, {row['with_files_per_second']:8.1f}/s in files"
            )


def device_name(device: torch.device) -> str:
    return "simulator" if simulated() else torch.cuda.get_device_name(device)


@study(on=dict, shown=False, simulate="checks only, small inputs, no GPU")
def main(
    simulate: bool = False,
    sections: str = "ceilings,exactness,kernels,pipeline",
    batches: str = "64,256,1024",
    portraits: int = 8192,
    bucket: int = 64,
    precisions: str = "fp16,bf16,fp32",
    workers: int = usable_cores(),
) -> dict[str, Any]:
    report = Report(torch.device("cpu" if simulated() else "cuda"))
    report.measure_ceilings()

    def rendering() -> None:
        with tempfile.TemporaryDirectory() as folder:
            bundle = full_size_bundle(Path(folder))
            asked = [check_choice("precision", one, get_args(FloatPrecision)) for one in precisions.split(",")]
            pipeline(report, bundle, portraits, bucket, asked, workers)

    works: dict[str, Callable[[], None]] = {
        "exactness": lambda: check(report, 1 if simulated() else 32, 32 if simulated() else SIDE),
        "kernels": lambda: time_kernels(report, [int(text) for text in batches.split(",")]),
        "pipeline": rendering,
    }
    for name, work in works.items():
        if name in sections.split(",") and (name == "exactness" or not simulated()):
            report.section(name, work)
    table(report)
    return report.result(device_name(report.device))


if __name__ == "__main__":
    main()
