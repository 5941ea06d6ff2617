"""The options of the kernels, by name. What is refused at run time is what these types do not list."""

from __future__ import annotations

from typing import Literal, TypeAlias

Backend: TypeAlias = Literal["auto", "cpu", "cuda", "reference"]
Rounding: TypeAlias = Literal["truncate", "nearest"]
Algorithm: TypeAlias = Literal["v1", "v2", "hairstyle"]
