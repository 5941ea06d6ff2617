"""The photographic bundles by name. A further size is one entry, and a graph beside this file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhotoBundle:
    """One that can be installed. exact: what its images are of the network's own, for the card.

    bf16_db: how near images in bf16 come to those in fp32 (PSNR of the pixels, mean of 4 to 8 faces), where that is
    good enough to be the bundle's own precision.
    """

    name: str
    size: int
    exact: str
    bf16_db: float | None = None


PHOTO_BUNDLES = {
    entry.name: entry
    for entry in (
        PhotoBundle(
            "photo",
            512,
            "The image is the exact 2x2 mean of the network's own 1024 pixels, its lowest Haar band.",
            bf16_db=48.5,
        ),
        PhotoBundle(
            "photo-256",
            256,
            "The image is the exact area mean of the network's own 1024 pixels, before clipping.",
            bf16_db=49.4,
        ),
        PhotoBundle("photo-1024", 1024, "The image is the network's own.", bf16_db=48.0),
    )
}
