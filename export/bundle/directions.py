"""The directions of a bundle: read with the networks beside published tables, bound to the bundle's generator."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save

from ohlora.base.values import PROPERTIES
from ohlora.bundle import file_sha256
from ohlora.bundle.manifest import DirectionsPart, GeneratorPart, latent_identity
from ohlora.errors import InvalidInputError
from ohlora.latents.direction_tables import find_tables, list_tables
from ohlora.latents.directions import FILE_NAME, Directions, read_directions
from ohlora.training.vectorfind.gradient import load_published_network


def load_directions(path: Path, space: str | None = None) -> Directions:
    """`read_directions`, with the networks `*_nn_{property}.pth` of the folder for properties that have no tables.

    Raises InvalidInputError like it and for several networks of one property, CheckpointError for a damaged one.
    """
    if not path.is_dir() or (path / FILE_NAME).is_file():
        return read_directions(path, space)
    found = {name: sorted(path.glob(f"*_nn_{name}.pth")) for name in PROPERTIES}
    networks_alone = space is not None and space not in list_tables(path) and all(found.values())
    wanted = PROPERTIES if networks_alone else find_tables(path, space).missing
    networks = {}
    for name in wanted:
        if len(found[name]) > 1:
            names = ", ".join(file.name for file in found[name])
            raise InvalidInputError(f"{path} has several networks of {name} ({names}): leave the one that is meant")
        if found[name]:
            networks[name] = load_published_network(found[name][0])
    return read_directions(path, space, networks)


def add_directions(staging: Path, directions: Directions, part: GeneratorPart) -> DirectionsPart:
    """Store directions bound to this generator's latent space (`BundleManifest.latent_identity`)."""
    (staging / FILE_NAME).write_bytes(save(directions.arrays()))
    return DirectionsPart(
        file=FILE_NAME,
        generator_sha256=latent_identity(part, lambda name: file_sha256(staging / name)),
        groups=directions.groups,
        properties=list(PROPERTIES),
        space=directions.space,
        networks={name: network.scale for name, network in directions.networks.items()},
        source=directions.source,
    )
