"""Render virtual portraits in bulk from compiled engines. The public names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Bundle", "Expression", "Face", "OhloraError", "Ombre", "Renderer", "SeedRange", "__version__"]

if TYPE_CHECKING:
    from ohlora.bundle import Bundle
    from ohlora.errors import OhloraError
    from ohlora.faces import SeedRange
    from ohlora.params import Expression, Face, Ombre
    from ohlora.renderer import Renderer

_HOME = {
    "Bundle": "ohlora.bundle",
    "OhloraError": "ohlora.errors",
    "Expression": "ohlora.params",
    "Face": "ohlora.params",
    "Ombre": "ohlora.params",
    "Renderer": "ohlora.renderer",
    "SeedRange": "ohlora.faces",
}


def __getattr__(name: str) -> Any:
    # `import ohlora` stays a few milliseconds: NumPy, Numba and the engines load with the first use.
    if name not in _HOME:
        raise AttributeError(f"module 'ohlora' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
