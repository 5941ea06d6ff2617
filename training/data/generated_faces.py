"""Pictures of a portrait-trained generator with the truth of the portraits it imitates.

The generator of a demo bundle draws for a latent z what the portrait renderer paints for it, though not exactly. A
student that is to find hair in its pictures learns from such pairs: the generator's picture, the renderer's hair map.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.base.values import Z_SIZE, Face
from ohlora.bundle import Bundle, file_sha256
from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.render.renderer import Renderer
from ohlora.training import checkpoints
from ohlora.training.data.portrait_faces import RENDERER, Dataset, DatasetSettings, check_seeds, read_description
from ohlora.training.data.portraits import parameters_from_latents, render
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import Generator

BATCH = 8
# A generator follows the portraits when its pictures are nearer to their own than to others. Of a trained one the
# difference to the own portrait is a third or less of that to another person's; of a foreign one the two are alike.
FOLLOWS = 0.75
CHECKED = 16


class PortraitGenerator(Protocol):
    """Latents z float32 [N,512] -> images uint8 [N,R,R,3] RGB. identity names the weights."""

    identity: str
    resolution: int

    def __call__(self, z: NDArray[np.float32]) -> Rgb: ...

    def close(self) -> None: ...


@dataclass
class DrawnPortraits:
    """A `PortraitGenerator` of two functions."""

    identity: str
    resolution: int
    draw: Callable[[NDArray[np.float32]], Rgb]
    close: Callable[[], None] = lambda: None

    def __call__(self, z: NDArray[np.float32]) -> Rgb:
        return self.draw(z)


def require_portrait_interface(what: str, z_size: int, label_size: int) -> None:
    if z_size != Z_SIZE or label_size:
        raise InvalidInputError(
            f"{what} takes {z_size} latent and {label_size} label values; a portrait-trained generator takes "
            f"{Z_SIZE} and none: give one of `ohlora train gan` or its bundle"
        )


def open_generator(source: str | Path) -> PortraitGenerator:
    """A weights file (.safetensors), a bundle folder, or a shipped bundle's name.

    Raises CheckpointError, BundleError, or InvalidInputError for a generator of another kind.
    """
    if Path(source).suffix == ".safetensors":
        module = checkpoints.load_as(Generator, "stylegan", source)
        require_portrait_interface(str(source), module.config.z_size, module.config.label_size)
        draw = torch.no_grad()(lambda z: as_bytes(module(torch.from_numpy(z), lod=0.0)))
        return DrawnPortraits(file_sha256(Path(source)), module.config.resolution, draw)
    bundle = Bundle.open(source)
    part = bundle.generator_part()
    require_portrait_interface(f"bundle '{bundle.name}'", part.z_size, part.label_size)
    renderer, empty = Renderer(bundle), np.zeros(0, np.float32)

    def render_rows(z: NDArray[np.float32]) -> Rgb:
        return renderer.render([Face(row, empty, name=f"z{i}") for i, row in enumerate(z)])

    return DrawnPortraits(bundle.generator_identity, part.resolution, render_rows, renderer.close)


def require_following(generator: PortraitGenerator, first_seed: int, what: str = "the generator") -> float:
    """How far the pictures are from their own portraits, as a share of the distance to other people's.

    Raises InvalidInputError from FOLLOWS on: the portraits' hair maps would be no truth for these pictures.
    """
    z, _ = latents_of_seeds(range(first_seed, first_seed + CHECKED))
    images = generator(z).astype(np.float32)
    painted = render(parameters_from_latents(z), generator.resolution).images.astype(np.float32)
    own = float(np.abs(images - painted).mean())
    other = float(np.mean([np.abs(images - np.roll(painted, k, axis=0)).mean() for k in (1, 3, 7)]))
    share = own / max(other, 1e-9)
    if share >= FOLLOWS:
        raise InvalidInputError(
            f"{what} does not draw the portraits of its latents (difference to the own portrait {own:.1f} grey levels, "
            f"to others {other:.1f}): only a generator that `ohlora train gan` trained on portraits has their truth"
        )
    return share


def generate(
    generator: PortraitGenerator, seeds: range, wanted: Container[int]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]]:
    """(seed, generator's picture, renderer's hair map, its classes) of the seeds that are in `wanted`.

    Batches always hold the same seeds, so that a resumed run gets the pictures of an uninterrupted one to the bit.
    """
    for start in range(seeds.start, seeds.stop, BATCH):
        batch = range(start, start + BATCH)
        chosen = [seed for seed in batch if seed < seeds.stop and seed in wanted]
        if not chosen:
            continue
        z, _ = latents_of_seeds(batch)
        images, rows = generator(z), [seed - start for seed in chosen]
        truth = render(parameters_from_latents(z[rows]), generator.resolution)
        yield from zip(chosen, images[rows], truth.hair, truth.parsing, strict=True)


def write_generated_pairs(
    generator: PortraitGenerator,
    folder: Path,
    seeds: range,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Pairs of these seeds in a data set folder, as `write_portraits` lays it out; goes on where a stopped run was.

    Returns the folder's description. Raises InvalidInputError for a generator that does not follow the portraits, or a
    folder that holds something else (another generator's pairs, for one).
    """
    check_seeds(seeds.start, len(seeds))
    settings = DatasetSettings("generated", seeds.start, generator.resolution, "png", generator.identity, RENDERER)
    require_following(generator, seeds.start)
    dataset = Dataset(folder, settings, seeds)
    with dataset.filling(advance) as missing:
        for example in generate(generator, seeds, set(missing)):
            dataset.write(*example)
            advance(1)
    return read_description(folder)


def pairs_of(source: str | Path, folder: Path, seeds: range, advance: Callable[[int], None]) -> dict[str, Any]:
    """`write_generated_pairs` for a generator by its file or bundle."""
    with closing(open_generator(source)) as generator:
        return write_generated_pairs(generator, folder, seeds, advance)
