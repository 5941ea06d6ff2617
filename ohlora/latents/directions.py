"""Latent directions: start + eyes * v_eyes + mouth * v_mouth + pose * v_pose of the face
(docs/spec/runtime.md, section 3).

A direction is a fixed vector of the face's group, or the gradient of a network at the face's own latent; the latent
may be any of `latents.spaces`. Every set has the published sign: a positive strength closes the eyes, closes the mouth
and lowers the pose score, so that documented strengths and curves mean the same with all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.base.arrays import read_safetensors
from ohlora.base.atomic import write_bytes
from ohlora.base.text import shown
from ohlora.base.values import PROPERTIES, Expression, Face
from ohlora.errors import InvalidInputError, one_line
from ohlora.latents.direction_tables import find_tables
from ohlora.latents.gradient_network import KEYS, GradientNetwork
from ohlora.latents.spaces import SPACES, LatentSizes, Space, check_space, space_size

__all__ = [
    "EVERYONE", "FILE_NAME", "SPACES", "Directions", "add_moves", "directions_from_arrays", "read_directions",
    "write_directions",
]  # fmt: skip

# Readers that know vectors of w only would take a set of z for one of w: such sets have a format of their own.
FORMAT, FORMAT_OF_ANY_SPACE = "ohlora-directions-1", "ohlora-directions-2"
FILE_NAME = "directions.safetensors"
EVERYONE = "all"  # name of the one group of sets that know no groups


@dataclass(frozen=True)
class Directions:
    """vectors: property -> group -> float64 [D]. A set of one group is for every face, with or without a group.

    generator_sha256: hash of the weights they were found for; None for published tables, which do not say.
    space: which latent they are added to, one of SPACES; D is its length.
    networks: property -> network whose gradient is its direction; the other properties are in `vectors`.
    Raises InvalidInputError for an incomplete set, or groups or lengths that differ.
    """

    vectors: Mapping[str, Mapping[str, NDArray[np.float64]]]
    source: str
    generator_sha256: str | None = None
    space: Space = "w"
    networks: Mapping[str, GradientNetwork] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_space(self.space)
        if sorted([*self.vectors, *self.networks]) != sorted(PROPERTIES):
            raise InvalidInputError(
                f"the directions {self.source} must have {', '.join(PROPERTIES)} once each, got vectors of "
                f"{', '.join(self.vectors) or 'none'} and networks of {', '.join(self.networks) or 'none'}"
            )
        for name, groups in self.vectors.items():
            if sorted(groups) != self.groups or not groups:
                raise InvalidInputError(
                    f"the directions {self.source}: {name} has groups {sorted(groups)}, not {self.groups}"
                )
        lengths = {name: {len(vector) for vector in groups.values()} for name, groups in self.vectors.items()}
        lengths |= {name: {network.size} for name, network in self.networks.items()}
        if len(set().union(*lengths.values())) != 1:
            shown = ", ".join(f"{name} {sorted(sizes)}" for name, sizes in lengths.items())
            raise InvalidInputError(f"the directions {self.source} must have one length, got {shown}")

    @property
    def groups(self) -> list[str]:
        """Names of the groups; the one of everyone when all directions are networks."""
        return sorted(next(iter(self.vectors.values()), [EVERYONE]))

    @property
    def size(self) -> int:
        """D: numbers of a direction."""
        if self.networks:
            return next(iter(self.networks.values())).size
        return len(next(iter(next(iter(self.vectors.values())).values())))

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in PROPERTIES:
            for group in self.groups if name in self.vectors else []:
                digest.update(f"{name}/{group}".encode() + self.vectors[name][group].tobytes())
        # Plain sets in w keep the hash that journals of earlier versions hold.
        if self.space != "w" or self.networks:
            digest.update(f"space/{self.space}".encode())
        for name in PROPERTIES:
            if network := self.networks.get(name):
                digest.update(f"{name}/network/{network.scale!r}".encode())
                for key, value in network.arrays.items():
                    digest.update(f"{key}/{value.shape}".encode() + value.tobytes())
        return digest.hexdigest()

    @property
    def needs_mapping_end(self) -> bool:
        """Whether the end of the mapping network has to run: after edits of split1, for networks of split2."""
        return self.space == "mapping_split1" or (self.space == "mapping_split2" and bool(self.networks))

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Property -> float64 [groups, D], rows in the order of `groups`; of networks 'PROPERTY.fc1.0.weight' ..."""
        found: dict[str, NDArray[np.floating]] = {}
        for name in PROPERTIES:
            if network := self.networks.get(name):
                found |= {f"{name}.{key}": value for key, value in network.arrays.items()}
            else:
                found[name] = np.stack([self.vectors[name][group] for group in self.groups])
        return found

    def check_all(self, faces: Sequence[Face]) -> None:
        """Raises InvalidInputError for a face that belongs to none of several groups.

        Sets of one group look at none, since a job may have millions.
        """
        if len(self.groups) > 1:
            for face in faces:
                self._group(face)

    def _group(self, face: Face) -> str:
        groups = self.groups
        if len(groups) == 1:
            return groups[0]
        if face.group is None:
            raise InvalidInputError(
                f"face '{face.name}' has no direction group, so its expression cannot be changed: use faces of a "
                "z-vector table with group names or of a bundle's gallery, or leave eyes, mouth and pose at 0"
            )
        if face.group not in groups:
            raise InvalidInputError(f"face '{face.name}' is of group '{face.group}', {self.source} has {groups}")
        return face.group

    def require_generator(self, sizes: LatentSizes, state_sha256: str, owner: str) -> None:
        """Raises InvalidInputError when these directions were not found for that generator, or it lacks their space.

        sizes: of its latents. state_sha256: hash of its trained weights, empty when unknown. owner: whose generator it
        is, for the message.
        """
        wanted = space_size(self.space, sizes, owner)
        if self.size != wanted:
            raise InvalidInputError(
                f"the directions {self.source} have {self.size} numbers, {self.space} of {owner} has {wanted}: "
                "use the directions that belong to it"
            )
        if self.generator_sha256 is not None and self.generator_sha256 != state_sha256:
            raise InvalidInputError(
                f"foreign directions ({self.source}): found for generator {self.generator_sha256[:12]}, that of "
                f"{owner} is {state_sha256[:12] or 'unknown'}; find its own with `ohlora train directions`"
            )

    def moves(self, start: NDArray[np.float32] | None, face: Face) -> NDArray[np.float64]:
        """What a strength of 1 adds to the latent in `space`: float64 [3, D], in the order of PROPERTIES.

        start: float32 [D], the unedited latent of the face; None will do without networks. Networks are asked here,
        once per face, not again along the way (docs/spec/vectorfind.md, section 6.3). Raises InvalidInputError for a
        face without a group and for another length.
        """
        group = self._group(face)
        if start is not None and start.shape != (self.size,):
            raise InvalidInputError(
                f"the directions {self.source} are for {self.space} of {self.size} numbers, got shape {start.shape}"
            )
        rows = []
        for name in PROPERTIES:
            if network := self.networks.get(name):
                if start is None:
                    raise InvalidInputError(
                        f"the direction of {name} depends on the face: give its latent in {self.space}"
                    )
                # One face at a time: a sum's rounding may depend on how many rows there are.
                rows.append(network.directions(start[None])[0])
            else:
                rows.append(self.vectors[name][group])
        return np.stack(rows)

    def apply(self, w: NDArray[np.float32], face: Face, expression: Expression) -> NDArray[np.float32]:
        """w float32 [W] -> edited w. Summed in float64 in the order eyes, mouth, pose, then cast.

        Raises InvalidInputError for sets of another space, and like `moves`.
        """
        if self.space != "w":
            raise InvalidInputError(
                f"the directions {self.source} move {self.space}, not w: take `moves` and run the generator"
            )
        return w if expression.neutral else add_moves(w, self.moves(w, face), expression)


