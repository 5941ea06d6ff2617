"""One classifier training in two processes: `python -m tests.support.cnn_processes IMAGES LABELS OUT PROCESSES`.

Without dropout, which every process draws for itself, the result is that of one process.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ohlora.training.cnn.classifier import ClassifierResult, train_classifier
from ohlora.training.cnn.recipes import classifier_recipe
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.nets import score_cnns


def train(images: Path, labels: Path, out: Path, processes: int) -> ClassifierResult:
    channel, network = score_cnns.CHANNEL_DROPOUT, score_cnns.CLASSIFIERS["glass"]
    score_cnns.CHANNEL_DROPOUT = 0.0
    score_cnns.CLASSIFIERS["glass"] = replace(network, dropout=0.0)
    try:
        fabric = make_fabric("cpu", devices=processes)
        if processes > 1:
            fabric.launch()
        assert fabric.world_size == processes
        # 13 training pictures a fold: the last batch has one, which leaves the second process without any.
        recipe = classifier_recipe(
            "v3", "glass", width=0.03, folds=2, epochs=1, batch_size=4, threshold=9.0, learning_rate=1e-3
        )
        return train_classifier("glass", images, labels, out, recipe, fabric=fabric)
    finally:
        score_cnns.CHANNEL_DROPOUT = channel
        score_cnns.CLASSIFIERS["glass"] = network


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
