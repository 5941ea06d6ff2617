from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohlora.base.values import Expression, Face, Ombre
from ohlora.errors import InvalidInputError

BAD = [-0.001, 1.001, math.nan, math.inf, "0.5", None, True]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_valid_ombre(color: float, height: float, grad_height: float) -> None:
    assert Ombre(color, height, grad_height).color == color


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["color", "height", "grad_height"])
def test_bad_ombre_names_field_and_value(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"Ombre\.{name} must be .*\[0, 1\]"):
        Ombre(**{"color": 0.5, name: value})


@pytest.mark.parametrize("value", [11.0, -11.0, math.nan, "x"])
def test_bad_expression(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"Expression\.mouth"):
        Expression(mouth=value)


def test_neutral() -> None:
    assert Expression().neutral
    assert not Expression(pose=0.1).neutral


def test_face_is_checked_and_frozen() -> None:
    face = Face(np.zeros(512), np.ones(3), name="a")
    assert face.z.dtype == np.float32
    with pytest.raises(ValueError):
        face.z[0] = 1
    for z, label in ((np.zeros(511), []), (np.zeros((1, 512)), []), (np.zeros(512), [1.0])):
        with pytest.raises(InvalidInputError, match="of 'a' must be a vector"):
            Face(z, np.array(label), name="a")
    with pytest.raises(InvalidInputError, match="NaN"):
        Face(np.full(512, np.nan), name="a")


def test_numbers_that_no_float_holds_are_refused() -> None:
    for value in (10**400, -(10**400), float("inf"), float("nan")):
        with pytest.raises(InvalidInputError, match=r"Expression\.eyes must be in \[-10, 10\]"):
            Expression(eyes=value)
