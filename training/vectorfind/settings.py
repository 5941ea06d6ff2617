"""A search as data: what the documents' versions differ in, and ours (docs/spec/vectorfind.md, section 2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.latents.spaces import Space, check_space
from ohlora.training.vectorfind.gradient import GradientTraining

METHODS = ("svm", "gradient", "orthogonal")
ORIENTATIONS = ("published", "raises")
GRIDS = ("passed", "all", "none")
THREE = ("hair_color", "hair_length", "background_mean")
FOUR = (*THREE, "hairstyle")
TEST_SEED = 2**40  # far from the seeds that people and samples take


@dataclass(frozen=True)
class SearchSettings:
    """One search.

    Where: space (`ohlora.latents.spaces`). groups: scores whose letters make a face's group, () for one group of all;
    cutoffs: theirs, () measures medians of the samples.
    How: methods for eyes, mouth and pose. samples: scored codes, of the seeds from first_seed on. share: of a group
    that is "largest", and "smallest". c: of the SVM; train_share: of the extremes, the rest validates. protect: scores
    that the orthogonal method leaves alone, besides the other two properties; ridge: its regularisation, a share of
    the mean variance of w; refine, refine_faces: rounds of measured correction, and the faces they measure on.
    gradient: its training. What a strength of 1 is: strength () leaves directions at unit length, as documented; three
    numbers scale them so that 1 moves its own score by so many standard deviations, measured on calibrate_faces.
    orientation: "published" (SVM and orthogonal: positive lowers the score; Gradient: raises it) or "raises" for all.
    Test: strengths of eyes, mouth, pose; limits: absolute correlations to pass; codes: most to be tested, from
    test_seed on; stop_after so many passed (0: never). grids: sheets of 50 pictures of the codes that "passed", of
    "all" or "none"; files: also single pictures, as documented. identity: measure the change of deep features too.
    tsne: plots of the extremes. seed: of every other random choice.
    """

    space: Space = "w"
    groups: tuple[str, ...] = ()
    cutoffs: tuple[float, ...] = ()
    methods: tuple[str, str, str] = ("svm", "svm", "svm")
    samples: int = 80_000
    first_seed: int = 0
    share: float = 0.2
    c: float = 1.0
    train_share: float = 0.8
    protect: tuple[str, ...] = ()
    ridge: float = 1e-3
    refine: int = 2
    refine_faces: int = 48
    gradient: GradientTraining = field(default_factory=GradientTraining)
    strength: tuple[float, ...] = ()
    calibrate_faces: int = 24
    orientation: str = "published"
    eyes: tuple[float, ...] = (-1.2, 1.2)
    mouth: tuple[float, ...] = (-1.8, -0.9, 0.0, 0.9, 1.8)
    pose: tuple[float, ...] = (-1.8, -1.2, -0.6, 0.0, 0.6)
    limits: tuple[float, float, float] = (0.92, 0.88, 0.88)
    codes: int = 2000
    stop_after: int = 60
    test_seed: int = TEST_SEED
    grids: str = "passed"
    files: bool = False
    identity: bool = True
    tsne: bool = False
    seed: int = 2025

    def __post_init__(self) -> None:
        check_space(self.space)
        for name in ("groups", "cutoffs", "methods", "protect", "strength", "eyes", "mouth", "pose", "limits"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._require("methods", len(self.methods) == 3 and set(self.methods) <= set(METHODS), f"three of {METHODS}")
        self._require("cutoffs", len(self.cutoffs) in (0, len(self.groups)), "empty, or one number a group score")
        self._require(
            "strength", len(self.strength) in (0, 3) and all(s > 0 for s in self.strength), "empty, or three above 0"
        )
        self._require("share", 0 < self.share <= 0.5, "in (0, 0.5]")
        self._require("train_share", 0 < self.train_share < 1, "in (0, 1)")
        self._require("c", self.c > 0, "above 0")
        self._require("ridge", self.ridge >= 0, "0 or more")
        self._require("limits", len(self.limits) == 3 and all(0 <= x <= 1 for x in self.limits), "three in [0, 1]")
        self._require("orientation", self.orientation in ORIENTATIONS, f"one of {ORIENTATIONS}")
        self._require("grids", self.grids in GRIDS, f"one of {GRIDS}")
        for name in ("samples", "codes", "refine_faces", "calibrate_faces"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("stop_after", "refine", "seed", "first_seed", "test_seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in PROPERTIES:
            self._require(name, len(set(getattr(self, name))) >= 2, "two or more different strengths")

    def _require(self, name: str, right: bool, what: str) -> None:
        if not right:
            raise InvalidInputError(f"search: {name} must be {what}, got {getattr(self, name)!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Scores that the search looks at: the three properties, then groups and protected ones."""
        return tuple(dict.fromkeys((*PROPERTIES, *self.groups, *self.protect)))

    @property
    def report_layout(self) -> str:
        """Which of the documented layouts test_result.csv has: "svm", "gradient" or "mixed"."""
        kinds = {"gradient" if method == "gradient" else "svm" for method in self.methods}
        return "mixed" if len(kinds) == 2 else kinds.pop()


