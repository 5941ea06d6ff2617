"""Every setting of the pipeline, by section. Most stages have their own; presets fill them in (`presets.PRESETS`)."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from ohlora.base.recipe import require_known, settings_of
from ohlora.errors import InvalidInputError
from ohlora.training.cnn.recipes import (
    ClassifierRecipe,
    ScoreCnnRecipe,
    classifier_recipe,
    parse_rule,
    score_cnn_recipe,
)
from ohlora.training.directions.recipes import ReaderConfig
from ohlora.training.finetune.recipes import DiscriminatorStart, Recipe, recipe
from ohlora.training.loop.precision import current_word
from ohlora.training.pipeline.settings import Section
from ohlora.training.sampling.recipes import SampleSettings

KEYLESS: JsonDict = {"keyless": True}  # does not decide what is made (`cache.deciding`)
FIXED = ("version", "family", "attribute", "name", "columns", "file_name", "weights_file", "log_file", "precision")
IDLE = ("checkpoint_minutes", "precision")  # the same of recipes


def described(default: Any, about: str, **limits: Any) -> Any:
    return Field(default=default, description=about, **limits)


def idle(default: Any, about: str, **limits: Any) -> Any:
    """A setting that does not decide what is made."""
    return described(default, about, json_schema_extra=KEYLESS, **limits)


def external(about: str) -> Any:
    """A file of the user's: what it holds decides, not where it lies."""
    return idle(None, about)


def from_recipe(kind: type, name: str, **changes: Any) -> Any:
    """A field as a recipe has it: default, limits and what it means."""
    about = settings_of(kind)[name].meaning
    limits = {"ge": about.low, "le": about.high, "gt": about.above, "lt": about.below, "multiple_of": about.step}
    default = next(entry.default for entry in fields(kind) if entry.name == name)
    return Field(**{"default": default, "description": about.help, **limits, **changes})


class Machine(Section):
    """What it runs on; changes no result beyond rounding."""

    accelerator: str = idle("auto", "auto, cpu or cuda")
    precision: Annotated[Literal["auto", "fp32", "bf16"], BeforeValidator(current_word)] = idle(
        "fp32", "of all networks in training; auto: bf16 where there are instructions for it"
    )


class Original(Section):
    """The generator everything starts from."""

    source: Literal["checkpoint", "bundle"] = described("checkpoint", "checkpoint (a weights file) or bundle")
    checkpoint: str | None = external("published stylegan_model.pth, or our .safetensors")
    discriminator: str | None = external("its discriminator, when it is in a file of its own")
    bundle: str = idle("demo", "bundle folder, or demo")
    smooth: bool = described(False, "the weight-averaged copy of a published file; documented: no")


class Sample(Section):
    """Pictures of a generator, as `ohlora train sample` makes them."""

    count: int = from_recipe(SampleSettings, "count", ge=2)
    first_seed: int = from_recipe(SampleSettings, "first_seed")
    psi: float = from_recipe(SampleSettings, "psi")
    layers: int = from_recipe(SampleSettings, "layers")
    train_mode: bool = from_recipe(SampleSettings, "train_mode")
    batch: int = from_recipe(SampleSettings, "batch")


class LabelsV1(Section):
    """Who says which of the first pictures are of good quality, and of women."""

    source: Literal["file", "portraits"] = described("file", "file (a person's), or portraits (demo)")
    file: str | None = external("CSV of `ohlora train label` with quality and gender")
    count: int = described(2000, "portraits: labelled pictures, the first ones", ge=4)
    unchecked: bool = described(False, "portraits: do not check that the generator draws them")


