"""A bundle with other students, directions, faces or model card: what is not replaced is taken over byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ohlora.base.types import Report
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import read_gallery, write_gallery
from ohlora.bundle.manifest import GalleryPart
from ohlora.bundle.write import BundleDraft, new_bundle
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.builder import CARD, GALLERY, part_lines
from ohlora.export.bundle.directions import add_directions, load_directions
from ohlora.export.bundle.students import add_student
from ohlora.export.graphs.student import Role


def update_bundle(
    bundle: str | Path,
    out: Path,
    *,
    hair: str | None = None,
    parsing: str | None = None,
    metrics: dict[str, Any] | None = None,
    parsing_metrics: dict[str, Any] | None = None,
    directions: Path | None = None,
    space: str | None = None,
    gallery: Path | None = None,
    card: str | None = None,
    name: str | None = None,
    provenance: str | None = None,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> Bundle:
    """Write `bundle` to `out` with what is given replaced; what is None stays.

    hair, parsing: students, as `build_bundle` takes them. metrics, parsing_metrics: their figures for the manifest.
    provenance None: as before, and which students came later. card None: as before, with a section of each of these.
    Raises InvalidInputError when nothing is given, directions belong to another generator or `out` is in the way,
    BundleError for faces of another generator, CheckpointError and EngineError for students; then `out` is as it was.
    """
    students: list[tuple[Role, str | None, dict[str, Any] | None, str]] = [
        ("hair", hair, metrics, "--metrics"),
        ("parsing", parsing, parsing_metrics, "--parsing-metrics"),
    ]
    for role, source, figures, option in students:
        if figures is not None and source is None:
            raise InvalidInputError(f"{option} are figures of a student: give --{role} too")
    if all(given is None for given in (hair, parsing, directions, gallery, card)):
        raise InvalidInputError("nothing to update: give --hair, --parsing, --directions, --gallery or --card")
    opened = Bundle.open(bundle)
    part = opened.manifest.generator
    if part is None and (directions or gallery):
        raise InvalidInputError(f"bundle '{opened.name}' has no generator that directions and faces could belong to")
    found = None if directions is None else load_directions(directions, space)
    if found is not None and part is not None:
        found.require_generator(part, part.state_sha256, f"bundle '{opened.name}'")
    with new_bundle(out, opened, overwrite=overwrite) as draft:
        draft.name, draft.provenance = name or draft.name, provenance or draft.provenance
        for role, source, figures, _ in students:
            if source is not None:
                _replace_student(draft, role, source, figures, report, says_so=provenance is None)
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


def _replace_student(
    draft: BundleDraft, role: Role, source: str, metrics: dict[str, Any] | None, report: Report, *, says_so: bool
) -> None:
    """says_so: whether the draft's provenance gets a note of it, as its card does."""
    former = getattr(draft, role)
    if former is not None:
        for file in (former.file, former.probe):
            (draft.folder / file).unlink()
    add_student(draft, role, source, metrics, report)
    if says_so:
        draft.provenance += f"; {role} since `ohlora bundle update`: {Path(source).name}"
    with (draft.folder / CARD).open("a", encoding="utf-8") as card:
        card.write("\n".join(["", "", *part_lines(f"{role}, in place of what is said above", getattr(draft, role))]))
