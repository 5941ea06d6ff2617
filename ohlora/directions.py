"""Latent directions: w' = w + eyes * v_eyes + mouth * v_mouth + pose * v_pose of the face's group (spec: runtime).

Every set has the published sign: a positive strength closes the eyes, closes the mouth and lowers the pose score, so
that documented strengths and curves mean the same with all of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.atomic import write_bytes
from ohlora.errors import BadRequest
from ohlora.params import PROPERTIES, Expression, Face

FORMAT = "ohlora-directions-1"
FILE_NAME = "directions.safetensors"
EVERYONE = "all"  # name of the one group of sets that know no groups
_INFIX = "_change_w_vector_"


@dataclass(frozen=True)
class Directions:
    """vectors: property -> group -> float64 [W]. A set of one group is for every face, with or without a group.

    generator_sha256: hash of the weights they were found for; None for published tables, which do not say.
    """

    vectors: Mapping[str, Mapping[str, NDArray[np.float64]]]
    source: str
    generator_sha256: str | None = None

    @property
    def groups(self) -> list[str]:
        return sorted(self.vectors[PROPERTIES[0]])

    @property
    def w_size(self) -> int:
        return len(self.vectors[PROPERTIES[0]][self.groups[0]])

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in PROPERTIES:
            for group in self.groups:
                digest.update(f"{name}/{group}".encode() + self.vectors[name][group].tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Property -> float64 [groups, W], rows in the order of `groups`."""
        return {name: np.stack([self.vectors[name][group] for group in self.groups]) for name in PROPERTIES}

    def check(self, face: Face) -> None:
        """Raises BadRequest when there are several groups and `face` belongs to none of them."""
        self._group(face)

    def check_all(self, faces: Sequence[Face]) -> None:
        """`check` for every face; sets of one group look at none, since a job may have millions."""
        if len(self.groups) > 1:
            for face in faces:
                self._group(face)

    def _group(self, face: Face) -> str:
        groups = self.vectors[PROPERTIES[0]]
        if len(groups) == 1:
            return next(iter(groups))
        if face.group is None:
            raise BadRequest(
                f"face '{face.name}' has no direction group, so its expression cannot be changed: use faces of a "
                "z-vector table with group names or of a bundle's gallery, or leave eyes, mouth and pose at 0"
            )
        if face.group not in groups:
            raise BadRequest(f"face '{face.name}' is of group '{face.group}', {self.source} has {self.groups}")
        return face.group

    def require_generator(self, w_size: int, state_sha256: str, owner: str) -> None:
        """Raises BadRequest when these directions were not found for that generator.

        state_sha256: hash of its trained weights, empty when unknown. owner: whose generator it is, for the message.
        """
        if self.w_size != w_size:
            raise BadRequest(
                f"the directions {self.source} have {self.w_size} numbers, w of {owner} has {w_size}: "
                "use the directions that belong to it"
            )
        if self.generator_sha256 is not None and self.generator_sha256 != state_sha256:
            raise BadRequest(
                f"foreign directions ({self.source}): found for generator {self.generator_sha256[:12]}, that of "
                f"{owner} is {state_sha256[:12] or 'unknown'}; find its own with `ohlora train directions`"
            )

    def apply(self, w: NDArray[np.float32], face: Face, expression: Expression) -> NDArray[np.float32]:
        """w float32 [W] -> edited w. Summed in float64 in the order eyes, mouth, pose, then cast."""
        if expression.neutral:
            return w
        group = self._group(face)
        total = w.astype(np.float64)
        for name in PROPERTIES:
            total = total + getattr(expression, name) * self.vectors[name][group]
        return total.astype(np.float32)


def read_directions(path: Path | str) -> Directions:
    """Directions of `ohlora train directions` (the file or its folder) or a folder of published tables.

    Raises BadRequest naming the path when it is neither, damaged or incomplete.
    """
    path = Path(path)
    own = path / FILE_NAME if path.is_dir() else path
    if own.is_file():
        return _read_own(own)
    return read_published_directions(path)


