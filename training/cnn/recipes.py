"""The documented trainings and filters as data (docs/spec/cnn.md, sections 4 to 9)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.scores.table import PROPERTY_COLUMNS
from ohlora.training.loop.precision import lightning_precision, precision_name
from ohlora.training.loop.seeds import MAX_SEED
from ohlora.training.nets.score_cnns import ATTRIBUTES, require_width

KFOLD, STRATIFIED = "k-fold", "stratified"
RANDOM, V1_MODEL = "random", "v1-model"
ERROR, KEEP_BEST = "error", "keep-best"
COSINE, EXPONENTIAL = "cosine", "exponential"
HAIRSTYLE_COLUMNS = ("hairstyle_score",)
NEVER = ("max_attempts", "on_failure")  # decide when to give up, not what is learned


@dataclass(frozen=True, kw_only=True)
class LoopRecipe:
    """What every training of a score CNN shares.

    schedule: "cosine" swings between the rate and 0 with half a period of `half_period` epochs and never restarts;
    "exponential" multiplies it by `decay` each epoch. patience: epochs without a strictly lower loss that end it.
    epochs: at most so many; None = no limit. width: of the network, 1 as documented.
    """

    learning_rate: float
    schedule: str = COSINE
    half_period: int = 10
    decay: float = 0.95
    weight_decay: float = 0.01
    batch_size: int = 16
    patience: int = 20
    epochs: int | None = None
    width: float = 1.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_width(type(self).__name__, self.width)
        for name in ("learning_rate", "decay", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1e30 or (value == 0 and name != "weight_decay"):  # false for NaN
                raise InvalidInputError(f"{name} must be a positive number, got {value}")
        for name in ("half_period", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.epochs is not None and self.epochs < 1:
            raise InvalidInputError(f"epochs must be 1 or more, or None for no limit, got {self.epochs}")
        if self.schedule not in (COSINE, EXPONENTIAL):
            raise InvalidInputError(f"unknown schedule '{self.schedule}': choose {COSINE} or {EXPONENTIAL}")
        object.__setattr__(self, "precision", precision_name(self.precision))
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidInputError(f"seed must be in [0, {MAX_SEED}], got {self.seed}")

    def rate(self, epoch: int) -> float:
        """Learning rate of `epoch` (0, 1, ...)."""
        if self.schedule == EXPONENTIAL:
            return self.learning_rate * self.decay**epoch
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.half_period)) / 2

    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in NEVER}
        return {**fields, "precision": lightning_precision(self.precision)}


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(LoopRecipe):
    """One row of the table of classifiers.

    split: how the folds are cut. start: "random", or "v1-model" for weights of an earlier classifier. threshold: a
    fold succeeds when its smallest validation loss is at most this. log_threshold: probability from which a picture
    counts as positive in the logs. max_attempts: per fold; on_failure: "error", or "keep-best" keeps the best of
    them. file_name: of the models, with {attribute} and {fold}.
    """

    version: str
    attribute: str
    threshold: float
    log_threshold: float
    split: str = STRATIFIED
    start: str = RANDOM
    folds: int = 5
    max_attempts: int = 5
    on_failure: str = ERROR
    file_name: str = "{attribute}_model_{fold}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attribute not in ATTRIBUTES:
            raise InvalidInputError(f"unknown attribute '{self.attribute}': choose one of {', '.join(ATTRIBUTES)}")
        for name, choices in (
            ("split", (KFOLD, STRATIFIED)),
            ("start", (RANDOM, V1_MODEL)),
            ("on_failure", (ERROR, KEEP_BEST)),
        ):
            if getattr(self, name) not in choices:
                raise InvalidInputError(f"unknown {name} '{getattr(self, name)}': choose {' or '.join(choices)}")
        if self.folds < 2:
            raise InvalidInputError(f"folds must be 2 or more, got {self.folds}")
        if self.max_attempts < 1:
            raise InvalidInputError(f"max_attempts must be 1 or more, got {self.max_attempts}")
        if not self.threshold > 0:
            raise InvalidInputError(f"threshold must be a positive validation loss, got {self.threshold}")
        if not 0 < self.log_threshold < 1:
            raise InvalidInputError(f"log_threshold must be a probability between 0 and 1, got {self.log_threshold}")

    def model_name(self, fold: int) -> str:
        return self.file_name.format(attribute=self.attribute, fold=fold)


V3_FILE = "cnn_ohlora_v3_{attribute}_model_{fold}"


def _v1(attribute: str, threshold: float, log_threshold: float, split: str) -> ClassifierRecipe:
    return ClassifierRecipe(
        version="v1",
        attribute=attribute,
        split=split,
        learning_rate=5e-5,
        threshold=threshold,
        log_threshold=log_threshold,
    )


def _v3(attribute: str, rate: float, threshold: float, log_threshold: float, start: str = RANDOM) -> ClassifierRecipe:
    return ClassifierRecipe(
        version="v3",
        attribute=attribute,
        start=start,
        learning_rate=rate,
        threshold=threshold,
        log_threshold=log_threshold,
        file_name=V3_FILE,
    )


CLASSIFIERS: dict[str, dict[str, ClassifierRecipe]] = {
    "v1": {
        "gender": _v1("gender", 0.35, 0.5, KFOLD),
        "quality": _v1("quality", 0.13, 0.9, STRATIFIED),
    },
    # 0.23 for age: always answering the base rate 0.064 has a loss of 0.238.
    "v3": {
        "gender": _v3("gender", 5e-6, 0.35, 0.5, V1_MODEL),
        "quality": _v3("quality", 5e-6, 0.13, 0.9, V1_MODEL),
        "age": _v3("age", 2.5e-5, 0.23, 0.1),
        "glass": _v3("glass", 5e-5, 0.10, 0.1),
    },
}


def classifier_recipe(version: str, attribute: str, **changes: Any) -> ClassifierRecipe:
    """The documented recipe of a classifier, with `changes` of its fields.

    Raises InvalidInputError naming the known ones.
    """
    if version not in CLASSIFIERS:
        raise InvalidInputError(f"unknown classifier version '{version}': choose {' or '.join(CLASSIFIERS)}")
    recipes = CLASSIFIERS[version]
    if attribute not in recipes:
        raise InvalidInputError(f"{version} has no classifier '{attribute}': it has {', '.join(recipes)}")
    return _changed(recipes[attribute], changes)


@dataclass(frozen=True, kw_only=True)
class ScoreCnnRecipe(LoopRecipe):
    """Training of the property or the hairstyle CNN.

    columns: of the score table, in the order of the outputs. train_share: of the pictures; the rest validates.
    excluded: a column that does not count when the best epoch is chosen, and how that loss is called in the log.
    missing: "error" or "drop", for pictures with an empty cell. The names are those of the documented files.
    """

    name: str
    columns: tuple[str, ...]
    weights_file: str
    log_file: str
    validation_log_file: str
    train_share: float = 0.9
    excluded: str | None = None
    excluded_log_name: str = "val_loss_except_back_std"
    missing: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_share < 1:
            raise InvalidInputError(f"train_share must be between 0 and 1, got {self.train_share}")
        if self.missing not in ("error", "drop"):
            raise InvalidInputError(f"missing must be error or drop, got '{self.missing}'")


SCORE_CNNS: dict[str, ScoreCnnRecipe] = {
    "property": ScoreCnnRecipe(
        name="property",
        columns=PROPERTY_COLUMNS,
        learning_rate=5e-5,
        excluded="background_std_score",
        weights_file="stylegan_gen_fine_tuned_v2_cnn.pth",
        log_file="train_log_v2_cnn.csv",
        validation_log_file="train_log_v2_cnn_val_log.csv",
    ),
    "hairstyle": ScoreCnnRecipe(
        name="hairstyle",
        columns=HAIRSTYLE_COLUMNS,
        learning_rate=5e-5,
        schedule=EXPONENTIAL,
        patience=45,
        weights_file="ohlora_v3_hairstyle_property_cnn.pth",
        log_file="property_score_cnn_train_log.csv",
        validation_log_file="property_score_cnn_valid_log.csv",
    ),
}


def score_cnn_recipe(name: str, **changes: Any) -> ScoreCnnRecipe:
    """The documented recipe "property" or "hairstyle", with `changes`. Raises InvalidInputError."""
    if name not in SCORE_CNNS:
        raise InvalidInputError(f"unknown score CNN '{name}': choose {' or '.join(SCORE_CNNS)}")
    return _changed(SCORE_CNNS[name], changes)


def _changed(recipe: Any, changes: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(recipe)}
    unknown = sorted(changes.keys() - fields)
    if unknown:
        raise InvalidInputError(
            f"unknown setting '{unknown[0]}': a {type(recipe).__name__} has {', '.join(sorted(fields))}"
        )
    return dataclasses.replace(recipe, **changes)


@dataclass(frozen=True)
class Rule:
    """A picture passes when its score in `column` is at least (or at most) `limit`. No score never passes."""

    column: str
    at_least: bool
    limit: float

    def passes(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """float64 [N], NaN = no score -> bool [N]."""
        return values >= self.limit if self.at_least else values <= self.limit

    def __str__(self) -> str:
        return f"{self.column} {'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class FilterRecipe:
    """Which pictures are kept: those that pass every rule, and whose number is at least `first_number`."""

    rules: tuple[Rule, ...]
    first_number: int = 0

    def __post_init__(self) -> None:
        if not self.rules:
            raise InvalidInputError("a filter needs at least one rule, such as gender_score>=0.7")


FILTERS: dict[str, FilterRecipe] = {
    "v1": FilterRecipe((Rule("gender_score", True, 0.7), Rule("quality_score", True, 0.9))),
    # The hand-labelled pictures, 2,000 in the documents, are never kept.
    "v3": FilterRecipe(
        (
            Rule("gender_score", True, 0.92),
            Rule("quality_score", True, 0.9),
            Rule("age_score", False, 0.008),
            Rule("glass_score", False, 0.01),
        ),
        first_number=2000,
    ),
}


def filter_recipe(name: str) -> FilterRecipe:
    """The documented filter "v1" or "v3". Raises InvalidInputError naming the known ones."""
    if name not in FILTERS:
        raise InvalidInputError(f"unknown filter '{name}': choose {' or '.join(FILTERS)}, or name rules of your own")
    return FILTERS[name]


def parse_rule(text: str) -> Rule:
    """ "gender_score>=0.7" or "age_score<=0.008" -> rule. Raises InvalidInputError."""
    for sign in (">=", "<="):
        column, found, limit = text.partition(sign)
        if found and column.strip():
            try:
                value = float(limit)
            except ValueError:
                break
            if math.isfinite(value):
                return Rule(column.strip(), sign == ">=", value)
    raise InvalidInputError(f"cannot read the rule '{text}': write COLUMN>=NUMBER or COLUMN<=NUMBER")
