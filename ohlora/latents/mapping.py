"""Faces and expressions -> w, the synthesis network's input. What belongs to a face is computed once and kept.

An expression edits the latent of its directions' space (`spaces`); what follows in the mapping network runs on
the edited latent. Edits of mapping_split2 need no network: w is the sum of its halves, so a direction is folded into
w by adding its own. A neutral expression is the plain w, bit for bit, in every space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import Expression, Face
from ohlora.engines import Engine
from ohlora.errors import InvalidInputError
from ohlora.latents.directions import Directions, add_moves

# Faces kept between calls: a face whose looks span several chunks is mapped once.
CACHED_FACES = 64


Edit = tuple[NDArray[np.float32], NDArray[np.float64]]


@dataclass
class _MappedFace:
    """w float32 [W]; split1 float32 [W+S] of split mappings. edit, once an expression is asked for: what it starts
    from, float32 [D], and what a strength of 1 adds to it, float64 [3,D]; in w also for folded directions.
    """

    w: NDArray[np.float32]
    split1: NDArray[np.float32] | None
    edit: Edit | None = None


@dataclass
class LatentSource:
    """mapping, mapping_end: engines of a bundle; the second is for directions that need it, else None."""

    mapping: Engine
    mapping_end: Engine | None = None
    directions: Directions | None = None
    _faces: OrderedDict[int, _MappedFace] = field(default_factory=OrderedDict)

    def rows(self, asked: Sequence[tuple[int, Face, Expression]]) -> NDArray[np.float32]:
        """w of each (number of the face, face, expression), float32 [N,W]; a row does not depend on the others.

        Raises InvalidInputError for an expression without directions or of a face that they are not for.
        """
        self._map({number: face for number, face, _ in asked if number not in self._faces})
        rows = np.stack([self._faces[number].w for number, _, _ in asked])
        moved = [i for i, (_, _, expression) in enumerate(asked) if not expression.neutral]
        if moved:
            edits = self._edits({asked[i][0]: asked[i][1] for i in moved})
            edited = [add_moves(*edits[number], expression) for number, _, expression in (asked[i] for i in moved)]
            rows[moved] = self._finish(np.stack(edited))
        while len(self._faces) > CACHED_FACES:
            self._faces.popitem(last=False)
        return rows

    def _map(self, faces: dict[int, Face]) -> None:
        if not faces:
            return
        made = self.mapping(**self._inputs((face.z, face.label) for face in faces.values()))
        split1 = made.get("mapping_split1", [None] * len(faces))
        for number, w, hidden in zip(faces, made["w"], split1, strict=True):
            self._faces[number] = _MappedFace(w, hidden)

    def _inputs(
        self, latents: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]
    ) -> dict[str, NDArray[np.float32]]:
        z, label = zip(*latents, strict=True)
        inputs = {"z": np.stack(z)}
        if any(tensor.name == "label" for tensor in self.mapping.spec.inputs):
            inputs["label"] = np.stack(label)
        return inputs

    def _edits(self, faces: dict[int, Face]) -> dict[int, Edit]:
        new = {number: face for number, face in faces.items() if self._faces[number].edit is None}
        for number, made in zip(new, self._new_edits(new) if new else (), strict=True):
            self._faces[number].edit = made
        return {number: edit for number in faces if (edit := self._faces[number].edit) is not None}

    def _new_edits(self, faces: dict[int, Face]) -> list[Edit]:
        directions = self.directions
        if directions is None:
            raise InvalidInputError("eyes, mouth and pose need directions: give --directions or a bundle that has them")
        starts: Sequence[NDArray[np.float32] | None]
        mapped = [self._faces[number] for number in faces]
        if directions.space == "z":
            starts = [np.concatenate([face.z, face.label]) for face in faces.values()]
        elif directions.space == "mapping_split1":
            starts = [one.split1 for one in mapped]
        elif directions.space == "mapping_split2" and directions.networks:
            split1 = np.stack([one.split1 for one in mapped if one.split1 is not None])
            starts = list(self._end(split1)["mapping_split2"])
        else:
            starts = [None if directions.space == "mapping_split2" else one.w for one in mapped]
        edits = []
        for one, face, start in zip(mapped, faces.values(), starts, strict=True):
            moves = directions.moves(start, face)
            if start is None or directions.space == "mapping_split2":
                start, moves = one.w, moves[:, : one.w.size] + moves[:, one.w.size :]
            edits.append((start, moves))
        return edits

    def _finish(self, edited: NDArray[np.float32]) -> NDArray[np.float32]:
        """Edited latents [N,D] -> w [N,W], by what is left of the mapping network."""
        space = self.directions.space if self.directions else "w"
        if space == "z":
            size = next(tensor.row_shape[0] for tensor in self.mapping.spec.inputs if tensor.name == "z")
            return self.mapping(**self._inputs((row[:size], row[size:]) for row in edited))["w"]
        return self._end(edited)["w"] if space == "mapping_split1" else edited

    def _end(self, split1: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        if self.mapping_end is None:
            raise InvalidInputError("these directions run the end of a split mapping network: open its engine too")
        return self.mapping_end(mapping_split1=split1)
