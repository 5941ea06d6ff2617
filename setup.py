"""Finds the packages. Everything else that setuptools has to know stands in pyproject.toml."""

from setuptools import find_packages, setup

# Top-level folders that are installed below `ohlora` (`[tool.setuptools.package-dir]`).
LAYERS = ("kernels", "export", "training", "bench")


def packages() -> list[str]:
    """Import names of all packages, whether or not the checkout has the links ohlora/kernels and so on."""
    linked = [pattern for layer in LAYERS for pattern in (f"ohlora.{layer}", f"ohlora.{layer}.*")]
    own = find_packages(include=["ohlora", "ohlora.*"], exclude=linked)
    return own + [f"ohlora.{name}" for layer in LAYERS for name in find_packages(include=[layer, f"{layer}.*"])]


setup(packages=packages())
