"""What some tests need of a library's version."""

from __future__ import annotations

import PIL
import pytest

# Pillow 13 has no wheels for Python 3.10.
needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="the reference images were resized by Pillow 13; earlier bicubic filters differ by up to 5 levels",
)
