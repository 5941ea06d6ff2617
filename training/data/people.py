"""Group pictures by the person they show, so that no person is on both sides of a split.

Virtual people have no names. A generator draws one person with different expressions in the same framing, before the
same background and with the same hair, so a small colour thumbnail tells people apart well enough here.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

THUMBNAIL = 24
# Mean grey-level difference of thumbnails. On 388 reference faces of about 120 people, 26 with average linkage gave
# 159 groups: nearly all show one person or a few look-alikes (looked at); merging look-alikes costs nothing.
SAME_PERSON = 26.0
# Closer than this to a held-out picture: left out of training, whatever the clustering says.
TOO_CLOSE = 20.0


def thumbnails(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """uint8 RGB [H,W,3] each -> float32 [N, THUMBNAIL*THUMBNAIL*3]."""
    small = [cv2.resize(i, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).reshape(-1) for i in images]
    return np.stack(small).astype(np.float32)


def distances(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute grey-level difference of every pair, [N, N]."""
    return np.stack([np.abs(thumbs - row).mean(1) for row in thumbs])


def group_people(distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairwise distances [N,N] -> person number of each picture [N]."""
    if len(distance) < 2:  # which the clustering refuses
        return np.zeros(len(distance), np.int64)
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=SAME_PERSON, metric="precomputed", linkage="average"
    )
    return np.asarray(clustering.fit_predict(distance), np.int64)


def split_people(
    distance: NDArray[np.float32], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose `share` of the people to hold out. Returns indices (train, held_out, dropped).

    dropped: pictures of other groups that still look too much like a held-out one; used on neither side.
    """
    people = group_people(distance)
    names = np.unique(people)
    chosen = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    held = np.isin(people, chosen)
    close = ~held & (distance[:, held].min(1) < TOO_CLOSE)
    return np.flatnonzero(~held & ~close), np.flatnonzero(held), np.flatnonzero(close)
