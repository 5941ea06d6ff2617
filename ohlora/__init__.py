"""Render virtual portraits in bulk from compiled engines. The public names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ohlora.base.version import __version__ as __version__

if TYPE_CHECKING:
    from ohlora.base.values import Expression as Expression
    from ohlora.base.values import Face as Face
    from ohlora.base.values import Ombre as Ombre
    from ohlora.bundle import Bundle as Bundle
    from ohlora.errors import InvalidInputError as InvalidInputError
    from ohlora.errors import OhloraError as OhloraError
    from ohlora.faces import SeedRange as SeedRange
    from ohlora.latents.expression_words import expression_from_words as expression_from_words
    from ohlora.latents.expression_words import parse_expression_text as parse_expression_text
    from ohlora.render.gpu.devices import DeviceSetting as DeviceSetting
    from ohlora.render.job import RenderJob as RenderJob
    from ohlora.render.live import LiveExpression as LiveExpression
    from ohlora.render.moving_portrait import MovingPortrait as MovingPortrait
    from ohlora.render.renderer import Renderer as Renderer

_ROOMS = {
    "base.values": ("Expression", "Face", "Ombre"),
    "bundle": ("Bundle",),
    "errors": ("InvalidInputError", "OhloraError"),
    "faces": ("SeedRange",),
    "latents.expression_words": ("expression_from_words", "parse_expression_text"),
    "render.gpu.devices": ("DeviceSetting",),
    "render.job": ("RenderJob",),
    "render.live": ("LiveExpression",),
    "render.moving_portrait": ("MovingPortrait",),
    "render.renderer": ("Renderer",),
}
_HOME = {name: f"ohlora.{room}" for room, names in _ROOMS.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    # `import ohlora` stays a few milliseconds: NumPy, Numba and the engines load with the first use.
    if name not in _HOME:
        raise AttributeError(f"module 'ohlora' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
