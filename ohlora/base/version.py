"""The version of this package; bundles, exports and engines say which one made them."""

from __future__ import annotations

__version__ = "0.1.0"
