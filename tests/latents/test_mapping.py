"""Faces through the mapping network of a bundle."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ohlora.base.values import Expression, Face
from ohlora.bundle import Bundle
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.latents.mapping import LatentSource


def test_a_face_without_a_finite_latent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Bundle.open("demo").mapping_engine()
    network = engine.__call__

    def without_epsilon(self: object, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        result = network(**inputs)
        result["w"][~inputs["z"].any(axis=1)] = np.nan
        return result

    monkeypatch.setattr(type(engine), "__call__", without_epsilon)
    good = face_from_seed(7)
    empty = Face(np.zeros(512, np.float32), good.label, name="nobody")
    with engine, pytest.raises(InvalidInputError, match=r"no finite result for face 'nobody'.* is zero"):
        LatentSource(engine).rows([(0, good, Expression()), (1, empty, Expression())])
