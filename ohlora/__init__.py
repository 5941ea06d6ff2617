"""Render virtual portraits in bulk from compiled engines. The public names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ohlora.base.version import __version__

__all__ = [
    "Bundle",
    "DeviceSetting",
    "Expression",
    "Face",
    "LiveExpression",
    "MovingPortrait",
    "OhloraError",
    "Ombre",
    "Renderer",
    "SeedRange",
    "__version__",
    "expression_from_words",
    "parse_expression_text",
]

if TYPE_CHECKING:
    from ohlora.base.values import Expression, Face, Ombre
    from ohlora.bundle import Bundle
    from ohlora.errors import OhloraError
    from ohlora.faces import SeedRange
    from ohlora.latents.expression_words import expression_from_words, parse_expression_text
    from ohlora.render.gpu.devices import DeviceSetting
    from ohlora.render.live import LiveExpression
    from ohlora.render.moving_portrait import MovingPortrait
    from ohlora.render.renderer import Renderer

_HOME = {
    "Bundle": "ohlora.bundle",
    "DeviceSetting": "ohlora.render.gpu.devices",
    "OhloraError": "ohlora.errors",
    "Expression": "ohlora.base.values",
    "Face": "ohlora.base.values",
    "Ombre": "ohlora.base.values",
    "LiveExpression": "ohlora.render.live",
    "MovingPortrait": "ohlora.render.moving_portrait",
    "Renderer": "ohlora.render.renderer",
    "SeedRange": "ohlora.faces",
    "expression_from_words": "ohlora.latents.expression_words",
    "parse_expression_text": "ohlora.latents.expression_words",
}


def __getattr__(name: str) -> Any:
    # `import ohlora` stays a few milliseconds: NumPy, Numba and the engines load with the first use.
    if name not in _HOME:
        raise AttributeError(f"module 'ohlora' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
