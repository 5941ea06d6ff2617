"""Finds the packages. Everything else that setuptools has to know stands in pyproject.toml."""

from setuptools import find_packages, setup

# Top-level folders that are installed below `ohlora` (`[tool.setuptools.package-dir]`).
LAYERS = ("kernels", "export", "training", "bench")
# Measured once, for the figures in bench/results: they run in a checkout.
NOT_INSTALLED = ("bench.studies",)


def packages() -> list[str]:
    """Import names of all packages, whether or not the checkout has the links ohlora/kernels and so on."""
    linked = [pattern for layer in LAYERS for pattern in (f"ohlora.{layer}", f"ohlora.{layer}.*")]
    own = find_packages(include=["ohlora", "ohlora.*"], exclude=linked)
    layers = find_packages(include=[name for layer in LAYERS for name in (layer, f"{layer}.*")], exclude=NOT_INSTALLED)
    return own + [f"ohlora.{name}" for name in layers]


setup(packages=packages())
