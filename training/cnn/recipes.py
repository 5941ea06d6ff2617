"""The documented trainings and filters as data (docs/spec/cnn.md, sections 4 to 9)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ohlora.base.recipe import changed, check, meaning, pick, setting
from ohlora.errors import InvalidInputError
from ohlora.kernels.properties import PROPERTIES
from ohlora.training.loop.precision import lightning_precision, precision_name
from ohlora.training.loop.seeds import MAX_SEED
from ohlora.training.nets.choices import ATTRIBUTES, MAX_WIDTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["k-fold", "stratified"]
Start = Literal["random", "v1-model"]
KFOLD: Split = "k-fold"
RANDOM: Start = "random"
KEEP_BEST: Literal["keep-best"] = "keep-best"
HAIRSTYLE_COLUMNS = ("hairstyle_score",)
NEVER = ("max_attempts", "on_failure")  # decide when to give up, not what is learned


@dataclass(frozen=True, kw_only=True)
class LoopRecipe:
    """What every training of a score CNN shares.

    schedule: "cosine" swings between the rate and 0 with half a period of `half_period` epochs and never restarts;
    "exponential" multiplies it by `decay` each epoch.
    """

    learning_rate: float = field(metadata=meaning("Of AdamW, at the beginning.", above=0))
    schedule: Literal["cosine", "exponential"] = setting("cosine", "Of the learning rate.")
    half_period: int = setting(10, "cosine: epochs from the highest rate to the lowest.", low=1)
    decay: float = setting(0.95, "exponential: factor of an epoch.", above=0)
    weight_decay: float = setting(0.01, "Of AdamW.", low=0)
    batch_size: int = setting(16, "Pictures a step.", low=1)
    patience: int = setting(20, "Epochs without a lower validation loss.", low=1)
    epochs: int | None = setting(None, "At most so many; documented: no limit.", low=1)
    width: float = setting(1.0, "Scales every layer of the network; documented 1.", above=0, high=MAX_WIDTH)
    precision: str = "fp32"
    seed: int = setting(0, "Of folds, weights, order and dropout.", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision))
        check(self)

    def rate(self, epoch: int) -> float:
        """Learning rate of `epoch` (0, 1, ...)."""
        if self.schedule == "exponential":
            return self.learning_rate * self.decay**epoch
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.half_period)) / 2

    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in NEVER}
        return {**fields, "precision": lightning_precision(self.precision)}


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(LoopRecipe):
    """One row of the table of classifiers.

    log_threshold: probability from which a picture counts as positive in the logs. file_name: of the models, with
    {attribute} and {fold}.
    """

    version: str
    attribute: str = field(metadata=meaning(choices=ATTRIBUTES))
    threshold: float = field(metadata=meaning("Validation loss at which a fold has succeeded.", above=0))
    log_threshold: float = field(metadata=meaning(above=0, below=1))
    split: Split = setting("stratified", "How the folds are cut.")
    start: Start = setting("random", "Weights that it begins with.")
    folds: int = setting(5, "Parts, each of which is held out once.", low=2)
    max_attempts: int = setting(5, "Trainings of a fold without success.", low=1)
    on_failure: Literal["error", "keep-best"] = setting("error", "Then: error, or keep the best (success False).")
    file_name: str = "{attribute}_model_{fold}"

    def model_name(self, fold: int) -> str:
        return self.file_name.format(attribute=self.attribute, fold=fold)


V3_FILE = "cnn_ohlora_v3_{attribute}_model_{fold}"


def _classifier(
    version: str, attribute: str, rate: float, limit: float, positive: float, **more: Any
) -> ClassifierRecipe:
    about: dict[str, Any] = {"version": version, "attribute": attribute, **more}
    return ClassifierRecipe(learning_rate=rate, threshold=limit, log_threshold=positive, **about)


CLASSIFIERS: dict[str, dict[str, ClassifierRecipe]] = {
    "v1": {
        "gender": _classifier("v1", "gender", 5e-5, 0.35, 0.5, split="k-fold"),
        "quality": _classifier("v1", "quality", 5e-5, 0.13, 0.9),
    },
    # 0.23 for age: always answering the base rate 0.064 has a loss of 0.238.
    "v3": {
        "gender": _classifier("v3", "gender", 5e-6, 0.35, 0.5, start="v1-model", file_name=V3_FILE),
        "quality": _classifier("v3", "quality", 5e-6, 0.13, 0.9, start="v1-model", file_name=V3_FILE),
        "age": _classifier("v3", "age", 2.5e-5, 0.23, 0.1, file_name=V3_FILE),
        "glass": _classifier("v3", "glass", 5e-5, 0.10, 0.1, file_name=V3_FILE),
    },
}


def classifier_recipe(version: str, attribute: str, **changes: Any) -> ClassifierRecipe:
    """The documented recipe of a classifier, with `changes` of its fields.

    Raises InvalidInputError naming the known ones.
    """
    recipes = pick(CLASSIFIERS, version, "classifier version")
    if attribute not in recipes:
        raise InvalidInputError(f"{version} has no classifier '{attribute}': it has {', '.join(recipes)}")
    return changed(recipes[attribute], changes)


@dataclass(frozen=True, kw_only=True)
class ScoreCnnRecipe(LoopRecipe):
    """Training of the property or the hairstyle CNN.

    columns: of the score table, in the order of the outputs. excluded: a column that does not count when the best
    epoch is chosen, and how that loss is called in the log. The names are those of the documented files.
    """

    name: str
    columns: tuple[str, ...]
    weights_file: str
    log_file: str
    validation_log_file: str
    train_share: float = setting(0.9, "Part of the pictures; the rest validates.", above=0, below=1)
    excluded: str | None = None
    excluded_log_name: str = "val_loss_except_back_std"
    missing: Literal["error", "drop"] = setting("error", "Pictures with an empty cell.")


SCORE_CNNS: dict[str, ScoreCnnRecipe] = {
    "property": ScoreCnnRecipe(
        name="property",
        columns=tuple(f"{name}_score" for name in PROPERTIES),
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
        schedule="exponential",
        patience=45,
        weights_file="ohlora_v3_hairstyle_property_cnn.pth",
        log_file="property_score_cnn_train_log.csv",
        validation_log_file="property_score_cnn_valid_log.csv",
    ),
}


def score_cnn_recipe(name: str, **changes: Any) -> ScoreCnnRecipe:
    """The documented recipe "property" or "hairstyle", with `changes`. Raises InvalidInputError."""
    return changed(pick(SCORE_CNNS, name, "score CNN"), changes)


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
