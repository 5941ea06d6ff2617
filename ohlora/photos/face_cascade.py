"""Face detection in three stages (MTCNN, Zhang et al. 2016; docs/spec/segmentation.md, section 2), in NumPy.

The networks are handed in, so that the same cascade runs on compiled networks (`face_detector`) and on PyTorch's.

    proposal   every 12x12 window of a picture pyramid: is there a face, and where exactly
    refinement each proposal at 24x24 again
    output     what is left at 48x48, with five landmarks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb

Floats = NDArray[np.float32]

MIN_FACE = 20
FACTOR = 0.709
THRESHOLDS = (0.6, 0.7, 0.7)
CELL, STRIDE = 12, 2  # a proposal's window, and how far windows lie apart, in a level's pixels
REFINE_SIZE, OUTPUT_SIZE = 24, 48
# Crops go through a network this many at a time: a busy picture has thousands, which would not fit at once.
CROPS_PER_RUN = 256


@dataclass(frozen=True)
class Detections:
    """Faces of one picture, largest box first.

    boxes: float32 [N,4], x1 y1 x2 y2 in pixels; may reach outside the picture. probabilities: float32 [N].
    landmarks: float32 [N,5,2], x y of image-left eye, image-right eye, nose, image-left and image-right mouth corner.
    """

    boxes: Floats
    probabilities: Floats
    landmarks: Floats

    def __len__(self) -> int:
        return len(self.boxes)

    def pick(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        return Detections(self.boxes[index], self.probabilities[index], self.landmarks[index])

    def scaled(self, x: float, y: float) -> Detections:
        """The same faces in a picture that is x times as wide and y times as high."""
        pair = np.array([x, y], np.float32)
        return Detections(self.boxes * np.tile(pair, 2), self.probabilities, self.landmarks * pair)


class Networks(Protocol):
    """Inputs: float32 [N,h,w,3] RGB in 0..255 (means of pixels). Outputs float32."""

    def proposal(self, level: Floats) -> tuple[Floats, Floats]:
        """level [1,h,w,3] -> face probability [r,c] and box regression [r,c,4] of every window."""
        ...

    def refinement(self, crops: Floats) -> tuple[Floats, Floats]:
        """crops [N,24,24,3] -> face probability [N], box regression [N,4]."""
        ...

    def output(self, crops: Floats) -> tuple[Floats, Floats, Floats]:
        """crops [N,48,48,3] -> face probability [N], box regression [N,4], landmarks [N,10] (five x, then five y)."""
        ...


class AreaSampler:
    """Resizes any part of a picture by area averaging, at a cost that depends on the result's size only.

    Bins are those of adaptive average pooling: floor(i n / m) to ceil((i + 1) n / m), so they overlap by up to a pixel.
    """

    def __init__(self, image: Rgb) -> None:
        self.height, self.width = image.shape[:2]
        # Sums wrap around at 2^32; differences of sums are right all the same while a bin holds below 2^24 pixels.
        self._sums = cv2.integral(np.ascontiguousarray(image), sdepth=cv2.CV_32S).view(np.uint32)

    def sample(self, y1: int, y2: int, x1: int, x2: int, height: int, width: int) -> Floats:
        """Rows y1 .. y2-1 and columns x1 .. x2-1 as float32 [height, width, 3], 0..255."""
        top, bottom = _bins(y1, y2, height)
        left, right = _bins(x1, x2, width)
        rows = self._sums[bottom] - self._sums[top]
        totals = rows[:, right] - rows[:, left]
        areas = np.multiply.outer(bottom - top, right - left).astype(np.float32)
        means: Floats = totals.astype(np.float32) / areas[..., None]
        return means


def _bins(first: int, end: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    length, steps = end - first, np.arange(count + 1, dtype=np.int64) * (end - first)
    return first + steps[:-1] // count, first + np.minimum(-(-steps[1:] // count), length)


def detect(
    image: Rgb,
    networks: Networks,
    *,
    min_face: float = MIN_FACE,
    thresholds: tuple[float, float, float] = THRESHOLDS,
    factor: float = FACTOR,
) -> Detections:
    """All faces of at least `min_face` pixels in uint8 RGB [H,W,3]; empty when there is none."""
    sampler = AreaSampler(image)
    boxes = _propose(sampler, networks, min_face, thresholds[0], factor)
    boxes = refine(sampler, networks, boxes, thresholds[1])
    return finish(sampler, networks, boxes, thresholds[2])


def scales(height: int, width: int, min_face: float, factor: float = FACTOR) -> Iterator[float]:
    """Pyramid levels: from the one where the smallest face fills a window to the one that is a single window."""
    scale = CELL / min_face
    side = min(height, width) * scale
    while side >= CELL:
        yield scale
        scale *= factor
        side *= factor


def _propose(sampler: AreaSampler, networks: Networks, min_face: float, threshold: float, factor: float) -> Floats:
    """Square candidate boxes float32 [N,4]."""
    found: list[Floats] = []
    for scale in scales(sampler.height, sampler.width, min_face, factor):
        size = int(sampler.height * scale + 1), int(sampler.width * scale + 1)
        level = sampler.sample(0, sampler.height, 0, sampler.width, *size)
        scores, shifts = networks.proposal(level[None])
        rows, columns = np.nonzero(scores >= np.float32(threshold))
        corner = np.stack([columns, rows], 1).astype(np.float32) * STRIDE
        # Single precision on purpose: where a quotient falls on a whole number, its rounding decides the pixel.
        start = np.floor((corner + 1) / np.float32(scale))
        end = np.floor((corner + CELL) / np.float32(scale))
        windows = np.concatenate([start, end, scores[rows, columns, None], shifts[rows, columns]], 1)
        found.append(windows[suppress(windows[:, :4], windows[:, 4], 0.5)])
    if not found:
        return np.zeros((0, 4), np.float32)
    windows = np.concatenate(found)
    windows = windows[suppress(windows[:, :4], windows[:, 4], 0.7)]
    return square(_shifted(windows[:, :4], windows[:, 5:], 0))


def refine(sampler: AreaSampler, networks: Networks, boxes: Floats, threshold: float) -> Floats:
    """Candidates through the second network: square boxes float32 [M,4] of those it agrees with."""
    boxes, crops = _crops(sampler, boxes, REFINE_SIZE)
    if not len(boxes):
        return boxes
    boxes, scores, shifts = _judged(networks.refinement, boxes, crops, threshold)
    kept = suppress(boxes, scores, 0.7)
    return square(_shifted(boxes[kept], shifts[kept], 1))


def finish(sampler: AreaSampler, networks: Networks, boxes: Floats, threshold: float) -> Detections:
    """Square candidate boxes through the third network."""
    boxes, crops = _crops(sampler, boxes, OUTPUT_SIZE)
    if not len(boxes):
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
    boxes, scores, shifts, points = _judged(networks.output, boxes, crops, threshold)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2] - 1
    boxes = _shifted(boxes, shifts, 1)
    found = Detections(boxes, scores, landmarks).pick(suppress(boxes, scores, 0.7, of_smaller=True))
    area = (found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])
    return found.pick(np.argsort(-area, kind="stable"))


def _judged(
    network: Callable[[Floats], Sequence[Floats]], boxes: Floats, crops: Floats, threshold: float
) -> tuple[Floats, ...]:
    """Boxes and a network's outputs of their crops, scores first, where these are above the threshold."""
    runs = [network(crops[start : start + CROPS_PER_RUN]) for start in range(0, len(crops), CROPS_PER_RUN)]
    values = [boxes, *(np.concatenate(parts) for parts in zip(*runs, strict=True))]
    good = values[1] > np.float32(threshold)
    return tuple(value[good] for value in values)


