"""Writing a bundle: built and verified beside its place, then put into it (docs/design.md, sections 5 and 9)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import ValidationError

from ohlora.base.atomic import install_folder
from ohlora.base.reading import read_file
from ohlora.base.version import __version__
from ohlora.bundle import Bundle
from ohlora.bundle.files import file_sha256
from ohlora.bundle.manifest import (
    MANIFEST_LIMIT,
    MANIFEST_NAME,
    BundleManifest,
    DirectionsPart,
    FileEntry,
    GalleryPart,
    GeneratorPart,
    HairPart,
    ParsingPart,
    explain,
    parse_manifest,
)
from ohlora.errors import BundleError


@dataclass
class BundleDraft:
    """A bundle in the making. folder: all its files, under their names in the bundle; the parts say what is what."""

    folder: Path
    name: str = ""
    license: str = "unknown"
    provenance: str = ""
    description: str = ""
    hair: HairPart | None = None
    parsing: ParsingPart | None = None
    generator: GeneratorPart | None = None
    directions: DirectionsPart | None = None
    gallery: GalleryPart | None = None

    def take(self, source: Bundle, *names: str) -> None:
        """Copy listed files of another bundle."""
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.file(name), self.folder / name)


@contextmanager
def new_bundle(folder: Path | str, start: Bundle | None = None, *, overwrite: bool = False) -> Iterator[BundleDraft]:
    """Yield a draft, empty or a copy of `start`; it becomes the bundle `folder` when the block succeeds.

    Every file of the draft's folder is listed. Same input, same bytes. overwrite: replace the bundle that is there.
    Raises BundleError when files and parts do not make a valid bundle, and the errors of `install_folder`.
    """
    with install_folder(folder, what="a bundle", known=_is_bundle, overwrite=overwrite) as building:
        draft = BundleDraft(building)
        if start is not None:
            draft.take(start, *start.manifest.files)
            vars(draft).update((name, getattr(start.manifest, name)) for name in _SAID)
        yield draft
        _seal(draft)


_SAID = tuple(field.name for field in fields(BundleDraft) if field.name != "folder")


def _is_bundle(folder: Path) -> bool:
    try:
        manifest = folder / MANIFEST_NAME
        parse_manifest(read_file(manifest, "manifest", BundleError, limit=MANIFEST_LIMIT), str(manifest))
    except BundleError:
        return False
    return True


def _seal(draft: BundleDraft) -> None:
    """Write the manifest, and verify what is there as a reader would."""
    files = {}
    for path in sorted(draft.folder.rglob("*")):
        if path.is_symlink():
            raise BundleError(f"{path} is a link: put the file itself into the bundle")
        if path.is_file():
            relative = path.relative_to(draft.folder).as_posix()
            files[relative] = FileEntry(sha256=file_sha256(path), size=path.stat().st_size)
    said = {name: getattr(draft, name) for name in _SAID}
    try:
        manifest = BundleManifest(ohlora_version=__version__, files=files, **said)
    except ValidationError as error:
        raise BundleError(f"bundle '{draft.name}' cannot be built: {explain(error)}") from error
    (draft.folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    bundle = Bundle.open(draft.folder)
    if manifest.generator:
        bundle.w_avg()
    if manifest.directions:
        bundle.directions()
    if manifest.gallery:
        bundle.gallery()
