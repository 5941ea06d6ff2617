"""Products and sums that are rounded one by one, as NumPy does: a compiler would join them to fused multiply-adds.

Inside Numba's simulator plain operators do just that.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from ohlora.kernels.cuda_arrays import simulated

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
