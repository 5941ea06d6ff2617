"""Named sets of looks: documented picture series, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.render.job import Look


@dataclass(frozen=True, slots=True)
class LookSet:
    """Every combination of the strengths, mouth outermost and pose innermost; picture i of n has the colour i / n."""

    mouth: tuple[float, ...]
    eyes: tuple[float, ...]
    pose: tuple[float, ...]
    height: float
    grad_height: float

    @property
    def looks(self) -> tuple[Look, ...]:
        triples = [Expression(e, m, p) for m in self.mouth for e in self.eyes for p in self.pose]
        return tuple(
            Look(triple, Ombre(i / len(triples), self.height, self.grad_height)) for i, triple in enumerate(triples)
        )


LOOK_SETS: dict[str, LookSet] = {
    # The still pictures of the fourth product (docs/spec/runtime.md, section 7): the strengths of the
    # direction test of v7 and v8.
    "still50": LookSet(
        mouth=(-1.8, -0.9, 0.0, 0.9, 1.8),
        eyes=(-1.2, 1.2),
        pose=(-1.8, -1.2, -0.6, 0.0, 0.6),
        height=0.4,
        grad_height=0.6,
    ),
}


def named_looks(name: str) -> tuple[Look, ...]:
    """The looks of a set in their documented order. Raises InvalidInputError for an unknown name."""
    if name not in LOOK_SETS:
        sets = "; ".join(f"{known} ({len(each.looks)} looks)" for known, each in LOOK_SETS.items())
        raise InvalidInputError(f"unknown set of looks '{name}': choose {sets}")
    return LOOK_SETS[name].looks
