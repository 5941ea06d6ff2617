"""The public names and their signatures, a line each. `python -m tests.support.api_surface` renews the stored lines."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

STORED = Path(__file__).parents[1] / "api_surface.txt"
TOP = "ohlora"
MODULES = (
    TOP, "ohlora.bench", "ohlora.bundle", "ohlora.errors", "ohlora.faces", "ohlora.kernels.ombre",
    "ohlora.kernels.properties", "ohlora.training.checkpoints",
)  # fmt: skip


def surface(name: str) -> list[str]:
    """Lines of one module, in alphabetical order. Raises ImportError."""
    module, top = importlib.import_module(name), importlib.import_module(TOP)
    found: list[str] = []
    for public in public_names(module):
        value = getattr(module, public)
        if name != TOP and getattr(top, public, None) is value:
            found.append(f"{name}.{public} = {TOP}.{public}")
        else:
            found += described(f"{name}.{public}", value)
    return sorted(found)


def public_names(module: ModuleType) -> list[str]:
    """`__all__`; without one, constants and what is defined in the module."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = {name: value for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, TypeVar)}
    return [n for n, value in own.items() if n.isupper() or getattr(value, "__module__", "") == module.__name__]


def described(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"{name}{signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"{name}: class({bases})"
    if issubclass(value, Exception):
        return
    fields = getattr(value, "model_fields", None) or getattr(value, "_fields", None)
    yield f"{name}{signature(value) if fields is None else '(' + ', '.join(fields) + ')'}"
    for member in dir(value):
        owner = next(base for base in value.__mro__ if member in vars(base) or base is object)
        if not member.startswith("_") and owner.__module__.startswith("ohlora") and member not in (fields or ()):
            yield from described_member(f"{name}.{member}", vars(owner)[member])


def described_member(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    if inspect.isfunction(value):
        yield f"{name}{signature(value)}"
    elif isinstance(value, property) or hasattr(value, "func"):  # `cached_property`
        yield f"{name}: property"


def signature(value: Any) -> str:
    """As in the source: annotations are text there."""
    text = re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
    return re.sub(r"(: |-> )(['\"])(.*?)\2(?=,| =|\)|$)", r"\1\3", text)


def main() -> None:
    STORED.write_text("".join(f"{line}\n" for name in MODULES for line in surface(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
