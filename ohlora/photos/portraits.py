"""Hair in generated portraits, whose place in the image is known: no face is looked for.

Up to 256 pixels the hair model's map is enlarged as documented. Larger portraits are dyed at full size: hair is found
at the model's own size, and its edges are refined on the image's, as in photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from ohlora.base.types import Rgb
from ohlora.bundle.manifest import Framing
from ohlora.engines import Engine
from ohlora.kernels.ombre import prepare_hair
from ohlora.photos.edges import Refinement, spread_map
from ohlora.photos.face_alignment import Floats, Frame, cut_out, whole_picture
from ohlora.photos.heads import HeadMask, PhotoHair
from ohlora.photos.segmentation import find_hair, image_side

DOCUMENTED_SIDE = 256  # pixels, of the largest portraits whose maps are enlarged without looking at the image
# Of 40 portraits of 512 pixels, the dye's cover agrees with a teacher's maps in 0.860 (intersection over union) on this
# grid and on one twice as fine, which takes twice the time, and in 0.854 without refinement.
REFINEMENT = Refinement(finest=2)


def is_documented(side: int, framing: Framing | None) -> bool:
    """Whether portraits of this side are dyed as documented: seen as they are, the map enlarged."""
    return side <= DOCUMENTED_SIDE and (framing is None or framing.neutral)


def portrait_hair(engine: Engine, images: Sequence[Rgb], framing: Framing | None = None) -> list[PhotoHair]:
    """The hair of each portrait.

    Args:
        engine: the hair model, as for `find_hair`.
        images: uint8 RGB [H,W,3], square where there is a framing.
        framing: what the hair model is shown of a portrait; None, and one that changes nothing: the portrait itself.

    Returns:
        For each the mask of its one head, and the fraction of what the map covers that is hair.
    """
    if framing is None or framing.neutral:
        framing = None
        frames = [whole_picture(*image.shape[:2]) for image in images]
        maps = find_hair(engine, images)
    else:
        frames = [framed(image, framing) for image in images]
        side = image_side(engine)
        views = [cut_out(image, frame, side, side) for image, frame in zip(images, frames, strict=True)]
        maps = list(engine(image=np.stack(views))["hair"]) if views else []
    with ThreadPoolExecutor(engine.threads) as pool:
        return list(pool.map(_placed, images, maps, frames, repeat(framing)))


def framed(image: Rgb, framing: Framing) -> Frame:
    """The part of a portrait's plane that the hair model is shown."""
    return whole_picture(*image.shape[:2]).grown(framing.scale, framing.down)


def _placed(image: Rgb, hair: Floats, frame: Frame, framing: Framing | None) -> PhotoHair:
    height, width = image.shape[:2]
    fraction, top, left = float(np.mean(hair >= 0.5)), 0, 0
    if not is_documented(max(height, width), framing):
        refinement = REFINEMENT if max(height, width) > DOCUMENTED_SIDE else None
        hair, (top, bottom, left, right) = spread_map(image, hair, np.ones_like(hair), frame, refinement)
        height, width = bottom - top, right - left
        if framing is not None:
            fraction = float(np.count_nonzero(hair >= 0.5)) / (image.shape[0] * image.shape[1])
    mask = prepare_hair(hair[None], (height, width), threads=1)
    return PhotoHair((HeadMask(top, left, mask),), {"hair_share": round(fraction, 4)})
