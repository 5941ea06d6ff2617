"""The photographic bundles by name. A further size is one entry, and a graph beside this file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhotoBundle:
    """One that can be installed. exact: what its images are of the network's own, for the card."""

    name: str
    size: int
    exact: str


PHOTO_BUNDLES = {
    entry.name: entry
    for entry in (
        PhotoBundle(
            "photo", 512, "The image is the exact 2x2 mean of the network's own 1024 pixels, its lowest Haar band."
        ),
        PhotoBundle(
            "photo-256", 256, "The image is the exact area mean of the network's own 1024 pixels, before clipping."
        ),
        PhotoBundle("photo-1024", 1024, "The image is the network's own."),
    )
}
