"""The chain: one entry a stage (docs/pipeline.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ohlora.training.pipeline.graph import Graph, Stage
from ohlora.training.pipeline.portrait_labels import NAMES
from ohlora.training.pipeline.stages import generators, pictures, scores


def _chosen(
    version: str, generator: str, first: Stage, labels: Stage, attributes: Sequence[str], parsed: Sequence[str] = ()
) -> tuple[Stage, ...]:
    """From the pictures of a generator (`first`) and their `labels` to those that classifiers leave, and their class
    maps. Classifiers of v3 start from those of v1, where there are any. parsed: further sections of the last stage.
    """
    given = {"images": f"{first.name}.images", "labels": f"{labels.name}.labels"}
    kept, classify, parse = f"filter-{version}", f"classify-{version}", f"parse_{version}"
    starts = pictures.V1_ATTRIBUTES if version == "v3" else ()
    return (
        first,
        labels,
        *(
            Stage(
                f"classifier-{name}-{version}",
                f"classifiers of {name}, one a fold",
                scores.classifier,
                {**given, **({"start": f"classifier-{name}-v1.models"} if name in starts else {})},
                (f"classifier_{name}_{version}",),
            )
            for name in attributes
        ),
        Stage(
            classify,
            "the classifiers on all other pictures",
            pictures.classify,
            {**given, **{name: f"classifier-{name}-{version}.models" for name in attributes}},
        ),
        Stage(
            kept,
            f"the training set of {generator}",
            pictures.filtered,
            {**given, "scores": f"{classify}.scores"},
            (f"filter_{version}",),
        ),
        Stage(
            f"parse-{version}",
            "class maps of their faces",
            scores.parse,
            {"images": f"{kept}.images"},
            (parse, *parsed),
            external=scores.parse_files(parse),
        ),
    )


def _fine_tuned(
    version: str, about: str, inputs: Mapping[str, str], judges: Mapping[str, str], before: str = "finetune-v1"
) -> tuple[Stage, Stage]:
    """A fine-tuning, and what it changed, by the networks that judge."""
    name = f"finetune-{version}"
    compared = {"before": f"{before}.generator", "after": f"{name}.generator"}
    return (
        Stage(name, about, generators.finetune, inputs, (f"finetune_{version}",)),
        Stage(f"measure-{version}", f"what {version} changed", generators.measure, compared | {**judges}, ("measure",)),
    )


def _monitor(version: str, attributes: Sequence[str]) -> dict[str, str]:
    return {f"classifier_{name}": f"classifier-{name}-{version}.models" for name in attributes}


V1 = {"generator": "finetune-v1.generator"}
V1_BOTH = {**V1, "discriminator": "finetune-v1.discriminator"}
CNN = {"property_cnn": "property-cnn.model"}
OWN_SCORES = {"images": "score-v1.images", "scores": "rescore.scores"}
V3_MONITOR = _monitor("v3", NAMES)
V3_PICTURES = {"images": "filter-v3.images", **V3_MONITOR}
FACES_V1 = {"images": "filter-v1.images", "faces": "parse-v1.faces"}
FACES_V3 = {"images": "filter-v3.images", "faces": "parse-v3.faces"}

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
    *_chosen(
        "v1",
        "v1 to v5",
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
            pictures.labels,
            {"images": "sample-10k.images", "generator": "original.generator"},
            ("labels_v1", "sample_10k"),
            external=pictures.label_files("labels_v1", "sample-10k", pictures.V1_ATTRIBUTES),
        ),
        pictures.V1_ATTRIBUTES,
        ("sample_10k",),
    ),
    Stage("score-v1", "property scores by both algorithms", scores.property_scores, FACES_V1),
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
    *_fine_tuned(
        "v1",
        "conditional GAN on seven scores",
        {
            "generator": "original.generator",
            "discriminator": "discriminator.discriminator",
            "images": "score-v1.images",
            "scores": "score-v1.v1",
        },
        _monitor("v1", pictures.V1_ATTRIBUTES),
        before="original",
    ),
    *_fine_tuned("v2", "the property CNN as the only teacher", {**V1, **CNN}, CNN),
    *_fine_tuned(
        "v3",
        "conditional VAE, adopted",
        {**V1, **CNN, **OWN_SCORES, "gender": "classifier-gender-v1.models"},
        CNN,
    ),
    *_fine_tuned("v4", "v1 again with three scores", {**V1_BOTH, **CNN, **OWN_SCORES}, CNN),
    *_fine_tuned("v5", "the property CNN as discriminator", {**V1, **CNN, **OWN_SCORES}, CNN),
    *_chosen(
        "v3",
        "v8 and v9",
        Stage("sample-15k", "pictures of v1", pictures.sample, V1, ("sample_15k",)),
        Stage(
            "labels-v3",
            "gender, quality, age and glasses of the first",
            pictures.labels,
            {"images": "sample-15k.images"},
            ("labels_v3", "sample_15k"),
            external=pictures.label_files("labels_v3", "sample-15k", NAMES),
        ),
        NAMES,
    ),
    Stage("score-hairstyle", "straight or curly", scores.hairstyle_scores, FACES_V3),
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
    *_fine_tuned("v8", "GAN towards young women without glasses", {**V1_BOTH, **V3_PICTURES}, {**CNN, **V3_MONITOR}),
    *_fine_tuned(
        "v9", "v8 with a second mapping branch, more layers", {**V1_BOTH, **V3_PICTURES}, {**CNN, **V3_MONITOR}
    ),
)
GRAPH = Graph(STAGES)
