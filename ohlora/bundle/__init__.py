"""A model bundle on disk: opened verified, used by role (docs/design.md, sections 5 and 9)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.files import file_sha256, generator_identity_of, locate, read_arrays, verified_file
from ohlora.bundle.gallery import GalleryEntry, read_gallery
from ohlora.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    DirectionsPart,
    GalleryPart,
    GeneratorPart,
    HairPart,
    ParsingPart,
    parse_manifest,
)
from ohlora.engines import Engine, arithmetic, open_engine
from ohlora.engines.selftest import load_probe
from ohlora.errors import BundleError, EngineError, InvalidInputError
from ohlora.latents.directions import network_from_arrays
from ohlora.latents.gradient_network import KEYS
from ohlora.latents.spaces import space_size

if TYPE_CHECKING:
    from ohlora.engines.batches import BatchEngine

__all__ = [
    "Bundle", "BundleManifest", "DirectionsPart", "GalleryEntry", "GalleryPart", "GeneratorPart", "HairPart",
    "ParsingPart", "file_sha256", "generator_identity_of",
]  # fmt: skip


# Of the probe's pixels, at reduced precision. The engines' own gate is made for grey levels, where an error of a few
# units is small; class ids are right or wrong.
CLASSES_DIFFERENT = 0.02

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor -> dtype, shape of a row


class Bundle:
    """A folder of networks and faces, verified when opened.

    Attributes: path (Path), name (str), manifest (BundleManifest), identity (sha256 of the manifest).
    """

    def __init__(self, path: Path, manifest: BundleManifest, identity: str) -> None:
        self.path, self.manifest, self.identity = path, manifest, identity
        self.name = manifest.name

    @classmethod
    def open(cls, path_or_name: str | os.PathLike[str]) -> Bundle:
        """Open a bundle folder, or by its plain name one that the package ships ('demo').

        Every listed file is checked: inside the folder, present, of its size and sha256.
        Raises BundleError naming the file and what to do.
        """
        path = locate(path_or_name)
        try:
            text = (path / MANIFEST_NAME).read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {path / MANIFEST_NAME}: {error.strerror or error}") from error
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
        names = {}
        if self.manifest.hair:
            names["hair"] = self.manifest.hair.file
        if self.manifest.parsing:
            names["parsing"] = self.manifest.parsing.file
        if self.manifest.generator:
            names["mapping"] = self.manifest.generator.mapping
            names["synthesis"] = self.manifest.generator.synthesis
            if self.manifest.generator.mapping_end:
                names["mapping_end"] = self.manifest.generator.mapping_end
        return {role: self.manifest.files[name].sha256 for role, name in names.items()}

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

    def _lacks(self, role: str, flag: str) -> Any:
        raise BundleError(
            f"bundle '{self.name}' has no {role}: build one with `ohlora bundle build {flag} ...` "
            "or choose another bundle"
        )

    def hair_engine(self, backend: str = "auto", precision: str = "auto", threads: int | None = None) -> Engine:
        """image uint8 [N, s, s, 3] RGB -> hair float32 [N, s, s] in [0, 1]; s = hair_part().input_size.

        precision: 'fp32', 'bf16', or 'auto' for what the part's preset was measured in (`engines.arithmetic`).

        Raises BundleError without a hair finder, EngineError when it cannot run here or fails its self-test.
        """
        part = self.hair_part()
        precision = arithmetic(precision, part.precision, backend)
        return self._engine(part.file, part.probe, "hair", self._hair_shapes(), backend, precision, threads)

    def _hair_shapes(self) -> Shapes:
        size = self.hair_part().input_size
        return {"image": ("uint8", (size, size, 3)), "hair": ("float32", (size, size))}

    def parsing_engine(self, backend: str = "auto", precision: str = "auto", threads: int | None = None) -> Engine:
        """image uint8 [N, s, s, 3] RGB -> parsing uint8 [N, s, s], indices into parsing_part().classes.

        Raises BundleError without a face parser, EngineError when it cannot run here or fails its self-test.
        """
        part = self.parsing_part()
        size = part.input_size
        shapes = {"image": ("uint8", (size, size, 3)), "parsing": ("uint8", (size, size))}
        precision = arithmetic(precision, "fp32", backend)
        engine = self._engine(part.file, part.probe, "parsing", shapes, backend, precision, threads)
        different = engine.selftest["probe"]["parsing"]["share"]
        if different > CLASSES_DIFFERENT:
            engine.close()
            raise EngineError(
                f"{part.file} gives {different:.1%} of the probe's pixels another class ({engine.backend}, "
                f"{engine.precision}): use precision fp32"
            )
        return engine

    def generator_engines(
        self, backend: str = "auto", precision: str = "auto", threads: int | None = None
    ) -> tuple[Engine, Engine]:
        """(mapping, synthesis): as `mapping_engine`, and wp float32 [N, layers, w] -> image uint8 [N, R, R, 3] RGB.

        `precision` is the synthesis network's, 'auto' what its preset was measured in; the mapping, a hundredth of the
        work, stays fp32.
        Raises BundleError without a generator, EngineError when it cannot run here or fails its self-test.
        """
        part = self.generator_part()
        precision = arithmetic(precision, part.precision, backend)
        mapping = self.mapping_engine(backend, threads)
        try:
            shapes = self._synthesis_shapes()
            return mapping, self._engine(part.synthesis, part.probe, "synthesis", shapes, backend, precision, threads)
        except Exception:
            mapping.close()
            raise

    def mapping_engine(self, backend: str = "auto", threads: int | None = None) -> Engine:
        """z [N, z] and label [N, L] (absent when L = 0) -> w [N, w] float32, for split mappings mapping_split1
        [N, w + split_size] too. Errors as `generator_engines`.
        """
        part = self.generator_part()
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {"z": ("float32", (part.z_size,))}
        if part.label_size:
            shapes["label"] = ("float32", (part.label_size,))
        shapes["w"] = ("float32", (part.w_size,))
        if part.split_size:
            shapes["mapping_split1"] = ("float32", (part.w_size + part.split_size,))
        return self._engine(part.mapping, part.probe, "mapping", shapes, backend, "fp32", threads)

    def _synthesis_shapes(self) -> Shapes:
        part = self.generator_part()
        return {
            "wp": ("float32", (part.num_layers, part.w_size)),
            "image": ("uint8", (part.resolution, part.resolution, 3)),
        }

    def device_engine(self, role: Literal["synthesis", "hair"], **options: Any) -> BatchEngine:
        """A network on a CUDA device; options of `engines.gpu.device.open_device_engine`. Shapes as of its CPU form.

        Raises BundleError without that network, EngineError when it cannot run there or fails its self-test.
        """
        from ohlora.engines.gpu.device import open_device_engine

        if role == "hair":
            hair = self.hair_part()
            file, probe, shapes = hair.file, hair.probe, self._hair_shapes()
        else:
            part = self.generator_part()
            file, probe, shapes = part.synthesis, part.probe, self._synthesis_shapes()
        engine = open_device_engine(self.file(file), probe=load_probe(self.file(probe), role), **options)
        self._require_shapes(engine, file, shapes)
        return engine

    def mapping_end_engine(self, backend: str = "auto", threads: int | None = None) -> Engine:
        """mapping_split1 float32 [N, w + split_size] -> w [N, w], mapping_split2 [N, 2 w]: the last layers of a split
        mapping. Only directions need it (`Directions.needs_mapping_end`), so it is opened by itself.

        Raises BundleError without one, EngineError when it cannot run here or fails its self-test.
        """
        part = self.generator_part()
        if part.mapping_end is None:
            raise BundleError(
                f"bundle '{self.name}' has no mapping_end network: its mapping has one branch, or it was built by an "
                "earlier version; build it again with `ohlora bundle build --generator ...`"
            )
        shapes = {
            "mapping_split1": ("float32", (part.w_size + part.split_size,)),
            "w": ("float32", (part.w_size,)),
            "mapping_split2": ("float32", (2 * part.w_size,)),
        }
        return self._engine(part.mapping_end, part.probe, "mapping_end", shapes, backend, "fp32", threads)

    def _engine(
        self,
        file: str,
        probe: str,
        network: str,
        shapes: Shapes,
        backend: str,
        precision: str,
        threads: int | None,
    ) -> Engine:
        engine = open_engine(
            self.file(file),
            backend=backend,
            precision=precision,
            threads=threads,
            probe=load_probe(self.file(probe), network),
        )
        self._require_shapes(engine, file, shapes)
        return engine

    def _require_shapes(self, engine: Engine | BatchEngine, file: str, shapes: Shapes) -> None:
        tensors = {t.name: (t.dtype, t.row_shape) for t in (*engine.spec.inputs, *engine.spec.outputs)}
        if tensors != dict(shapes):
            engine.close()
            raise BundleError(
                f"bundle '{self.name}': {file} has rows {tensors}, the manifest means {dict(shapes)}: "
                "the bundle was built wrongly, build it again"
            )

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
