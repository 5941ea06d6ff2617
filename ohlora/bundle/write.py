"""Writing a bundle: built and verified beside its place, then put into it (docs/design.md, sections 5 and 9)."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from ohlora.base.atomic import install_folder
from ohlora.base.version import __version__
from ohlora.bundle import Bundle
from ohlora.bundle.files import file_sha256
from ohlora.bundle.manifest import (
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


def write_bundle(
    folder: Path | str,
    *,
    staging: Path | str,
    name: str,
    license: str,
    provenance: str,
    description: str = "",
    hair: HairPart | None = None,
    parsing: ParsingPart | None = None,
    generator: GeneratorPart | None = None,
    directions: DirectionsPart | None = None,
    gallery: GalleryPart | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Make the bundle `folder` of the files in `staging`, whose paths there are their names in the bundle.

    Every file of `staging` is listed; the parts say what is what. Same input, same bytes.
    overwrite: replace the bundle that is there; see `install_folder`, and for its errors.
    Raises BundleError when files and parts do not make a valid bundle.
    """
    staging = Path(staging).resolve()
    with install_folder(folder, what="a bundle", known=_is_bundle, overwrite=overwrite) as building:
        files = {relative: _entry(path) for relative, path in _staged(staging)}
        try:
            manifest = BundleManifest(
                name=name,
                description=description,
                license=license,
                provenance=provenance,
                ohlora_version=__version__,
                files=files,
                hair=hair,
                parsing=parsing,
                generator=generator,
                directions=directions,
                gallery=gallery,
            )
        except ValidationError as error:
            raise BundleError(f"bundle '{name}' cannot be built: {explain(error)}") from error
        _verify_contents(Bundle(staging, manifest, identity=""))
        for relative in files:
            target = building / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(staging / relative, target)
        (building / MANIFEST_NAME).write_bytes(manifest.to_json())
        Bundle.open(building)  # what was copied is what was hashed
    return Bundle.open(folder)


def _is_bundle(folder: Path) -> bool:
    try:
        parse_manifest((folder / MANIFEST_NAME).read_bytes(), str(folder / MANIFEST_NAME))
    except (OSError, BundleError):
        return False
    return True


def _staged(staging: Path) -> list[tuple[str, Path]]:
    if not staging.is_dir():
        raise BundleError(f"there is no folder {staging} to build a bundle from")
    found = []
    for path in sorted(staging.rglob("*")):
        if path.is_symlink():
            raise BundleError(f"{path} is a link: put the file itself into the bundle")
        relative = path.relative_to(staging).as_posix()
        if path.is_file() and relative != MANIFEST_NAME:
            found.append((relative, path))
    return found


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_sha256(path), size=path.stat().st_size)


def _verify_contents(bundle: Bundle) -> None:
    if bundle.manifest.generator:
        bundle.w_avg()
    if bundle.manifest.directions:
        bundle.directions()
    if bundle.manifest.gallery:
        bundle.gallery()
