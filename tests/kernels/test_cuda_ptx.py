"""CUDA kernels compiled to PTX and assembled, without a GPU: by numba-cuda (the `ptx` extra), not in the simulator."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed: pip install -e '.[ptx]' in an environment of its own",
)


def plain(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python without the simulator."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)


@needs_numba_cuda
def test_kernels_compile_without_spills() -> None:
    """To PTX for three architectures, and assembled."""
    code = """
from ohlora.bench.gpu.kernel_resources import ARCHITECTURES, assembled, kernels
for name, (kernel, signature, threads) in kernels().items():
    for architecture in ARCHITECTURES:
        ptx, found = assembled(kernel, signature, architecture)
        assert f".target sm_{architecture.replace('.', '')}" in ptx
        print(name, architecture, threads, *(found[key] for key in ("registers", "spill_bytes", "stack_bytes",
                                                                    "shared_bytes")))
"""
    done = plain(code)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 3 * 8
    for name, architecture, *numbers in rows:
        threads, registers, spills, stack, shared = (int(number) for number in numbers)
        assert spills == stack == 0, f"{name} on {architecture} keeps values in memory"
        assert threads * registers <= 65_536, f"{name} on {architecture}: a block does not fit"
        assert shared <= 48 * 1024


@needs_numba_cuda
def test_without_a_gpu_the_error_says_so() -> None:
    code = """
from ohlora.kernels.gpu.arrays import CudaUnavailableError, require_cuda
try:
    require_cuda()
except CudaUnavailableError as error:
    print(error)
else:
    print("usable")
"""
    done = plain(code)
    assert done.returncode == 0, done.stderr[-2000:]
    if done.stdout.strip() == "usable":
        pytest.skip("there is a GPU")
    assert "no CUDA device can be used (" in done.stdout
    assert "use backend 'cpu'" in done.stdout


def test_the_host_never_loads_cuda() -> None:
    code = """
import sys
import numpy as np
from ohlora.kernels.ombre import apply_ombre
apply_ombre(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.float32), 0.5, 1.0, 0.5)
loaded = [name for name in sys.modules if name.endswith("_cuda") or name.endswith("cuda_kernels") or name == "cuda"]
assert not loaded, loaded
"""
    done = plain(code)
    assert done.returncode == 0, done.stderr[-2000:]