class LabelsV3(Section):
    """Who labels the first pictures of the fine-tuned generator: gender, quality, age, glass."""

    source: Literal["file", "reader"] = described("file", "file (a person's), or reader (demo: a network)")
    file: str | None = external("CSV of `ohlora train label` with gender, quality, age and glass")
    count: int = described(2000, "reader: labelled pictures, the first ones", ge=4)
    reader_size: int = from_recipe(ReaderConfig, "size", default=64)
    reader_width: int = from_recipe(ReaderConfig, "width", default=16)
    reader_pictures: int = from_recipe(ReaderConfig, "pictures", default=4000, ge=2)
    reader_epochs: int = from_recipe(ReaderConfig, "epochs", default=8)
    seed: int = from_recipe(ReaderConfig, "seed")

    def reader(self) -> ReaderConfig:
        return ReaderConfig(
            size=self.reader_size,
            width=self.reader_width,
            pictures=self.reader_pictures,
            held_out=max(self.reader_pictures // 5, 1),
            epochs=self.reader_epochs,
            batch_size=32,
            learning_rate=3e-3,
            seed=self.seed,
        )


class Open(Section):
    """A section that takes any field of a documented recipe beside its own."""

    model_config = ConfigDict(extra="allow", frozen=True, validate_default=True, protected_namespaces=())

    @property
    def changes(self) -> dict[str, Any]:
        """The recipe's fields that are set here. Lists become tuples, as recipes have them."""
        given = {n: tuple(v) if isinstance(v, list) else v for n, v in (self.model_extra or {}).items()}
        if fixed := sorted(set(FIXED) & given.keys()):
            raise InvalidInputError(f"{fixed[0]} cannot be set: it is what the section stands for")
        return given

    def recipe(self, name: str) -> Any:
        """The recipe that the section `name` stands for. Raises InvalidInputError for a field it does not have, or a
        value it refuses.
        """
        raise NotImplementedError


class Discriminator(Open):
    """For an original that has no discriminator: one learns to tell its pictures from real ones. Further fields: those
    of DiscriminatorStart (training/finetune/recipes.py).
    """

    source: Literal["folder", "portraits"] = described("folder", "folder (real pictures), or portraits (demo)")
    images: str | None = external("folder: the pictures the original was trained on, NNNNNN.jpg")
    portraits: int = described(1000, "portraits: how many are painted", ge=2)

    def recipe(self, name: str) -> DiscriminatorStart:
        for field in self.changes:
            require_known(field, list(settings_of(DiscriminatorStart)))
        return DiscriminatorStart(**self.changes)


class Classifier(Open):
    """A classifier CNN: fields of its documented recipe (training/cnn/recipes.py)."""

    def recipe(self, name: str) -> ClassifierRecipe:
        _, attribute, version = name.split("_")
        return classifier_recipe(version, attribute, **self.changes)


class ScoreCnn(Open):
    """A score CNN: fields of its documented recipe (training/cnn/recipes.py)."""

    floor: float | None = described(
        None,
        "held-out correlation of eyes, mouth and pose below which it is trained longer, then warned of",
        ge=0,
        le=1,
    )
    longer: int = described(2, "times its epochs that it is trained then", ge=1)

    def recipe(self, name: str) -> ScoreCnnRecipe:
        return score_cnn_recipe(name.removesuffix("_cnn"), **self.changes)


class FineTune(Open):
    """A fine-tuning: fields of its documented recipe (`ohlora train finetune VERSION --show`)."""

    compat: bool = described(False, "as the published program ran it")

    def recipe(self, name: str) -> Recipe:
        return recipe(name.removeprefix("finetune_"), compat=self.compat, **self.changes)


def checked_rule(text: str) -> str:
    parse_rule(text)
    return text


class Filter(Section):
    """Which pictures are kept."""

    rules: list[Annotated[str, AfterValidator(checked_rule)]] = Field(description="all of them must hold")
    keep_labelled: bool = described(True, "whether the hand-labelled pictures may stay")


class Parse(Section):
    """Who finds the parts of the face."""

    source: Literal["teacher", "bundle", "portraits", "hair"] = described(
        "teacher",
        "teacher (FaceXFormer or BiSeNet weights), bundle (its parser), portraits (demo: the exact map "
        "of the portrait of the same seed), hair (a bundle's hair student: hair alone)",
    )
    teacher: str | None = external("teacher: weights file, model.pt of FaceXFormer or 79999_iter.pth of BiSeNet")
    bundle: str = idle("demo", "bundle, hair: folder, or demo")
    variant: Literal["crop", "full-frame"] = described("crop", "crop (the face with its margin) or full-frame")
    batch: int = idle(8, "pictures at once", ge=1)


class Measure(Section):
    """How a fine-tuned generator is measured against the one it came from."""

    latents: int = described(30, "latents, each with every label of the documented grid", ge=1)
    pictures: int = described(300, "pictures for the classifiers, with random labels", ge=2)
    first_seed: int = described(9_000_000, "seeds that nothing is trained on", ge=0)


DOCUMENTED_V1 = ["gender_score>=0.7", "quality_score>=0.9"]
DOCUMENTED_V3 = ["gender_score>=0.92", "quality_score>=0.9", "age_score<=0.008", "glass_score<=0.01"]


class PipelineSettings(Section):
    """Settings of `ohlora train pipeline`."""

    preset: str = described("documented", "whose values count where a line is left out")
    skip: list[str] = idle([], "stages that are left out")
    machine: Machine = Machine()
    original: Original = Original()
    discriminator: Discriminator = Discriminator()
    sample_10k: Sample = Sample()
    labels_v1: LabelsV1 = LabelsV1()
    classifier_quality_v1: Classifier = Classifier()
    classifier_gender_v1: Classifier = Classifier()
    filter_v1: Filter = Filter(rules=DOCUMENTED_V1)
    parse_v1: Parse = Parse()
    property_cnn: ScoreCnn = ScoreCnn()
    finetune_v1: FineTune = FineTune()
    finetune_v2: FineTune = FineTune()
    finetune_v3: FineTune = FineTune()
    finetune_v4: FineTune = FineTune()
    finetune_v5: FineTune = FineTune()
    sample_15k: Sample = Sample(count=15_000)
    labels_v3: LabelsV3 = LabelsV3()
    classifier_gender_v3: Classifier = Classifier()
    classifier_quality_v3: Classifier = Classifier()
    classifier_age_v3: Classifier = Classifier()
    classifier_glass_v3: Classifier = Classifier()
    filter_v3: Filter = Filter(rules=DOCUMENTED_V3, keep_labelled=False)
    parse_v3: Parse = Parse()
    hairstyle_cnn: ScoreCnn = ScoreCnn()
    finetune_v8: FineTune = FineTune()
    finetune_v9: FineTune = FineTune()
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _recipes_exist(self) -> PipelineSettings:
        for name, section in self:
            try:
                if isinstance(section, Open):
                    section.recipe(name)
            except (InvalidInputError, TypeError) as error:
                raise ValueError(f"{name}: {error}") from error
        return self

    def effective(self, name: str) -> dict[str, Any] | None:
        """All fields of the recipe that a section stands for, but for those of a start discriminator."""
        section = getattr(self, name)
        if not isinstance(section, Open) or isinstance(section, Discriminator):
            return None
        values = json.loads(json.dumps(asdict(section.recipe(name))))
        if isinstance(section, ScoreCnn) and section.floor is not None:
            values |= {"floor": section.floor, "longer": section.longer}
        return {key: value for key, value in values.items() if key not in IDLE}
