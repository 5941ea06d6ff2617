"""A bundle with other directions, faces or model card: networks are taken over byte for byte, nothing is exported."""

from __future__ import annotations

from pathlib import Path

from ohlora.bundle import Bundle
from ohlora.bundle.gallery import read_gallery, write_gallery
from ohlora.bundle.manifest import GalleryPart
from ohlora.bundle.write import new_bundle
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.builder import CARD, GALLERY
from ohlora.export.bundle.directions import add_directions, load_directions


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

    Raises InvalidInputError when nothing is given, directions belong to another generator or `out` is in the way,
    BundleError for faces of another generator; then `out` is as it was.
    """
    if directions is None and gallery is None and card is None:
        raise InvalidInputError("nothing to update: give --directions, --gallery or --card")
    opened = Bundle.open(bundle)
    part = opened.manifest.generator
    if part is None and (directions or gallery):
        raise InvalidInputError(f"bundle '{opened.name}' has no generator that directions and faces could belong to")
    found = None if directions is None else load_directions(directions, space)
    if found is not None and part is not None:
        found.require_generator(part, part.state_sha256, f"bundle '{opened.name}'")
    with new_bundle(out, opened, overwrite=overwrite) as draft:
        draft.name, draft.provenance = name or draft.name, provenance or draft.provenance
        if found is not None and part is not None:
            if draft.directions is not None:
                (draft.folder / draft.directions.file).unlink()
            draft.directions = add_directions(draft.folder, found, part)
        if part is not None and (gallery is not None or (found is not None and draft.gallery is not None)):
            groups = None if draft.directions is None else draft.directions.groups
            old = None if draft.gallery is None else draft.folder / draft.gallery.file
            # Faces that stay are looked at again: new directions may know other groups.
            entries = read_gallery(gallery or old or draft.folder, part.z_size, part.label_size, groups)
            if not entries:
                raise InvalidInputError(f"the gallery {gallery} has no faces: give one with faces")
            if gallery is not None:
                if old is not None:
                    old.unlink()
                write_gallery(draft.folder / GALLERY, entries)
                draft.gallery = GalleryPart(file=GALLERY, count=len(entries))
        if card is not None:
            (draft.folder / CARD).write_text(card, encoding="utf-8")
    return Bundle.open(out)
