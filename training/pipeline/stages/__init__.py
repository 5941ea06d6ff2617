"""The chain: one entry a stage (docs/pipeline.md)."""

from __future__ import annotations

from collections.abc import Mapping

from ohlora.training.pipeline.graph import Graph, Stage
from ohlora.training.pipeline.portrait_truth import NAMES
from ohlora.training.pipeline.stages import generators, pictures, scores


def _classifier(attribute: str, version: str, start: Mapping[str, str] | None = None) -> Stage:
    first = "sample-10k" if version == "v1" else "sample-15k"
    return Stage(
        f"classifier-{attribute}-{version}",
        f"classifiers of {attribute}, one a fold",
        scores.classifier,
        {"images": f"{first}.images", "labels": f"labels-{version}.labels", **(start or {})},
        (f"classifier_{attribute}_{version}",),
    )


def _models(version: str) -> dict[str, str]:
    names = NAMES if version == "v3" else pictures.V1_ATTRIBUTES
    return {name: f"classifier-{name}-{version}.models" for name in names}


def _monitor(version: str) -> dict[str, str]:
    return {f"classifier_{name}": source for name, source in _models(version).items()}


def _finetune(version: str, about: str, inputs: Mapping[str, str]) -> Stage:
    return Stage(f"finetune-{version}", about, generators.finetune, inputs, (f"finetune_{version}",))


def _measure(version: str, inputs: Mapping[str, str], before: str = "finetune-v1.generator") -> Stage:
    return Stage(
        f"measure-{version}",
        f"what {version} changed",
        generators.measure,
        {"before": before, "after": f"finetune-{version}.generator", **inputs},
        ("measure",),
    )


V1 = {"generator": "finetune-v1.generator"}
V1_BOTH = {**V1, "discriminator": "finetune-v1.discriminator"}
CNN = {"property_cnn": "property-cnn.model"}
OWN_SCORES = {"images": "score-v1.images", "scores": "rescore.scores"}
V3_PICTURES = {"images": "filter-v3.images", **_monitor("v3")}

STAGES: tuple[Stage, ...] = (
    Stage(
        "original",
        "the generator everything starts from",
        pictures.original,
        settings=("original",),
        external=pictures.original_files,
    ),
    Stage(
        "discriminator",
        "its discriminator, taught where it has none",
        generators.discriminator,
        {"generator": "original.generator", "networks": "original.networks"},
        ("discriminator", "original"),
        external=generators.discriminator_files,
    ),
    Stage(
        "sample-10k",
        "pictures of the original",
        pictures.sample,
        {"generator": "original.generator"},
        ("sample_10k",),
    ),
    Stage(
        "labels-v1",
        "which of the first are of good quality, and of women",
        pictures.labels_v1,
        {"images": "sample-10k.images", "generator": "original.generator"},
        ("labels_v1", "sample_10k"),
        external=pictures.label_files("labels_v1", "sample-10k", pictures.V1_ATTRIBUTES),
    ),
    _classifier("quality", "v1"),
    _classifier("gender", "v1"),
    Stage(
        "classify-v1",
        "the classifiers on all other pictures",
        pictures.classify,
        {"images": "sample-10k.images", "labels": "labels-v1.labels", **_models("v1")},
    ),
    Stage(
        "filter-v1",
        "the training set of v1 to v5",
        pictures.filtered,
        {"images": "sample-10k.images", "labels": "labels-v1.labels", "scores": "classify-v1.scores"},
        ("filter_v1",),
    ),
    Stage(
        "parse-v1",
        "class maps of their faces",
        scores.parse,
        {"images": "filter-v1.images"},
        ("parse_v1", "sample_10k"),
        external=scores.parse_files("parse_v1"),
    ),
    Stage(
        "score-v1",
        "property scores by both algorithms",
        scores.property_scores,
        {"images": "filter-v1.images", "faces": "parse-v1.faces"},
    ),
    Stage(
        "property-cnn",
        "the CNN that gives seven property scores",
        scores.score_cnn,
        {"images": "score-v1.images", "scores": "score-v1.v2"},
        ("property_cnn",),
    ),
    Stage(
        "rescore",
        "the CNN's own scores of its pictures",
        scores.rescored,
        {"images": "score-v1.images", "scores": "score-v1.v2", "model": "property-cnn.model"},
    ),
    _finetune(
        "v1",
        "conditional GAN on seven scores",
        {
            "generator": "original.generator",
            "discriminator": "discriminator.discriminator",
            "images": "score-v1.images",
            "scores": "score-v1.v1",
        },
    ),
    _measure("v1", _monitor("v1"), before="original.generator"),
    _finetune("v2", "the property CNN as the only teacher", {**V1, **CNN}),
    _measure("v2", CNN),
    _finetune("v3", "conditional VAE, adopted", {**V1, **CNN, **OWN_SCORES, "gender": "classifier-gender-v1.models"}),
    _measure("v3", CNN),
    _finetune("v4", "v1 again with three scores", {**V1_BOTH, **CNN, **OWN_SCORES}),
    _measure("v4", CNN),
    _finetune("v5", "the property CNN as discriminator", {**V1, **CNN, **OWN_SCORES}),
    _measure("v5", CNN),
    Stage("sample-15k", "pictures of v1", pictures.sample, V1, ("sample_15k",)),
    Stage(
        "labels-v3",
        "gender, quality, age and glasses of the first",
        pictures.labels_v3,
        {"images": "sample-15k.images"},
        ("labels_v3", "sample_15k"),
        external=pictures.label_files("labels_v3", "sample-15k", NAMES),
    ),
    _classifier("gender", "v3", {"start": "classifier-gender-v1.models"}),
    _classifier("quality", "v3", {"start": "classifier-quality-v1.models"}),
    _classifier("age", "v3"),
    _classifier("glass", "v3"),
    Stage(
        "classify-v3",
        "the classifiers on all other pictures",
        pictures.classify,
        {"images": "sample-15k.images", "labels": "labels-v3.labels", **_models("v3")},
    ),
    Stage(
        "filter-v3",
        "the training set of v8 and v9",
        pictures.filtered,
        {"images": "sample-15k.images", "labels": "labels-v3.labels", "scores": "classify-v3.scores"},
        ("filter_v3",),
    ),
    Stage(
        "parse-v3",
        "class maps of their faces",
        scores.parse,
        {"images": "filter-v3.images"},
        ("parse_v3",),
        external=scores.parse_files("parse_v3"),
    ),
    Stage(
        "score-hairstyle",
        "straight or curly",
        scores.hairstyle_scores,
        {"images": "filter-v3.images", "faces": "parse-v3.faces"},
    ),
    Stage(
        "hairstyle-cnn",
        "the CNN that gives the hairstyle score",
        scores.score_cnn,
        {"images": "filter-v3.images", "scores": "score-hairstyle.scores"},
        ("hairstyle_cnn",),
    ),
    Stage(
        "merge-cnn",
        "both score CNNs as one of eight outputs",
        scores.merged_cnn,
        {"property": "property-cnn.model", "hairstyle": "hairstyle-cnn.model"},
    ),
    _finetune("v8", "GAN towards young women without glasses", {**V1_BOTH, **V3_PICTURES}),
    _measure("v8", {**CNN, **_monitor("v3")}),
    _finetune("v9", "v8 with a second mapping branch, more layers", {**V1_BOTH, **V3_PICTURES}),
    _measure("v9", {**CNN, **_monitor("v3")}),
)
GRAPH = Graph(STAGES)
