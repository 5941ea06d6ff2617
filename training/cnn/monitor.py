"""Watch a generator with the classifiers while it trains (docs/spec/cnn.md, section 6: FineTune-v8 and v9).

monitor = Monitor.load(folder_of_models)
scores = monitor.score(images)                    # {"gender": [N,5], "quality": [N,5], ...}
monitor.write(out / "inference_test_result.csv", scores)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.training.cnn.ensemble import Ensemble, present
from ohlora.training.cnn.pictures import Images
from ohlora.training.loop.logs import write_table
from ohlora.training.nets.score_cnns import ATTRIBUTES

Scores = Mapping[str, NDArray[np.float64]]  # attribute -> [N, models]
RESULT_FILE = "inference_test_result.csv"


@dataclass(frozen=True)
class Monitor:
    """The classifiers of a folder, documented 4 x 5."""

    ensembles: tuple[Ensemble, ...]

    @classmethod
    def load(
        cls,
        folder: Path,
        attributes: Sequence[str] | None = None,
        *,
        accelerator: str = "auto",
        precision: str = "fp32",
    ) -> Monitor:
        """All attributes that have models in `folder`, or those named. Raises InvalidInputError when there is none."""
        names = present(folder) if attributes is None else tuple(attributes)
        if not names:
            raise InvalidInputError(
                f"no models of {', '.join(ATTRIBUTES)} in {folder}: train them with `ohlora train classifier`"
            )
        return cls(tuple(Ensemble.load(folder, a, accelerator=accelerator, precision=precision) for a in names))

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(ensemble.attribute for ensemble in self.ensembles)

    def score(self, images: Images) -> dict[str, NDArray[np.float64]]:
        """uint8 [N,H,W,3] RGB, any square size -> attribute -> [N, models], rounded to 4 decimals as documented."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InvalidInputError(
                f"the monitor takes uint8 pictures [N,H,W,3], got {images.dtype} {list(images.shape)}"
            )
        return {ensemble.attribute: np.round(ensemble.score(images), 4) for ensemble in self.ensembles}

    @staticmethod
    def means(scores: Scores) -> dict[str, float]:
        """Attribute -> mean over pictures and models: one number each for a curve."""
        return {attribute: float(values.mean()) for attribute, values in scores.items()}

    @staticmethod
    def write(path: Path, scores: Scores) -> None:
        """The documented table: img_no, {attribute}_score (mean of the rounded scores), {attribute}_score_cnn_{k}."""
        single = [f"{a}_score_cnn_{k}" for a, values in scores.items() for k in range(values.shape[1])]
        images = enumerate(zip(*scores.values(), strict=True))
        rows = ([i, *(part.mean() for part in image), *chain(*image)] for i, image in images)
        write_table(path, ["img_no", *(f"{a}_score" for a in scores), *single], rows)
