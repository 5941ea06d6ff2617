"""The public names are those of tests/api_surface.txt.

A change there is a change for users. When it is meant, renew the file: python -m tests.support.api_surface
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import ohlora
from tests.support.api_surface import MODULES, STORED, surface


@pytest.mark.parametrize("name", MODULES)
def test_the_public_names_are_those_that_are_stored(name: str) -> None:
    if name.startswith("ohlora.training"):
        pytest.importorskip("torch", reason="the train extra reads weights")
    if name.startswith("ohlora.bench"):
        pytest.importorskip("pytest_benchmark", reason="the bench extra")
    others = [other for other in MODULES if other != name and other.startswith(f"{name}.")]
    stored = [
        line
        for line in STORED.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"{name}.") and not line.startswith(tuple(f"{other}." for other in others))
    ]
    assert surface(name) == stored, "python -m tests.support.api_surface writes the file anew"


def test_dir_shows_the_public_names() -> None:
    code = "import ohlora, sys; print(*dir(ohlora)); assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(ohlora.__all__)
    assert {"Renderer", "RenderJob", "InvalidInputError", "__version__"} <= set(dir(ohlora))
    for name in ohlora.__all__:
        assert getattr(ohlora, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Rendrer'"):
        _ = ohlora.Rendrer
