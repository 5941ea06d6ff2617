"""Random requests for the fused graphs, and what the runtime's pipeline makes of them: the definition of correct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import Expression, Face, Ombre
from ohlora.bundle import Bundle
from ohlora.faces import face_from_seed
from ohlora.render.renderer import Renderer
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS

Arrays = dict[str, NDArray[Any]]
FIRST_SEED = 8_000_000
STRENGTH = 1.2  # expressions reach as far as documented curves do


@dataclass(frozen=True)
class PortraitRequest:
    """One picture: what a user would ask of the renderer."""

    face: Face
    expression: Expression
    ombre: Ombre | None
    psi: float
    layers: int


@dataclass(frozen=True)
class Requests:
    """asked: one by one; inputs: the same as a fused graph takes them."""

    asked: tuple[PortraitRequest, ...]
    inputs: Arrays

    def pipeline(self, renderer: Renderer) -> NDArray[np.uint8]:
        """What the runtime makes, uint8 [N,R,R,3]."""
        made = [
            renderer.render(one.face, one.expression, one.ombre, psi=one.psi, truncation_layers=one.layers)[0]
            for one in self.asked
        ]
        return np.stack(made)


def portrait_requests(bundle: Bundle, count: int, seed: int = 0) -> Requests:
    """Seeded requests with everything at random: face, group, truncation, expression, dye (one in eight has none)."""
    part, manifest = bundle.generator_part(), bundle.manifest
    directions = manifest.directions
    rng = np.random.Generator(np.random.Philox(key=seed))
    asked = []
    for number in range(count):
        face = face_from_seed(FIRST_SEED + number, part.label_size)
        group = None if directions is None else directions.groups[int(rng.integers(len(directions.groups)))]
        strengths = rng.uniform(-STRENGTH, STRENGTH, 3).astype(np.float32)
        dye = rng.random(3).astype(np.float32)
        dyed = manifest.hair is not None and number % 8 != 7
        asked.append(
            PortraitRequest(
                Face(face.z, face.label, face.name, group, face.source),
                Expression(*map(float, strengths)) if directions is not None else Expression(),
                Ombre(*map(float, dye)) if dyed else None,
                float(np.float32(rng.uniform(0.5, 1.0))),
                int(rng.integers(0, part.num_layers + 1)),
            )
        )
    inputs: Arrays = {"z": np.stack([one.face.z for one in asked])}
    if part.label_size:
        inputs["label"] = np.stack([one.face.label for one in asked])
    inputs["truncation"] = np.array([[one.psi, one.layers] for one in asked], np.float32)
    if directions is not None:
        inputs["expression"] = np.array(
            [[one.expression.eyes, one.expression.mouth, one.expression.pose] for one in asked], np.float32
        )
        if len(directions.groups) > 1 and len(directions.networks) < len(directions.properties):
            inputs["group"] = np.array([directions.groups.index(str(one.face.group)) for one in asked], np.int64)
    if manifest.hair is not None:
        inputs["ombre"] = np.array([_dye(one.ombre) for one in asked], np.float32)
    return Requests(tuple(asked), inputs)


@dataclass(frozen=True)
class RecolorRequests:
    """inputs: as recolor.onnx takes them; ombres: the same dyes."""

    ombres: tuple[Ombre, ...]
    inputs: Arrays

    def pipeline(self, renderer: Renderer) -> NDArray[np.uint8]:
        pictures = self.inputs["image"]
        dyed = [renderer.recolor(image, dye, detect="whole") for image, dye in zip(pictures, self.ombres, strict=True)]
        return np.concatenate(dyed)


def recolor_requests(size: tuple[int, int], count: int, seed: int = 0) -> RecolorRequests:
    """Procedural portraits, cropped to `size` (height, width) around their middle, and random dyes."""
    height, width = size
    side = max(size)
    drawn = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:count]), side).images
    top, left = (side - height) // 2, (side - width) // 2
    rng = np.random.Generator(np.random.Philox(key=seed))
    values = rng.random((count, 3)).astype(np.float32)
    ombres = tuple(Ombre(*map(float, row)) for row in values)
    pictures = np.ascontiguousarray(drawn[:, top : top + height, left : left + width])
    return RecolorRequests(ombres, {"image": pictures, "ombre": values})


def _dye(ombre: Ombre | None) -> tuple[float, float, float]:
    return (-1.0, 0.0, 0.0) if ombre is None else (ombre.color, ombre.height, ombre.grad_height)
