"""Presets as data: what differs from the sections' own values."""

from __future__ import annotations

from typing import Any

from ohlora.training.cnn.recipes import CLASSIFIERS as CLASSIFIER_RECIPES

DEFAULT = "demo"
CLASSIFIERS = [f"classifier_{name}_{version}" for version, names in CLASSIFIER_RECIPES.items() for name in names]

Values = dict[str, Any]

# The documents' numbers, which are the recipes' own. The runs were ended by hand; the epochs are those they reached, of
# v3 those of the checkpoint that was adopted (docs/spec/stylegan.md, sections 7.4 and 9.3).
DOCUMENTED: Values = {
    "finetune_v1": {"epochs": 39},
    "finetune_v3": {"epochs": 6},
    "finetune_v4": {"epochs": 79},
    "finetune_v5": {"epochs": 58},
    "finetune_v8": {"epochs": 72},
    "finetune_v9": {"epochs": 72},
}

# Narrow CNNs, few pictures, few epochs: the whole chain within 20 minutes on two cores. Rates are far above the
# documented ones: raw mapping weights have size 100, so that 1e-4 needs ten thousands of steps to be seen.
_CNN: Values = {"width": 0.25, "batch_size": 16, "learning_rate": 5e-4}
_CLASSIFIER: Values = {**_CNN, "folds": 3, "max_attempts": 1, "on_failure": "keep-best", "epochs": 5, "half_period": 5}
_GAN: Values = {
    "batch_size": 8,
    "log_first": 1,
    "log_every_first_epoch": 0,
    "log_every": 10,
    "discriminator_rate": 1e-3,
}
DEMO: Values = {
    "machine": {"accelerator": "cpu"},
    "original": {"source": "bundle", "bundle": "demo"},
    "discriminator": {"source": "portraits", "portraits": 600, "steps": 60, "channel_base": 1536, "channel_max": 96},
    "sample_10k": {"count": 1200, "batch": 8},
    "labels_v1": {"source": "portraits", "count": 500},
    **dict.fromkeys(CLASSIFIERS, _CLASSIFIER),
    "classifier_gender_v1": {**_CLASSIFIER, "learning_rate": 1e-3},
    "filter_v1": {"rules": ["gender_score>=0.5", "quality_score>=0.7"]},
    "parse_v1": {"source": "portraits"},
    # A rate that falls slowly: with half a period of 12 epochs the pose is not learned (correlation 0.31, here 0.82).
    "property_cnn": {**_CNN, "epochs": 18, "half_period": 36, "floor": 0.5},
    "finetune_v1": {**_GAN, "epochs": 1, "batches_per_epoch": 40, "learning_rate": 5e-3},
    "finetune_v2": {"epochs": 2, "batches_per_epoch": 12, "batch_size": 8, "learning_rate": 3e-4},
    "finetune_v3": {
        "epochs": 4,
        "batches_per_epoch": 60,
        "learning_rate": 0.03,
        "encoder_rate": 1e-4,
        "test_latents": 2,
        "log_every": 10,
    },
    "finetune_v4": {**_GAN, "epochs": 1, "batches_per_epoch": 15, "learning_rate": 5e-3},
    "finetune_v5": {**_GAN, "epochs": 1, "batches_per_epoch": 10, "learning_rate": 5e-4, "centers": 100},
    "sample_15k": {"count": 1600, "batch": 8},
    "labels_v3": {"source": "reader", "count": 400, "reader_pictures": 3000, "reader_epochs": 8},
    "classifier_gender_v3": {**_CLASSIFIER, "learning_rate": 1e-3},
    "filter_v3": {"rules": ["gender_score>=0.6", "quality_score>=0.7", "age_score<=0.3", "glass_score<=0.3"]},
    "parse_v3": {"source": "hair", "variant": "full-frame"},
    "hairstyle_cnn": {**_CNN, "epochs": 8},
    # Synthesis weights have size 1 and move a hundred times faster than mapping weights: 2e-3 wrecks the faces of v9 in
    # 50 steps, and classifiers may well like what is left.
    "finetune_v8": {
        **_GAN,
        "epochs": 1,
        "batches_per_epoch": 40,
        "learning_rate": 2e-3,
        "discriminator_rate": 3e-3,
    },
    "finetune_v9": {
        **_GAN,
        "epochs": 3,
        "batches_per_epoch": 50,
        "learning_rate": 4e-4,
        "discriminator_rate": 3e-3,
    },
    "measure": {"latents": 4, "pictures": 100},
}

# For tests: seconds a stage on a small random generator. Its file has to be named, and labels of a person
# (original.checkpoint, labels_v3.file).
_TINY_CNN: Values = {"width": 0.02, "epochs": 1, "learning_rate": 1e-3, "batch_size": 8}
_TINY_CLASSIFIER: Values = {**_TINY_CNN, "folds": 2, "max_attempts": 1, "on_failure": "keep-best"}
_TINY_RUN: Values = {"epochs": 1, "batches_per_epoch": 2, "batch_size": 4, "log_first": 1}
TINY: Values = {
    "machine": {"accelerator": "cpu"},
    "original": {"source": "checkpoint"},
    "discriminator": {"source": "portraits", "portraits": 8, "steps": 2, "batch_size": 4},
    "sample_10k": {"count": 40, "batch": 8},
    "labels_v1": {"source": "portraits", "count": 24, "unchecked": True},
    **dict.fromkeys(CLASSIFIERS, _TINY_CLASSIFIER),
    "filter_v1": {"rules": ["gender_score>=0.0", "quality_score>=0.0"]},
    "parse_v1": {"source": "portraits"},
    "property_cnn": _TINY_CNN,
    **dict.fromkeys(("finetune_v1", "finetune_v4", "finetune_v8", "finetune_v9"), _TINY_RUN),
    "finetune_v2": {"epochs": 1, "batches_per_epoch": 2, "batch_size": 4},
    "finetune_v3": {**_TINY_RUN, "test_latents": 1},
    "finetune_v5": {**_TINY_RUN, "centers": 8},
    "sample_15k": {"count": 40, "batch": 8},
    "filter_v3": {"rules": ["gender_score>=0.0", "age_score<=1.0"]},
    "parse_v3": {"source": "hair", "variant": "full-frame"},
    "hairstyle_cnn": _TINY_CNN,
    "measure": {"latents": 1, "pictures": 4},
}

PRESETS: dict[str, Values] = {"demo": DEMO, "documented": DOCUMENTED, "tiny": TINY}
