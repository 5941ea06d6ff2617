"""Pictures of networks as bytes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_bytes(image: Tensor) -> NDArray[np.uint8]:
    """image [N,3,R,R], nominally in [-1, 1] -> uint8 RGB [N,R,R,3]: floor((x + 1) * 127.5 + 0.5), as documented."""
    levels = ((image.detach() + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())
