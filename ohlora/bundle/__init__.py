"""A model bundle on disk: opened verified, used by role (docs/design.md, sections 5 and 9)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.engines import BundleEngines
from ohlora.bundle.files import file_sha256, generator_identity_of, read_arrays
from ohlora.bundle.gallery import GalleryEntry, read_gallery
from ohlora.bundle.manifest import BundleManifest, DirectionsPart, GalleryPart, GeneratorPart, HairPart, ParsingPart
from ohlora.errors import BundleError, InvalidInputError
from ohlora.latents.directions import Directions, directions_from_arrays, network_from_arrays
from ohlora.latents.gradient_network import KEYS
from ohlora.latents.spaces import space_size

__all__ = [
    "Bundle", "BundleManifest", "DirectionsPart", "GalleryEntry", "GalleryPart", "GeneratorPart", "HairPart",
    "ParsingPart", "file_sha256", "generator_identity_of",
]  # fmt: skip


class Bundle(BundleEngines):
    """A folder of networks and faces, verified when opened.

    Attributes: path (Path), name (str), manifest (BundleManifest), identity (sha256 of the manifest).
    """

    def w_avg(self) -> NDArray[np.float32]:
        """Mean latent, float32 [w_size]; what truncation pulls towards."""
        part = self.generator_part()
        return read_arrays(self.file(part.constants), {"w_avg": (part.w_size,)})["w_avg"].astype(np.float32)

    def directions(self) -> dict[str, Any]:
        """{'groups': list of G names, 'eyes': float [G, D], ...}: one array per property, as stored.

        D: numbers of the part's space. A property with a network has its six arrays, 'eyes.fc1.0.weight' ...
        Raises BundleError for arrays that do not fit.
        """
        part = self.directions_part()
        size = space_size(part.space, self.generator_part(), f"bundle '{self.name}'")
        shapes: dict[str, tuple[int | None, ...]] = {
            name: (len(part.groups), size) for name in part.properties if name not in part.networks
        }
        for name in part.networks:
            shapes |= {f"{name}.{key}": (None, None) if key.endswith("weight") else (None,) for key in KEYS}
            shapes[f"{name}.fc1.0.weight"] = (None, size)
        arrays = read_arrays(self.file(part.file), shapes)
        for name, scale in part.networks.items():
            try:
                network_from_arrays(arrays, name, scale)
            except InvalidInputError as error:
                raise BundleError(f"{self.path / part.file}: {name}: {error}; build the bundle again") from error
        return {"groups": list(part.groups), **arrays}

    def direction_set(self) -> Directions | None:
        """The same, ready to use; None for a bundle without."""
        part = self.manifest.directions
        if part is None:
            return None
        owner = f"bundle '{self.name}'"
        return directions_from_arrays(self.directions(), part.groups, owner, space=part.space, networks=part.networks)

    def gallery(self) -> list[GalleryEntry]:
        """The chosen faces as (name, group or None, z float32 [z_size], label float32 [label_size]).

        Raises BundleError naming the line of the CSV that is wrong.
        """
        part, generator = self.gallery_part(), self.generator_part()
        groups = self.manifest.directions.groups if self.manifest.directions else None
        entries = read_gallery(self.file(part.file), generator.z_size, generator.label_size, groups)
        if len(entries) != part.count:
            raise BundleError(
                f"{self.path / part.file} has {len(entries)} faces, the manifest says {part.count}: build it again"
            )
        return entries
