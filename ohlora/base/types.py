"""Names for types and choices that several rooms share."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rgb: TypeAlias = NDArray[np.uint8]  # [H, W, 3] or [N, H, W, 3], 0..255
Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
