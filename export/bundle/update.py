"""A bundle with other directions, faces or model card: networks are taken over byte for byte, nothing is exported."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ohlora.bundle import Bundle
from ohlora.bundle.gallery import read_gallery, write_gallery
from ohlora.bundle.manifest import GalleryPart
from ohlora.bundle.write import write_bundle
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.directions import add_directions, load_directions

CARD = "MODEL_CARD.md"


def update_bundle(
    bundle: str | Path,
    out: Path,
    *,
    directions: Path | None = None,
    space: str | None = None,
    gallery: Path | None = None,
    card: str | None = None,
    name: str | None = None,
    provenance: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write `bundle` to `out` with what is given replaced; what is None stays.

    Raises InvalidInputError when nothing is given, or directions or faces belong to another generator; BundleError when
    `out` is in the way. Then nothing is left at `out`.
    """
    if directions is None and gallery is None and card is None:
        raise InvalidInputError("nothing to update: give --directions, --gallery or --card")
    opened = Bundle.open(bundle)
    manifest, part = opened.manifest, opened.manifest.generator
    if part is None and (directions or gallery):
        raise InvalidInputError(f"bundle '{opened.name}' has no generator that directions and faces could belong to")
    found = None if directions is None else load_directions(directions, space)
    if found is not None and part is not None:
        found.require_generator(part, part.state_sha256, f"bundle '{opened.name}'")
    with tempfile.TemporaryDirectory(prefix="ohlora-bundle-") as temporary:
        staging = Path(temporary)
        for file in manifest.files:
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(opened.file(file), staging / file)
        directions_part, gallery_part = manifest.directions, manifest.gallery
        if found is not None and part is not None:
            if directions_part is not None:
                (staging / directions_part.file).unlink()
            directions_part = add_directions(staging, found, part)
        if part is not None and (gallery is not None or (found is not None and gallery_part is not None)):
            groups = None if directions_part is None else directions_part.groups
            old = None if gallery_part is None else staging / gallery_part.file
            # Faces that stay are looked at again: new directions may know other groups.
            entries = read_gallery(gallery or old or staging, part.z_size, part.label_size, groups)
            if not entries:
                raise InvalidInputError(f"the gallery {gallery} has no faces: give one with faces")
            if gallery is not None:
                if old is not None:
                    old.unlink()
                write_gallery(staging / "gallery.csv", entries)
                gallery_part = GalleryPart(file="gallery.csv", count=len(entries))
        if card is not None:
            (staging / CARD).write_text(card, encoding="utf-8")
        return write_bundle(
            out,
            staging=staging,
            name=name or opened.name,
            license=manifest.license,
            provenance=provenance or manifest.provenance,
            description=manifest.description,
            hair=manifest.hair,
            parsing=manifest.parsing,
            generator=part,
            directions=directions_part,
            gallery=gallery_part,
            overwrite=overwrite,
        )