def _crops(sampler: AreaSampler, boxes: Floats, size: int) -> tuple[Floats, Floats]:
    """Boxes that show any of the picture, and their crops float32 [N,size,size,3].

    The reference leaves an empty crop out but keeps its box, and scores go to wrong boxes from there on.
    """
    whole = boxes.astype(np.int64)  # truncates towards zero
    x1, y1 = np.maximum(whole[:, 0], 1) - 1, np.maximum(whole[:, 1], 1) - 1
    x2, y2 = np.minimum(whole[:, 2], sampler.width), np.minimum(whole[:, 3], sampler.height)
    inside = (x2 > x1) & (y2 > y1)
    edges = np.stack([y1, y2, x1, x2], 1)[inside].tolist()
    crops = [sampler.sample(top, bottom, left, right, size, size) for top, bottom, left, right in edges]
    return boxes[inside], np.stack(crops) if crops else np.zeros((0, size, size, 3), np.float32)


def _shifted(boxes: Floats, shifts: Floats, extra: int) -> Floats:
    """Box regression: each edge moves by a share of the side. extra: 1 where sides count both end pixels."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    moved: Floats = boxes + shifts * np.tile(sides, 2)
    return moved


def square(boxes: Floats) -> Floats:
    """The square around each box with the same centre."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(1, keepdims=True)
    corner = boxes[:, :2] + sides * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([corner, corner + longest], 1)


def suppress(boxes: Floats, scores: Floats, limit: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the boxes kept, best first.

    A box goes when its overlap with a better one is above `limit`: intersection over union, or with `of_smaller`
    over the smaller area, sides counted with both end pixels.
    """
    extra = np.float32(1 if of_smaller else 0)
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        start = np.maximum(boxes[best, :2], boxes[rest, :2])
        end = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.maximum(end - start + extra, 0).prod(1)
        against = np.minimum(areas[best], areas[rest]) if of_smaller else areas[best] + areas[rest] - common
        # Not a division: two empty boxes have no union.
        order = rest[common <= np.float32(limit) * against]
    return np.array(kept, dtype=np.intp)
