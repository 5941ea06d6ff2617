"""Names for types and choices that several rooms share: the one list of each option. Light, commands import it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from ohlora.errors import InvalidInputError
from ohlora.kernels.choices import Algorithm as Algorithm
from ohlora.kernels.choices import Rounding as Rounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rgb: TypeAlias = "NDArray[np.uint8]"  # [H, W, 3] or [N, H, W, 3], 0..255

Report: TypeAlias = Callable[[str], None]  # takes lines that say how work goes on

# Of networks: what they compute in, and what computes them; "auto" chooses.
FloatPrecision: TypeAlias = Literal["fp32", "fp16", "bf16"]
Precision: TypeAlias = Literal[FloatPrecision, "int8"]
PrecisionChoice: TypeAlias = Literal["auto", FloatPrecision]
Backend: TypeAlias = Literal["auto", "openvino", "onnxruntime", "torch"]
DeviceBackend: TypeAlias = Literal["auto", "tensorrt", "torch", "onnxruntime"]

# Of pictures.
ImageFormat: TypeAlias = Literal["jpeg", "png", "webp"]
Encoder: TypeAlias = Literal["cpu", "nvimgcodec"]
Detect: TypeAlias = Literal["auto", "whole"]
NoFace: TypeAlias = Literal["skip", "keep", "whole"]
Variant: TypeAlias = Literal["crop", "full-frame"]

# Whose arithmetic, where the documented system and this one differ (docs/documented.md).
Compat: TypeAlias = Literal["documented"]
HairInput: TypeAlias = Literal["resized", "documented"]

ChoiceT = TypeVar("ChoiceT", bound=str)


def check_choice(
    what: str, value: str, choices: Iterable[ChoiceT], error: type[Exception] = InvalidInputError
) -> ChoiceT:
    """`value`, which must be one of `choices` (`typing.get_args` of a type above). Raises `error` naming them."""
    names = list(choices)
    for name in names:
        if value == name:
            return name
    raise error(f"unknown {what} '{value}': choose {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}")
