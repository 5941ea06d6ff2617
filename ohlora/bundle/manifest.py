"""What `bundle.json` may say: the manifest as typed, strict models. Knows names, never touches the files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ohlora.base.installation import upgrade_command
from ohlora.base.reading import MIB, parse_json
from ohlora.base.text import shown
from ohlora.base.types import HairInput
from ohlora.errors import BundleError
from ohlora.latents.spaces import SPLIT_SPACES, Space

FORMAT = 1
MANIFEST_NAME = "bundle.json"
MANIFEST_LIMIT = 16 * MIB
# Nothing here can carry code: weights travel as ONNX or safetensors, never as pickles.
ALLOWED_SUFFIXES = (
    ".onnx", ".safetensors", ".csv", ".json", ".md", ".txt", ".png", ".jpg", ".webp", "",
)  # fmt: skip
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _relative_name(name: str) -> str:
    # The same rule on every system: no '..', no drive letter, no backslash, nothing hidden.
    if not name or not all(_PART.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"file name {name!r} must stay inside the bundle: letters, digits, '.', '_', '-', '/'")
    if name == MANIFEST_NAME:
        raise ValueError(f"{MANIFEST_NAME} cannot list itself")
    if PurePosixPath(name).suffix.lower() not in ALLOWED_SUFFIXES:
        raise ValueError(f"file {name!r} is of a kind no bundle holds ({', '.join(ALLOWED_SUFFIXES[:-1])} may be)")
    return name


RelativeName = Annotated[str, AfterValidator(_relative_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# What a network of this kind can have: work and memory grow with these numbers before any network is opened.
Size = Annotated[int, Field(ge=1, le=1 << 16)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
# "f32" was the spelling of earlier bundles.
Precision = Annotated[Literal["fp32", "bf16"], BeforeValidator(lambda value: "fp32" if value == "f32" else value)]


class _Strict(BaseModel):
    """LATER: fields that came after the first bundles; earlier versions refuse them, so they are written when used."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        unused = [name for name in self.LATER if getattr(self, name) == type(self).model_fields[name].default]
        return {name: value for name, value in fields.items() if name not in unused}


