"""The folder of a bundle: opened verified, its files checked when they are used, its parts by role."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NoReturn, TypeVar

from ohlora.base.reading import read_file
from ohlora.bundle.files import locate, verified_file
from ohlora.bundle.manifest import (
    MANIFEST_LIMIT,
    MANIFEST_NAME,
    BundleManifest,
    DirectionsPart,
    GalleryPart,
    GeneratorPart,
    HairPart,
    ParsingPart,
    parse_manifest,
)
from ohlora.errors import BundleError

Self = TypeVar("Self", bound="BundleFolder")


class BundleFolder:
    """Attributes: path (Path), name (str), manifest (BundleManifest), identity (sha256 of the manifest)."""

    def __init__(self, path: Path, manifest: BundleManifest, identity: str) -> None:
        self.path, self.manifest, self.identity = path, manifest, identity
        self.name = manifest.name

    @classmethod
    def open(cls: type[Self], path_or_name: str | os.PathLike[str]) -> Self:
        """Open a bundle folder, or by its plain name one that the package ships ('demo').

        Every listed file is checked: inside the folder, present, of its size and sha256.
        Raises BundleError naming the file and what to do.
        """
        path = locate(path_or_name)
        text = read_file(path / MANIFEST_NAME, "manifest", BundleError, limit=MANIFEST_LIMIT, inside=path)
        manifest, raw = parse_manifest(text, str(path / MANIFEST_NAME))
        canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
        bundle = cls(path, manifest, hashlib.sha256(canonical.encode()).hexdigest())
        for name in manifest.files:
            bundle.file(name)
        return bundle

    def file(self, name: str) -> Path:
        """Path of a listed file, verified against the manifest now.

        Raises BundleError when it is not listed, missing, changed, or a link that leads out of the bundle.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"bundle '{self.name}' lists no file {name!r}: only listed files are used")
        return verified_file(self.path, name, entry, f"bundle '{self.name}' is damaged, get it again")

    @property
    def generator_identity(self) -> str:
        """sha256 that names the generator: over the hashes of its networks and constants."""
        self.generator_part()
        return str(self.manifest.generator_identity)

    @property
    def engine_hashes(self) -> dict[str, str]:
        """sha256 of each network's ONNX file: hair, parsing, mapping, synthesis, mapping_end, as far as present."""
        hair, parsing, generator = self.manifest.hair, self.manifest.parsing, self.manifest.generator
        names = {"hair": hair and hair.file, "parsing": parsing and parsing.file}
        if generator:
            names |= {role: getattr(generator, role) for role in ("mapping", "synthesis", "mapping_end")}
        return {role: self.manifest.files[name].sha256 for role, name in names.items() if name}

    def hair_part(self) -> HairPart:
        """Raises BundleError when the bundle finds no hair."""
        return self.manifest.hair or self._lacks("hair finder", "--hair")

    def parsing_part(self) -> ParsingPart:
        """Raises BundleError when the bundle parses no faces."""
        return self.manifest.parsing or self._lacks("face parser", "--parsing")

    def generator_part(self) -> GeneratorPart:
        """Raises BundleError when the bundle makes no faces."""
        return self.manifest.generator or self._lacks("generator", "--generator")

    def directions_part(self) -> DirectionsPart:
        """Raises BundleError when the bundle has no expressions."""
        return self.manifest.directions or self._lacks("directions", "--directions")

    def gallery_part(self) -> GalleryPart:
        """Raises BundleError when the bundle has no chosen faces."""
        return self.manifest.gallery or self._lacks("gallery", "--gallery")

    def _lacks(self, role: str, flag: str) -> NoReturn:
        raise BundleError(
            f"bundle '{self.name}' has no {role}: build one with `ohlora bundle build {flag} ...` "
            "or choose another bundle"
        )