def add_moves(start: NDArray[np.float32], moves: NDArray[np.float64], expression: Expression) -> NDArray[np.float32]:
    """start float32 [D] plus strength times row of `moves` [3, D], in float64 in the order of PROPERTIES, then cast."""
    total = start.astype(np.float64)
    for name, move in zip(PROPERTIES, moves, strict=True):
        total = total + getattr(expression, name) * move
    return total.astype(np.float32)


def read_directions(
    path: Path | str, space: str | None = None, networks: Mapping[str, GradientNetwork] | None = None
) -> Directions:
    """Directions of `ohlora train directions` (the file or its folder), or the published tables of a folder or its
    `property_score_vectors`, `{property}_change_{space}_vector_{group}.csv`.

    space: which, of a folder that holds several. networks: property -> network, for properties without tables; they
    take the place of tables that there are.
    Raises InvalidInputError naming the path when it is neither, damaged, incomplete or in another space, and for
    several spaces of which none is named.
    """
    path = Path(path)
    own = path / FILE_NAME if path.is_dir() else path
    if not own.is_file():
        return _published(path, space, dict(networks or {}))
    found = _read_own(own)
    if space is not None and found.space != check_space(space):
        raise InvalidInputError(f"the directions {own} are in {found.space}, {space} was asked for: leave --space out")
    return found