class FileEntry(_Strict):
    """One file of the bundle."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class _ReaderPart(_Strict):
    file: RelativeName
    probe: RelativeName
    input_size: Size = 224


class HairPart(_ReaderPart):
    """Hair finder: image uint8 [N, s, s, 3] -> hair float32 [N, s, s] in [0, 1], s = input_size.

    precision: arithmetic that its preset was measured in.
    input: what it is fed: images resized to s x s, as it was trained; or "documented", 256x256 where s is 224
    (`ohlora.bundle.documented_hair`).
    """

    LATER = ("precision", "input")

    architecture: str
    precision: Precision = "fp32"
    input: HairInput = "resized"
    parity: dict[str, JsonValue] = {}
    metrics: dict[str, JsonValue] = {}


class ParsingPart(_ReaderPart):
    """Face parser: image uint8 [N, s, s, 3] -> parsing uint8 [N, s, s], indices into `classes`, s = input_size."""

    # Model cards list the fields in this order.
    classes: Annotated[list[str], Field(min_length=2, max_length=256)]
    architecture: str
    parity: dict[str, JsonValue] = {}
    metrics: dict[str, JsonValue] = {}


class Framing(_Strict):
    """What the hair model is shown of a portrait whose crop is not the one that the model was trained with.

    scale: side of the shown square in sides of the portrait; beyond the border it is mirrored. down: by how much of its
    own side the square's center lies below the portrait's.
    """

    scale: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    down: Annotated[float, Field(ge=-1, le=1)] = 0.0

    @property
    def neutral(self) -> bool:
        """Whether it shows the portrait as it is."""
        return self.scale == 1 and self.down == 0


class GeneratorPart(_Strict):
    """Face generator in two networks; `probe` serves both, `constants` holds 'w_avg' float32 [w_size].

    state_sha256: hash of the trained weights the networks were made of; directions found in training name it.
    mapping_end, split_size: of a mapping network that ends in two branches, its last layers once more as a network of
    their own, for directions that edit what they read, and the width of the second branch.
    precision: arithmetic that the preset of the synthesis network was measured in.
    psi: truncation of jobs that do not ask for another, on all layers; 1: none.
    framing: of what the hair model is shown; None: the portrait as it is.
    """

    LATER = ("mapping_end", "split_size", "precision", "psi", "framing")

    kind: str
    mapping: RelativeName
    synthesis: RelativeName
    probe: RelativeName
    constants: RelativeName
    z_size: Size = 512
    label_size: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    w_size: Size = 512
    num_layers: Size = 14
    resolution: Size = 256
    state_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    mapping_end: RelativeName | None = None
    split_size: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    precision: Precision = "fp32"
    psi: Annotated[float, Field(ge=0, le=1)] = 1.0
    framing: Framing | None = None
    parity: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _whole_split(self) -> GeneratorPart:
        if (self.mapping_end is None) != (self.split_size == 0):
            raise ValueError(
                f"mapping_end {self.mapping_end!r} and split_size {self.split_size} go together: give both or neither"
            )
        return self

    def files(self) -> tuple[str, ...]:
        """Names of the files that decide what the generator does; the identity is that of their hashes."""
        return (self.mapping, self.synthesis, self.constants, *([self.mapping_end] if self.mapping_end else []))


class DirectionsPart(_Strict):
    """Latent directions: safetensors with one [len(groups), D] array per property, D numbers of
    `space`; or in its place the six arrays of a network, whose gradient is the face's direction.

    generator_sha256: `BundleManifest.latent_identity`, or of earlier bundles `generator_identity`.
    networks: properties that have a network -> its scale.
    """

    LATER = ("networks",)

    file: RelativeName
    generator_sha256: Sha256
    groups: Annotated[list[str], Field(min_length=1)]
    properties: Annotated[list[str], Field(min_length=1)]
    space: Space = "w"
    networks: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    source: str = ""

    @model_validator(mode="after")
    def _known_networks(self) -> DirectionsPart:
        unknown = sorted(self.networks.keys() - set(self.properties))
        if unknown:
            raise ValueError(f"networks name {unknown[0]!r}, which 'properties' does not list")
        return self


class GalleryPart(_Strict):
    """Chosen faces: CSV with columns name, group, v0, v1, ... (z, then label)."""

    file: RelativeName
    count: Count


class BundleManifest(_Strict):
    """All of `bundle.json`. Every file a part uses is listed in `files` with its hash."""

    format: int = FORMAT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    description: str = ""
    license: str
    provenance: str
    ohlora_version: str
    files: dict[RelativeName, FileEntry]
    hair: HairPart | None = None
    parsing: ParsingPart | None = None
    generator: GeneratorPart | None = None
    directions: DirectionsPart | None = None
    gallery: GalleryPart | None = None

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        if not self.parts():
            raise ValueError(f"the bundle holds nothing: it needs one of {', '.join(_FILE_FIELDS)}")
        for role, part in self.parts().items():
            for key in _FILE_FIELDS[role]:
                if getattr(part, key) not in (None, *self.files):
                    raise ValueError(f"{role}.{key} uses {getattr(part, key)!r}, which 'files' does not list")
        directions = self.directions
        if directions is None:
            return self
        if self.generator is None:
            raise ValueError("directions are given without the generator they belong to")
        if directions.space in SPLIT_SPACES and not self.generator.split_size:
            raise ValueError(f"directions in {directions.space} belong to a generator with mapping_end")
        if directions.generator_sha256 not in (self.generator_identity, self.latent_identity):
            raise ValueError(
                f"foreign directions: they were found for generator {directions.generator_sha256[:12]}, here is "
                f"{str(self.latent_identity)[:12]}; find directions for this generator or take the bundle they came "
                "from"
            )
        return self

    def parts(self) -> dict[str, _Strict]:
        """The parts that are present, by role."""
        return {role: getattr(self, role) for role in _FILE_FIELDS if getattr(self, role) is not None}

    @property
    def generator_identity(self) -> str | None:
        """Hash of what the generator draws; None without a generator."""
        names = self.generator.files() if self.generator else ()
        return generator_identity(*(self.files[name].sha256 for name in names)) if names else None

    @property
    def latent_identity(self) -> str | None:
        """Hash of the latent space that directions are bound to (`latent_identity`); None without a generator."""
        return latent_identity(self.generator, lambda name: self.files[name].sha256) if self.generator else None

    def to_json(self) -> bytes:
        """Deterministic bytes of `bundle.json`."""
        content = {key: value for key, value in self.model_dump().items() if value is not None}
        return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


_FILE_FIELDS = {
    "hair": ("file", "probe"),
    "parsing": ("file", "probe"),
    "generator": ("mapping", "synthesis", "probe", "constants", "mapping_end"),
    "directions": ("file",),
    "gallery": ("file",),
}


def generator_identity(*sha256s: str) -> str:
    """sha256 over the hex digests of `GeneratorPart.files`, in their order."""
    return hashlib.sha256("".join(sha256s).encode()).hexdigest()


def latent_identity(part: GeneratorPart, sha256_of: Callable[[str], str]) -> str:
    """What a direction is valid for: one mapping network and one set of trained weights, whatever the size and
    precision of the images. For a generator that does not say which weights it was made of, `generator_identity`.

    sha256_of: of a file by its name in the bundle.
    """
    names = [name for name in part.files() if not part.state_sha256 or name != part.synthesis]
    return generator_identity(*([part.state_sha256] if part.state_sha256 else []), *map(sha256_of, names))


def parse_manifest(text: bytes, where: str) -> tuple[BundleManifest, dict[str, Any]]:
    """The manifest and the plain JSON it came from. Raises BundleError naming `where`."""
    raw = parse_json(text, where, BundleError, "the bundle is damaged, get it again")
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int):
        raise BundleError(f"{where} is no bundle manifest: it has no whole number 'format'")
    if raw["format"] > FORMAT:
        raise BundleError(
            f"{where} was made by a newer ohlora (format {shown(raw['format'], 20)}, this one reads up to {FORMAT}): "
            + upgrade_command()
        )
    if raw["format"] < 1:
        raise BundleError(f"{where} has format {shown(raw['format'], 20)}, which never existed: get the bundle again")
    unknown = sorted(set(raw) - set(BundleManifest.model_fields))
    if unknown:
        raise BundleError(f"{where} has unknown section {shown(repr(unknown[0]))}: remove it or upgrade ohlora")
    try:
        return BundleManifest.model_validate(raw), raw
    except ValidationError as error:
        raise BundleError(f"{where}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """One line from pydantic's report: where the first defect is and what it is."""
    first = error.errors()[0]
    place = shown(".".join(str(step) for step in first["loc"] if step != "[key]"), 160)
    message = shown(first["msg"].removeprefix("Value error, "), 300)
    return f"{place}: {message}" if place else message