_V7 = SearchSettings(
    groups=THREE, cutoffs=(-0.2709, 0.3052, 0.0742), share=0.15, limits=(0.92, 0.88, 0.92), codes=2400, stop_after=80
)
_V8 = SearchSettings(groups=FOUR, cutoffs=(-0.4574, 0.5734, 0.7618, -0.0167), samples=240_000)
_V9 = replace(_V8, cutoffs=(-0.4315, 0.5685, 0.6753, 0.0372))
_GRADIENT_STRENGTHS = (-1.4, -0.7, 0.0, 0.7, 1.4)

PRESETS: dict[str, SearchSettings] = {
    "v6": replace(
        _V7,
        space="z",
        samples=500_000,
        limits=(0.75, 0.77, 0.80),
        eyes=(-1.2, 1.8),
        mouth=(-2.4, -1.2, 0.0, 1.2, 2.4),
    ),
    "v7": _V7,
    "v8": _V8,
    "v9-svm": replace(_V9, codes=100, stop_after=0, samples=40_000),
    "v9-gradient": replace(
        _V9,
        groups=(),
        cutoffs=(),
        methods=("gradient", "gradient", "gradient"),
        samples=40_000,
        codes=100,
        stop_after=0,
        mouth=(-1.6, -0.8, 0.0, 0.8, 1.6),
        pose=_GRADIENT_STRENGTHS,
    ),
    "v9-mixed": replace(_V9, space="mapping_split1", methods=("gradient", "svm", "svm"), samples=160_000),
    "v9-svm-ms2": replace(_V9, space="mapping_split2"),
    # Ours: every face has the same three directions, no group is needed to use them.
    "orthogonal": SearchSettings(
        methods=("orthogonal", "orthogonal", "orthogonal"),
        samples=20_000,
        protect=THREE,
        strength=(1.4, 0.8, 0.8),
    ),
}


def preset(name: str, **changes: Any) -> SearchSettings:
    """A preset with some settings changed. Raises InvalidInputError naming what there is."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise InvalidInputError(f"unknown search '{name}'{hint} (there are {', '.join(PRESETS)})")
    return replace(PRESETS[name], **changes)


def parse_changes(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE of any setting -> changes; lists as a,b,c, nothing for an empty one; gradient.NAME for its training.

    Raises InvalidInputError naming the setting and what it takes.
    """
    changes: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"a setting is given as NAME=VALUE, got '{text}'")
        if name.startswith("gradient."):
            nested[name.removeprefix("gradient.")] = _parsed(GradientTraining(), name.removeprefix("gradient."), value)
        else:
            changes[name] = _parsed(SearchSettings(), name, value)
    return changes | ({"gradient": GradientTraining(**nested)} if nested else {})


def _parsed(owner: Any, name: str, value: str) -> Any:
    known = {entry.name for entry in fields(owner)} - {"gradient"}
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise InvalidInputError(
            f"no setting '{name}'" + (f", did you mean '{near[0]}'?" if near else f" ({', '.join(sorted(known))})")
        )
    default = getattr(owner, name)
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(default, tuple):
            words = [word.strip() for word in value.split(",") if word.strip()]
            return tuple(words) if name in ("groups", "methods", "protect") else tuple(float(word) for word in words)
        return type(default)(value)
    except (ValueError, KeyError) as error:
        raise InvalidInputError(f"{name} takes values like {default!r}, got '{value}'") from error


def as_json(settings: SearchSettings) -> dict[str, Any]:
    """Plain values, for requests and reports."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain
