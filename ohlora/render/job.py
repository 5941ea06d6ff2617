"""What is asked: looks, output format, and their validation. Nothing is computed or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from ohlora.base.recipe import check, setting
from ohlora.base.text import shown
from ohlora.base.types import ImageFormat, Rounding
from ohlora.base.values import Expression, Face, Ombre
from ohlora.errors import InvalidInputError
from ohlora.io.images import EXTENSIONS

MAX_LOOKS = 1_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """How one face or photograph is shown. ombre None: undyed."""

    expression: Expression = field(default_factory=Expression)
    ombre: Ombre | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How a picture becomes a file. rounding: how dyed values become bytes (docs/spec/ombre.md, section 5).

    mark: whether files say that they are synthetic (docs/marks.md).
    """

    format: ImageFormat = setting("jpeg")
    quality: int = setting(95, low=1, high=100)
    rounding: Rounding = setting("truncate")
    mark: bool = True

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def checked(cls, format: str, quality: int, rounding: str, mark: bool = True) -> OutputFormat:
        """Of the plain text that command lines and files have."""
        return cls(cast("ImageFormat", format), quality, cast("Rounding", rounding), mark)

    @property
    def suffix(self) -> str:
        return EXTENSIONS[self.format]


@dataclass(frozen=True)
class RenderJob:
    """faces x looks. Item k shows face k // len(looks) with look k % len(looks).

    psi, truncation_layers: truncation of w towards its mean
    (docs/spec/stylegan.md, section 2.4); 0 layers switch it off. None: the bundle's default psi, and all layers.
    """

    faces: Sequence[Face]
    looks: tuple[Look, ...]
    output: OutputFormat = field(default_factory=OutputFormat)
    psi: float | None = setting(None, low=0, high=1)
    truncation_layers: int | None = setting(None, low=0)

    def __post_init__(self) -> None:
        if not len(self.faces) or not self.looks:
            raise InvalidInputError("a job needs at least one face and one look")
        check(self)

    def __len__(self) -> int:
        return len(self.faces) * len(self.looks)

    def truncation(self, psi: float, num_layers: int) -> tuple[float, int]:
        """psi and truncated layers for a generator of `num_layers` layers with the default `psi`.

        Raises InvalidInputError for more layers than it has.
        """
        chosen = float(psi if self.psi is None else self.psi)
        if self.truncation_layers is None:
            return chosen, num_layers if chosen < 1 else 0
        if self.truncation_layers > num_layers:
            raise InvalidInputError(f"truncation layers must be in [0, {num_layers}], got {self.truncation_layers}")
        return chosen, self.truncation_layers


def spread(name: str, values: Sequence[str] | str) -> list[float]:
    """Numbers as they are given on a command line: "0.5", "0.1,0.2", or "0:1:5" for 5 values from 0 to 1."""
    numbers: list[float] = []
    for text in [values] if isinstance(values, str) else values:
        for part in text.split(","):
            try:
                pieces = part.split(":")
                if len(pieces) == 1:
                    numbers.append(float(part))
                    continue
                first, last, count = float(pieces[0]), float(pieces[1]), int(pieces[2])
            except (ValueError, IndexError) as error:
                raise InvalidInputError(
                    f"{name} '{shown(part)}' is not understood: give a number, a list 0.1,0.2 or FIRST:LAST:COUNT"
                ) from error
            if not 1 <= count <= MAX_LOOKS or len(pieces) > 3:
                raise InvalidInputError(f"{name} '{shown(part)}': COUNT must be in [1, {MAX_LOOKS:,}]")
            numbers += [first + (last - first) * i / max(1, count - 1) for i in range(count)]
    return numbers


def zip_values(owner: str, named: dict[str, list[float]]) -> list[dict[str, float]]:
    """Lists of one length (single values repeat) -> one mapping per position."""
    longest = max(len(v) for v in named.values())
    for name, values in named.items():
        if len(values) not in (1, longest):
            raise InvalidInputError(
                f"{owner} lists must have one length or a single value: {name} has {len(values)}, another {longest}"
            )
    return [{n: v[i if len(v) > 1 else 0] for n, v in named.items()} for i in range(longest)]


def make_looks(expressions: Sequence[Expression] | None, ombres: Sequence[Ombre | None] | None) -> tuple[Look, ...]:
    """All combinations, expressions outermost, so that each expression's portrait is made once."""
    looks = tuple(Look(e, o) for e in expressions or [Expression()] for o in ombres or [None])
    if len(looks) > MAX_LOOKS:
        raise InvalidInputError(f"{len(looks):,} looks per face asked for; the limit is {MAX_LOOKS:,}")
    return looks


def look_record(look: Look) -> dict[str, Any]:
    """JSON form for metadata and the journal."""
    return {
        "expression": asdict(look.expression),
        "ombre": None if look.ombre is None else asdict(look.ombre),
    }