def write_directions(path: Path | str, directions: Directions) -> None:
    """Write what `read_directions` reads back. Atomic. Raises OutputError."""
    from safetensors.numpy import save

    metadata = {
        "format": FORMAT,
        "groups": json.dumps(directions.groups),
        "source": directions.source,
        "generator_sha256": directions.generator_sha256 or "",
    }
    write_bytes(path, save(directions.arrays(), metadata))


def _read_own(path: Path) -> Directions:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise BadRequest(f"cannot read the directions {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise BadRequest(
            f"{path} was not written by `ohlora train directions` (format {metadata.get('format')!r}); directions "
            "inside a bundle are used by naming the bundle"
        )
    try:
        groups = [str(group) for group in json.loads(metadata.get("groups", "[]"))]
    except ValueError as error:
        raise BadRequest(f"the directions {path} name their groups wrongly: {error}") from error
    shapes = {name: arrays[name].shape for name in PROPERTIES if name in arrays}
    whole = len(shapes) == len(PROPERTIES) and len(set(shapes.values())) == 1
    if not whole or not groups or shapes["eyes"][:1] != (len(groups),) or len(shapes["eyes"]) != 2:
        raise BadRequest(f"{path} must hold {', '.join(PROPERTIES)} as [{len(groups)}, W] each, got {shapes}")
    if not all(np.isfinite(arrays[name]).all() for name in PROPERTIES):
        raise BadRequest(f"the directions {path} hold NaN or infinity")
    return directions_from_bundle(
        arrays, groups, metadata.get("source") or path.name, metadata.get("generator_sha256") or None
    )


def read_published_directions(folder: Path | str) -> Directions:
    """Read `{property}_change_w_vector_{group}.csv` from `folder` or its `property_score_vectors`.

    Raises BadRequest for a missing or incomplete set, or vectors of different lengths.
    """
    folder = Path(folder)
    inner = folder / "property_score_vectors"
    folder = inner if inner.is_dir() else folder
    vectors: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in PROPERTIES}
    for name in PROPERTIES:
        for path in sorted(folder.glob(f"{name}{_INFIX}*.csv")):
            vectors[name][path.stem.split(_INFIX)[1]] = _read_vector(path)
    counts = {name: sorted(groups) for name, groups in vectors.items()}
    if not counts["eyes"]:
        raise BadRequest(f"no direction tables in {folder}: expected files like eyes{_INFIX}hhh.csv or {FILE_NAME}")
    for name in PROPERTIES:
        if counts[name] != counts["eyes"]:
            raise BadRequest(
                f"{folder}: the groups of {name} {counts[name]} differ from those of eyes {counts['eyes']}"
            )
    first = vectors["eyes"][counts["eyes"][0]]
    for name in PROPERTIES:
        for group, vector in vectors[name].items():
            if len(vector) != len(first):
                raise BadRequest(
                    f"{folder / f'{name}{_INFIX}{group}.csv'} must hold {len(first)} finite numbers like the others, "
                    f"got {len(vector)}"
                )
    return Directions(vectors, source=folder.parent.name if folder == inner else folder.name)


def _read_vector(path: Path) -> NDArray[np.float64]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        # One data row; its first cell is the row index.
        vector = np.array([float(cell) for cell in rows[1][1:]], dtype=np.float64)
    except (OSError, IndexError, ValueError, csv.Error) as error:
        raise BadRequest(f"cannot read the direction {path}: {error}") from error
    if not len(vector) or not np.isfinite(vector).all():
        raise BadRequest(f"the direction {path} must hold finite numbers")
    return vector


def directions_from_bundle(
    arrays: Mapping[str, NDArray[np.floating]], groups: list[str], source: str, generator_sha256: str | None = None
) -> Directions:
    """property -> [G, W] arrays in the order of `groups`."""
    return Directions(
        {
            name: {group: np.asarray(arrays[name][i], dtype=np.float64) for i, group in enumerate(groups)}
            for name in PROPERTIES
        },
        source,
        generator_sha256,
    )
