"""A search as data: what the documents' versions differ in, and ours (docs/spec/vectorfind.md, section 2)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ohlora.base.recipe import changed, check, meaning, pick, setting
from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.latents.spaces import Space

Method = Literal["svm", "gradient", "orthogonal"]
THREE = ("hair_color", "hair_length", "background_mean")
FOUR = (*THREE, "hairstyle")
TEST_SEED = 2**40  # far from the seeds that people and samples take


@dataclass(frozen=True)
class GradientTraining:
    """Documented values. batch: of training; the documents evaluate in fours, which gives the same figures as any
    other.
    """

    epochs: int = setting(1000, low=1)
    patience: int = setting(15, low=1)
    batch: int = setting(16, low=1)
    learning_rate: float = setting(1e-3, above=0)
    decay: float = setting(0.95, above=0, high=1)
    shares: tuple[float, float] = setting((0.8, 0.1), low=0, high=1)  # training, validation; the rest tests

    def __post_init__(self) -> None:
        check(self, "gradient training: ")


@dataclass(frozen=True)
class SearchSettings:
    """One search.

    Scores that groups and protect name make the groups of faces, and are left alone by the orthogonal method.
    strength: () leaves directions at unit length, as documented; three numbers scale them so that 1 moves its own score
    by so many standard deviations. orientation: "published" (SVM and orthogonal: positive lowers the score; Gradient:
    raises it) or "raises" for all.
    """

    space: Space = setting("w", "Latents that are searched.")
    groups: tuple[str, ...] = setting((), "Scores whose letters make a face's group; none: one group of all.")
    cutoffs: tuple[float, ...] = setting((), "Of the groups; none: medians of the samples.")
    methods: tuple[Method, Method, Method] = setting(
        ("svm", "svm", "svm"), "Of eyes, mouth and pose: svm, gradient or orthogonal."
    )
    samples: int = setting(80_000, "Scored random codes.", low=1, flag="--samples/-n")
    first_seed: int = setting(0, "Of the samples.", low=0)
    share: float = setting(0.2, 'Part of a group that is "largest", and "smallest".', above=0, high=0.5)
    c: float = setting(1.0, "Of the SVM.", above=0)
    train_share: float = setting(
        0.8, "Part of the extremes that the SVM learns from; the rest validates.", above=0, below=1
    )
    protect: tuple[str, ...] = setting((), "orthogonal: further scores that are left alone.")
    ridge: float = setting(1e-3, "orthogonal: regularisation, a share of the mean variance of w.", low=0)
    refine: int = setting(2, "orthogonal: rounds of measured correction ...", low=0)
    refine_faces: int = setting(48, "... on so many faces.", low=1)
    gradient: GradientTraining = field(default_factory=GradientTraining, metadata=meaning())
    strength: tuple[float, ...] = setting(
        (), "Standard deviations by which a strength of 1 moves eyes, mouth, pose ...", above=0
    )
    calibrate_faces: int = setting(24, "... measured on so many faces.", low=1)
    orientation: Literal["published", "raises"] = setting("published", "What a positive strength does to the score.")
    eyes: tuple[float, ...] = setting((-1.2, 1.2), "Strengths of the test.")
    mouth: tuple[float, ...] = setting((-1.8, -0.9, 0.0, 0.9, 1.8), "Strengths of the test.")
    pose: tuple[float, ...] = setting((-1.8, -1.2, -0.6, 0.0, 0.6), "Strengths of the test.")
    limits: tuple[float, float, float] = setting(
        (0.92, 0.88, 0.88), "Absolute correlations of eyes, mouth, pose that pass.", low=0, high=1
    )
    codes: int = setting(2000, "Most random faces to test.", low=1)
    stop_after: int = setting(60, "So many passed; 0: never.", low=0)
    test_seed: int = setting(TEST_SEED, "First of the faces to test.", low=0)
    grids: Literal["passed", "all", "none"] = setting(
        "passed", "Sheets of 50 pictures of the faces that passed, of all or none."
    )
    files: bool = setting(False, "Also single pictures, as documented.")
    identity: bool = setting(True, "Measure the change of deep features too.")
    tsne: bool = setting(False, "Plots of the extremes.")
    seed: int = setting(2025, "Of every other random choice.", low=0)

    def __post_init__(self) -> None:
        for name in ("groups", "cutoffs", "methods", "protect", "strength", "eyes", "mouth", "pose", "limits"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check(self, "search: ")
        rules = {
            "cutoffs": (len(self.cutoffs) in (0, len(self.groups)), "empty, or one number a group score"),
            "strength": (len(self.strength) in (0, 3), "empty, or three numbers"),
            **{name: (len(set(getattr(self, name))) >= 2, "two or more different strengths") for name in PROPERTIES},
        }
        for name, (right, rule) in rules.items():
            if not right:
                raise InvalidInputError(f"search: {name} must be {rule}, got {getattr(self, name)!r}")

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
    return changed(pick(PRESETS, name, "search"), changes)


def as_json(settings: SearchSettings) -> dict[str, Any]:
    """Plain values, for requests and reports."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain
