"""What a kernel asks of its compiler: products and sums that are rounded one by one, as NumPy does, where fused
multiply-adds would be taken; registers for so many blocks on a multiprocessor.

Inside Numba's simulator plain operators do the former, and there is no latter.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from numba import cuda

from ohlora.kernels.gpu.arrays import simulated

# float32, then float64.
if simulated():
    fmul, fadd, dmul, dadd = operator.mul, operator.add, operator.mul, operator.add
else:
    from numba.cuda import libdevice

    fmul, fadd, dmul, dadd = libdevice.fmul_rn, libdevice.fadd_rn, libdevice.dmul_rn, libdevice.dadd_rn


def resident(threads: int, blocks: int) -> Callable[[Any], Any]:
    """`cuda.jit` for blocks of `threads`, of which `blocks` are to be on a multiprocessor at once."""
    jit: Callable[[Any], Any] = cuda.jit if simulated() else cuda.jit(launch_bounds=(threads, blocks))
    return jit
