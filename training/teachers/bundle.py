"""The networks of a bundle in place of a published teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.bundle import Bundle
from ohlora.photos.segmentation import documented_classes, find_hair, parse_faces
from ohlora.render.renderer import Renderer
from ohlora.training.data.parsing_classes import HAIR, EyePoints
from ohlora.training.teachers.protocol import SIZE, Labels

HALF = 0.5


class BundleTeacher:
    """A bundle's own networks in place of a teacher.

    hair_only: its hair student, every other class is background; None: where the bundle has no face parser.
    """

    def __init__(self, bundle: str | Path, hair_only: bool | None = None) -> None:
        opened = Bundle.open(bundle)
        if hair_only is None:
            hair_only = opened.manifest.parsing is None
        part = opened.hair_part() if hair_only else opened.parsing_part()  # raises BundleError when it has none
        self.renderer, self.hair_only = Renderer(opened), hair_only
        self.name = f"{'hair student' if hair_only else 'parser'} of bundle {opened.name}"
        self.weights = opened.manifest.files[part.file].sha256

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """As of a teacher. The networks see the pictures in their own aspect, and the maps are stretched afterwards."""
        hair = _square(find_hair(self.renderer.hair_engine, images), cv2.INTER_LINEAR)
        if self.hair_only:
            return Labels(np.where(hair >= HALF, np.uint8(HAIR), np.uint8(0)), hair)
        return Labels(
            documented_classes(_square(parse_faces(self.renderer.parsing_engine, images), cv2.INTER_NEAREST)), hair
        )


def _square(maps: Sequence[NDArray[Any]], interpolation: int) -> NDArray[Any]:
    """[h,w] each -> [N,224,224]."""
    side = (SIZE, SIZE)
    return np.stack([m if m.shape == side else cv2.resize(m, side, interpolation=interpolation) for m in maps])
