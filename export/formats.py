"""What `ohlora export` can make: formats, their precisions, what each network allows.

Pairs that do not go are refused here, before any work starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from ohlora.base.types import Precision
from ohlora.errors import InvalidInputError

ANY: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Format:
    """profile: whether batch sizes are compiled in. what: for the table of the documents and `--help`."""

    name: str
    precisions: tuple[Precision, ...]
    profile: bool
    what: str


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("onnx", ANY, False, "NAME.onnx, any batch, for every ONNX runtime"),
        Format("openvino", ANY, False, "NAME.xml and NAME.bin, any batch"),
        Format("tensorrt", ANY, True, "NAME.engine with a sidecar, for the given batches and devices"),
        Format("triton", ("fp32", "fp16", "int8"), True, "a model repository for Triton Inference Server"),
        Format("bundle", ("fp32", "bf16", "int8"), False, "a bundle whose networks keep a preset's promise"),
    )
}

# Networks that int8 plans and presets are judged for, by their pictures or masks.
JUDGED = ("synthesis", "hair", "portrait", "recolor", "student")
LOWERED_TYPES = ("fp16", "bf16")
# fp16 and bf16 of these are held to looser bounds of their own figures (`lowering.LOOSE`).
TYPED = (*JUDGED, "parsing", "facexformer", "bisenet", "discriminator", "discriminator-v5", "cnn-gender", "cnn-quality",
         "cnn-age", "cnn-glass", "cnn-property", "cnn-hairstyle", "cnn-merged", "reader")  # fmt: skip
# A picture with two free sides has no profile, and a row that depends on its batch must not be batched with strangers.
NO_PROFILE = ("proposal",)


@dataclass(frozen=True)
class Batch:
    """Batch sizes that an engine takes, and the one it is made fast for. Raises InvalidInputError for wrong ones."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= 4096:
            raise InvalidInputError(f"--batch must rise from 1 or more to at most 4096, got {self}")

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"


DEFAULT_BATCH = Batch(1, 8, 32)


def parse_batch(text: str) -> Batch:
    """'1:8:32', or one number for a fixed size. Raises InvalidInputError."""
    if not re.fullmatch(r"\d+(:\d+:\d+)?", text):
        raise InvalidInputError(f"--batch must be MIN:OPT:MAX or one number, got '{text}'")
    numbers = [int(part) for part in text.split(":")]
    return Batch(*(numbers if len(numbers) == 3 else numbers * 3))


def refuse(
    target: Format,
    networks: Sequence[str],
    precision: str | None,
    preset: str | None,
    rows_depend: Sequence[str] = (),
    asked: Sequence[str] = (),
) -> None:
    """Raises InvalidInputError when the format cannot hold the networks in that precision.

    networks: names of graphs. asked: those that were named on purpose: a precision they have no form in is an error;
    others stay float32. rows_depend: graphs whose rows depend on each other.
    """
    if precision is not None and precision not in target.precisions:
        others = ", ".join(name for name, entry in FORMATS.items() if precision in entry.precisions)
        raise InvalidInputError(
            f"{target.name} takes {', '.join(target.precisions)}, not '{precision}'"
            + (f"; --to {others} takes it" if others else "")
        )
    if preset is not None and precision is not None and preset == "exact" and precision != "fp32":
        raise InvalidInputError("the preset exact is fp32: leave --precision out, or choose balanced or fast")
    if preset is not None and target.name == "tensorrt":
        raise InvalidInputError(
            "a preset is measured on this machine's CPU: give --precision for tensorrt; int8 has the gate of fast"
        )
    for name in networks:
        if target.profile and name in NO_PROFILE:
            raise InvalidInputError(
                f"'{name}' takes pictures of any size, which {target.name} has no profile for: use --to onnx"
            )
        if target.name == "triton" and name in rows_depend:
            raise InvalidInputError(
                f"a row of '{name}' depends on its batch, and Triton makes batches of strangers' requests: export it "
                "with --option statistics=alone"
            )
    for name in asked:
        if precision == "int8" and name not in JUDGED:
            raise InvalidInputError(f"'{name}' has no int8 form, its precision cannot be judged: use fp32" + (
                ", fp16 or bf16" if name in TYPED else ""))  # fmt: skip
        if precision in LOWERED_TYPES and name not in TYPED:
            raise InvalidInputError(f"'{name}' stays float32: it is a hundredth of the work and all of the accuracy")
    if target.name == "bundle" and precision is None and preset is None:
        raise InvalidInputError(
            "a bundle is exported at a preset or a precision: give --preset balanced, --preset fast ..."
        )