def write_directions(path: Path | str, directions: Directions) -> None:
    """Write what `read_directions` reads back. Atomic. Raises OutputError."""
    from safetensors.numpy import save

    plain = directions.space == "w" and not directions.networks
    metadata = {
        "format": FORMAT if plain else FORMAT_OF_ANY_SPACE,
        "groups": json.dumps(directions.groups),
        "source": directions.source,
        "generator_sha256": directions.generator_sha256 or "",
        "space": directions.space,
    }
    if directions.networks:
        metadata["networks"] = json.dumps({name: network.scale for name, network in directions.networks.items()})
    write_bytes(path, save(directions.arrays(), metadata))


def _read_own(path: Path) -> Directions:
    metadata, arrays = read_safetensors(path, "directions")
    if metadata.get("format") not in (FORMAT, FORMAT_OF_ANY_SPACE):
        raise InvalidInputError(
            f"{path} was not written by `ohlora train directions` (format "
            f"{shown(repr(metadata.get('format')), 60)}); directions inside a bundle are used by "
            "naming the bundle"
        )
    try:
        groups = [str(group) for group in json.loads(metadata.get("groups", "[]"))]
        scales = {str(name): float(scale) for name, scale in json.loads(metadata.get("networks", "{}")).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidInputError(
            f"the directions {path} name their groups or networks wrongly: {one_line(error, 120)}"
        ) from error
    fixed = [name for name in PROPERTIES if name not in scales]
    shapes = {name: arrays[name].shape for name in fixed if name in arrays}
    rows = [len(shape) == 2 and shape[0] == len(groups) for shape in shapes.values()]
    if len(shapes) != len(fixed) or len(set(shapes.values())) > 1 or not groups or not all(rows):
        raise InvalidInputError(f"{path} must hold {', '.join(fixed)} as [{len(groups)}, D] each, got {shapes}")
    if not all(np.isfinite(arrays[name]).all() for name in fixed):
        raise InvalidInputError(f"the directions {path} hold NaN or infinity")
    source, state = metadata.get("source") or path.name, metadata.get("generator_sha256") or None
    try:
        return directions_from_arrays(arrays, groups, source, state, space=metadata.get("space", "w"), networks=scales)
    except InvalidInputError as error:
        raise InvalidInputError(f"cannot read the directions {path}: {error}") from error


def _published(folder: Path, space: str | None, networks: Mapping[str, GradientNetwork]) -> Directions:
    if space is not None and set(networks) == set(PROPERTIES):
        return Directions({}, folder.absolute().name, space=check_space(space), networks=networks)
    tables = find_tables(folder, space)
    missing = [name for name in tables.missing if name not in networks]
    if missing:
        raise InvalidInputError(
            f"{tables.folder} has no {tables.space} tables of {', '.join(missing)}: published sets without them have "
            f"networks, such as stylegan_gen_vector_find_v9_nn_{missing[0]}.pth. Put these into the folder and build a "
            f"bundle from it (`ohlora bundle build --directions ... --space {tables.space}`)"
        )
    return Directions(tables.read(without=networks), tables.source, space=tables.space, networks=networks)


def directions_from_arrays(
    arrays: Mapping[str, NDArray[np.floating]],
    groups: list[str],
    source: str,
    generator_sha256: str | None = None,
    *,
    space: str = "w",
    networks: Mapping[str, float] | None = None,
) -> Directions:
    """The set of `Directions.arrays`, rows in the order of `groups`. networks: property -> scale of its network.

    Raises InvalidInputError for networks whose arrays do not belong together.
    """
    scales, vectors = networks or {}, {}
    for name in PROPERTIES:
        if name not in scales:
            vectors[name] = {g: np.asarray(row, dtype=np.float64) for g, row in zip(groups, arrays[name], strict=True)}
    found = {name: network_from_arrays(arrays, name, scale) for name, scale in scales.items()}
    return Directions(vectors, source, generator_sha256, check_space(space), found)


def network_from_arrays(arrays: Mapping[str, NDArray[np.floating]], name: str, scale: float) -> GradientNetwork:
    """The network of property `name` among the arrays of a set. Raises InvalidInputError."""
    own = {key: arrays[f"{name}.{key}"] for key in KEYS if f"{name}.{key}" in arrays}
    return GradientNetwork(own, scale)
