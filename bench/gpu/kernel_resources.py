"""Registers, spills and shared memory of every CUDA kernel, for each architecture; no GPU is needed.

    python -m ohlora.bench.gpu.kernel_resources --out bench/results/cuda_kernels.json

Kernels are compiled to PTX by numba-cuda and assembled by CUDA's linker, which reports what they take.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ohlora.bench.runner.study import study
from ohlora.kernels.gpu.arrays import simulated

ARCHITECTURES = ("8.0", "9.0", "12.0")


def kernels() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]]:
    """Name -> kernel, its signature as the launches make it, threads of a block."""
    from numba import types as t

    from ohlora.kernels.gpu import images as pictures
    from ohlora.kernels.ombre import cuda_kernels as ombre
    from ohlora.kernels.properties import cuda_hairstyle_kernels as hairstyle
    from ohlora.kernels.properties import cuda_kernels as properties

    def array(dtype: Any, dimensions: int) -> Any:
        return t.Array(dtype, dimensions, "C")

    u8, u32, i32, f32, f64 = t.uint8, t.uint32, t.int32, t.float32, t.float64
    taps = (array(i32, 2), array(f32, 2), array(i32, 2), array(f32, 2))
    picture, words, found, dye = array(u8, 3), array(u32, 3), array(i32, 3), array(f64, 2)
    maps = array(f32, 3)
    ends = (found, dye, picture, words, t.boolean, t.boolean, t.boolean)
    plane, pair = array(f64, 2), array(i32, 2)
    fit = (array(u8, 4), pair, array(f32, 2), t.boolean, array(u8, 4))
    return {
        "ombre_cover": (ombre.cover, (maps, *taps, found, maps, t.boolean, t.int64, t.int64), ombre.COLUMNS),
        "ombre_blend_mask": (ombre.blend_mask, (picture, words, maps, *ends), ombre.COLUMNS),
        "ombre_blend_hair": (ombre.blend_hair, (picture, words, maps, *taps, *ends), ombre.COLUMNS),
        "fit_pictures": (pictures.fit, fit, pictures.THREADS),
        "hair_facts": (pictures.facts_of, (maps, found, pair), pictures.THREADS),
        "properties": (properties.scores, (words, words, t.boolean, plane), properties.THREADS),
        "hairstyle_bands": (hairstyle.hairstyle_bands, (words, words, t.boolean, plane, pair), hairstyle.THREADS),
        "hairstyle_means": (hairstyle.hairstyle_means, (plane, pair, plane), hairstyle.THREADS),
    }


def assembled(kernel: Any, signature: tuple[Any, ...], architecture: str) -> tuple[str, dict[str, int]]:
    """PTX, and what ptxas reports: registers, spill_bytes, stack_bytes, shared_bytes."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda

    if simulated():
        raise RuntimeError("the simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM")
    major, minor = (int(part) for part in architecture.split("."))
    # Device functions ask for the present device's architecture even where a kernel is compiled for another.
    device = SimpleNamespace(compute_capability=(major, minor))
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        bounds = kernel.targetoptions.get("launch_bounds")
        ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=(major, minor), launch_bounds=bounds)
    options = LinkerOptions(arch=f"sm_{major}{minor}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    numbers = {
        "registers": _number(r"Used (\d+) registers", log),
        "spill_bytes": _number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        "stack_bytes": _number(r"(\d+) bytes stack frame", log),
        # ptxas counts only what a kernel declares itself; Numba declares shared arrays beside it.
        "shared_bytes": sum(int(size) for size in re.findall(r"\.shared [^;]*\[(\d+)\]", ptx)),
    }
    return ptx, numbers


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


@study(on=dict, shown=False)
def main() -> dict[str, Any]:
    import numba_cuda

    rows = []
    print(f"{'kernel':22} {'sm':>5} {'threads':>8} {'registers':>10} {'spills':>7} {'stack':>6} {'shared':>7}")
    for name, (kernel, signature, threads) in kernels().items():
        for architecture in ARCHITECTURES:
            ptx, found = assembled(kernel, signature, architecture)
            rows.append(
                {"kernel": name, "sm": architecture, "threads": threads, "ptx_lines": len(ptx.splitlines()), **found}
            )
            print(
                f"{name:22} {architecture:>5} {threads:8} {found['registers']:10} {found['spill_bytes']:7} "
                f"{found['stack_bytes']:6} {found['shared_bytes']:7}",
                flush=True,
            )
    return {"numba_cuda": numba_cuda.__version__, "kernels": rows}


if __name__ == "__main__":
    main()
