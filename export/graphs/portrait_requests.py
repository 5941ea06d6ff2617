"""Random requests for the fused graphs, and what the runtime's pipeline makes of them: the definition of correct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.base.values import Expression, Ombre
from ohlora.bundle import Bundle
from ohlora.export.graphs.mapping import mapping_inputs
from ohlora.faces import face_from_seed
from ohlora.render.renderer import Renderer
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS

Arrays = dict[str, NDArray[Any]]
FIRST_SEED = 8_000_000
STRENGTH = 1.2  # expressions reach as far as documented curves do
UNDYED = np.array([-1.0, 0.0, 0.0], np.float32)


@dataclass(frozen=True)
class Requests:
    """inputs: as a fused graph takes them. calls: the same, one by one, of the renderer; each gives [H,W,3]."""

    inputs: Arrays
    calls: tuple[Callable[[Renderer], Rgb], ...]

    def pipeline(self, renderer: Renderer) -> Rgb:
        """What the runtime makes, uint8 [N,H,W,3]."""
        return np.stack([call(renderer) for call in self.calls])


def portrait_requests(bundle: Bundle, count: int) -> Requests:
    """Seeded requests with everything at random: face, group, truncation, expression, dye (one in eight has none)."""
    part, manifest = bundle.generator_part(), bundle.manifest
    directions = manifest.directions
    rng = np.random.Generator(np.random.Philox(key=0))
    faces, groups, expressions, dyes, cuts = [], [], [], [], []
    for number in range(count):
        faces.append(face_from_seed(FIRST_SEED + number, part.label_size))
        groups.append(0 if directions is None else int(rng.integers(len(directions.groups))))
        expressions.append(rng.uniform(-STRENGTH, STRENGTH, 3).astype(np.float32))
        dye = rng.random(3).astype(np.float32)
        dyes.append(dye if manifest.hair is not None and number % 8 != 7 else UNDYED)
        cuts.append((float(np.float32(rng.uniform(0.5, 1.0))), int(rng.integers(0, part.num_layers + 1))))
    inputs: Arrays = {**mapping_inputs(faces)}
    inputs["truncation"] = np.array(cuts, np.float32)
    if directions is not None:
        inputs["expression"] = np.stack(expressions)
        if len(directions.groups) > 1 and len(directions.networks) < len(directions.properties):
            inputs["group"] = np.array(groups, np.int64)
    if manifest.hair is not None:
        inputs["ombre"] = np.stack(dyes)

    def call(number: int, renderer: Renderer) -> Rgb:
        group = None if directions is None else directions.groups[groups[number]]
        expression = Expression() if directions is None else Expression(*map(float, expressions[number]))
        dye = None if dyes[number] is UNDYED else Ombre(*map(float, dyes[number]))
        psi, layers = cuts[number]
        face = replace(faces[number], group=group)
        image: Rgb = renderer.render(face, expression, dye, psi=psi, truncation_layers=layers)[0]
        return image

    return Requests(inputs, tuple(partial(call, number) for number in range(count)))


def recolor_requests(size: tuple[int, int], count: int) -> Requests:
    """Procedural portraits, cropped to `size` (height, width) around their middle, and random dyes."""
    height, width = size
    side = max(size)
    drawn = portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:count]), side).images
    top, left = (side - height) // 2, (side - width) // 2
    rng = np.random.Generator(np.random.Philox(key=0))
    values = rng.random((count, 3)).astype(np.float32)
    pictures = np.ascontiguousarray(drawn[:, top : top + height, left : left + width])

    def call(number: int, renderer: Renderer) -> Rgb:
        return renderer.recolor(pictures[number], Ombre(*map(float, values[number])), detect="whole")[0]

    return Requests({"image": pictures, "ombre": values}, tuple(partial(call, number) for number in range(count)))
