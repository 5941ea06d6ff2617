"""Latent directions: w' = w + eyes * v_eyes + mouth * v_mouth + pose * v_pose of the face's group (spec: runtime)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import BadRequest
from ohlora.params import PROPERTIES, Expression, Face

W_SIZE = 512
_INFIX = "_change_w_vector_"


@dataclass(frozen=True)
class Directions:
    """Unit vectors in w. vectors: property -> group -> float64 [512]."""

    vectors: Mapping[str, Mapping[str, NDArray[np.float64]]]
    source: str

    @property
    def groups(self) -> list[str]:
        return sorted(self.vectors[PROPERTIES[0]])

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in PROPERTIES:
            for group in self.groups:
                digest.update(f"{name}/{group}".encode() + self.vectors[name][group].tobytes())
        return digest.hexdigest()

    def check(self, face: Face) -> None:
        """Raises BadRequest when `face` has no group or one that has no vectors."""
        if face.group is None:
            raise BadRequest(
                f"face '{face.name}' has no direction group, so its expression cannot be changed: use faces of a "
                "z-vector table with group names or of a bundle's gallery, or leave eyes, mouth and pose at 0"
            )
        if face.group not in self.vectors[PROPERTIES[0]]:
            raise BadRequest(f"face '{face.name}' is of group '{face.group}', {self.source} has {self.groups}")

    def apply(self, w: NDArray[np.float32], face: Face, expression: Expression) -> NDArray[np.float32]:
        """w float32 [512] -> edited w. Summed in float64 in the order eyes, mouth, pose, then cast."""
        if expression.neutral:
            return w
        self.check(face)
        total = w.astype(np.float64)
        for name in PROPERTIES:
            total = total + getattr(expression, name) * self.vectors[name][str(face.group)]
        return total.astype(np.float32)


def read_published_directions(folder: Path | str) -> Directions:
    """Read `{property}_change_w_vector_{group}.csv` from `folder` or its `property_score_vectors`.

    Raises BadRequest for a missing, incomplete or wrong-sized set.
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
        raise BadRequest(f"no direction tables in {folder}: expected files like eyes{_INFIX}hhh.csv")
    for name in PROPERTIES:
        if counts[name] != counts["eyes"]:
            raise BadRequest(
                f"{folder}: the groups of {name} {counts[name]} differ from those of eyes {counts['eyes']}"
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
    if vector.shape != (W_SIZE,) or not np.isfinite(vector).all():
        raise BadRequest(f"the direction {path} must hold {W_SIZE} finite numbers, got {vector.shape[0]}")
    return vector


def directions_from_bundle(arrays: Mapping[str, NDArray[np.floating]], groups: list[str], source: str) -> Directions:
    """property -> [G, 512] arrays in the order of `groups`."""
    return Directions(
        {
            name: {group: np.asarray(arrays[name][i], dtype=np.float64) for i, group in enumerate(groups)}
            for name in PROPERTIES
        },
        source,
    )
