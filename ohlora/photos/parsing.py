"""Parse faces with the parsing student's engine, in pictures of any size and shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ohlora.engines import Engine
from ohlora.photos.segmentation import student_maps

Rgb = NDArray[np.uint8]


def parse_faces(engine: Engine, images: Sequence[Rgb]) -> list[NDArray[np.uint8]]:
    """Class ids of each picture, uint8 [h,w] with max(h,w) = 224 and the picture's aspect.

    engine: image uint8 [N,224,224,3] -> parsing uint8 [N,224,224] (`Bundle.parsing_engine`). Raises ImageError for
    extremely narrow pictures.
    """
    return student_maps(engine, images, "parsing")
