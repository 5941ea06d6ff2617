"""What a kernel asks of its compiler: products and sums that are rounded one by one, as NumPy does, where fused
multiply-adds would be taken; registers for so many blocks on a multiprocessor.

Inside Numba's simulator plain operators do the former, and there is no latter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda

from ohlora.kernels.gpu.arrays import simulated

if simulated():

    @cuda.jit(device=True)
    def fmul(a: Any, b: Any) -> Any:
        return a * b

    @cuda.jit(device=True)
    def fadd(a: Any, b: Any) -> Any:
        return a + b

    dmul, dadd = fmul, fadd
else:
    from numba.cuda import libdevice

    @cuda.jit(device=True)
    def fmul(a: Any, b: Any) -> Any:
        """float32."""
        return libdevice.fmul_rn(a, b)

    @cuda.jit(device=True)
    def fadd(a: Any, b: Any) -> Any:
        return libdevice.fadd_rn(a, b)

    @cuda.jit(device=True)
    def dmul(a: Any, b: Any) -> Any:
        """float64."""
        return libdevice.dmul_rn(a, b)

    @cuda.jit(device=True)
    def dadd(a: Any, b: Any) -> Any:
        return libdevice.dadd_rn(a, b)


def resident(threads: int, blocks: int) -> Callable[[Any], Any]:
    """`cuda.jit` for blocks of `threads`, of which `blocks` are to be on a multiprocessor at once."""
    return cuda.jit if simulated() else cuda.jit(launch_bounds=(threads, blocks))
