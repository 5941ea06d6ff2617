"""What `ohlora export` exports from: a bundle, or one file of weights. Either gives named graphs with references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from ohlora.base.text import one_of
from ohlora.bundle import Bundle
from ohlora.bundle.manifest import MANIFEST_NAME
from ohlora.engines.model_file import read_model_file
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.preset import judged_latents
from ohlora.export.graphs.mapping import mapping_inputs
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.graphs.portrait_requests import portrait_requests, recolor_requests
from ohlora.export.networks.compare import Kind
from ohlora.export.networks.entry import Arrays
from ohlora.export.networks.registry import Graph, load_network, module_graphs, network_named
from ohlora.export.networks.table import NETWORKS
from ohlora.faces import face_from_seed
from ohlora.training.data import portraits
from ohlora.training.data.portrait_faces import TEST_SEEDS

COMPOSED = ("portrait", "recolor")


@dataclass(frozen=True)
class Source:
    """graphs: names to makers, so that only what is asked for is built. bundle: when it is one."""

    name: str
    graphs: Mapping[str, Callable[[], Graph]]
    bundle: Bundle | None = None
    rows_depend: tuple[str, ...] = ()

    def chosen(self, names: Sequence[str]) -> list[str]:
        """`names`, or all. Raises InvalidInputError for one that is not here."""
        unknown = [name for name in names if name not in self.graphs]
        if unknown:
            raise InvalidInputError(f"{self.name} has no '{unknown[0]}'; it has {', '.join(self.graphs)}")
        return list(names) or list(self.graphs)


def bundle_source(where: str | Path, size: tuple[int, int]) -> Source:
    """Networks of a bundle and the two fused graphs. size: (height, width) of recolor.onnx.

    Raises BundleError, and EngineError for a network that keeps weights outside its file.
    """
    bundle = Bundle.open(where)
    manifest = bundle.manifest
    graphs: dict[str, Callable[[], Graph]] = {}

    def add(
        name: str, make: Callable[[], onnx.ModelProto], inputs: Callable[[int], Arrays], output: str, kind: Kind
    ) -> None:
        graphs[name] = lambda: Graph(name, make(), inputs, output, kind)

    def load(file: str) -> Callable[[], onnx.ModelProto]:
        return lambda: onnx.load_from_string(read_model_file(bundle.file(file)).data)

    generator, hair, parser = manifest.generator, manifest.hair, manifest.parsing
    if hair is not None and hair.input != "resized":
        raise InvalidInputError(
            f"bundle '{bundle.name}' feeds its hair finder as documented, and exports hold the one for images of "
            f"{hair.input_size}x{hair.input_size}: take \"input\" out of the part 'hair' of its bundle.json"
        )
    if generator is not None:
        add("mapping", load(generator.mapping), lambda n: _latents(bundle, n), "w", "latent")
        add("synthesis", load(generator.synthesis), lambda n: judged_latents(bundle, n)[0], "image", "image")
        if generator.mapping_end:
            width = generator.w_size + generator.split_size
            add("mapping_end", load(generator.mapping_end), lambda n: _split1(n, width), "w", "latent")
    if hair is not None:
        add("hair", load(hair.file), lambda n: _faces(n, hair.input_size), "hair", "mask")
    if parser is not None:
        add("parsing", load(parser.file), lambda n: _faces(n, parser.input_size), "parsing", "classes")
    if generator is not None:
        add("portrait", lambda: portrait_graph(bundle), lambda n: portrait_requests(bundle, n).inputs, "image", "image")
    if hair is not None:
        add("recolor", lambda: recolor_graph(bundle, size), lambda n: recolor_requests(size, n).inputs, "dyed", "image")
    return Source(f"bundle '{bundle.name}'", graphs, bundle)


def weights_source(network: str, kind: str | None, path: Path | None, options: Mapping[str, str]) -> Source:
    """The graphs of one file of weights (`networks.table.NETWORKS`), compared with the module when they are built.

    Raises InvalidInputError and CheckpointError.
    """
    entry = network_named(network)
    entry.chosen(options)  # what people get wrong is found before weights are read
    return module_source(network, load_network(network, kind, path), options, f"{network} ({kind or entry.kinds[0]})")


def module_source(network: str, module: nn.Module, options: Mapping[str, str], title: str) -> Source:
    """The graphs of a module that is loaded already."""
    makers, entry = module_graphs(network, module, options), network_named(network)
    return Source(title, makers, rows_depend=tuple(makers) if entry.rows_depend(entry.chosen(options)) else ())


def open_source(
    where: str, network: str | None, kind: str | None, options: Mapping[str, str], size: tuple[int, int]
) -> Source:
    """A bundle's folder or name, weights (a file, or a package's folder of them) with their network, or a network whose
    weights come with a package.
    """
    if where in NETWORKS and network in (None, where):
        return weights_source(where, kind, None, options)
    path = Path(where)
    if path.is_file() or (network is not None and path.is_dir() and not (path / MANIFEST_NAME).is_file()):
        if network is None:
            raise InvalidInputError(f"{path} is a file of weights: give --network {one_of(NETWORKS)}")
        return weights_source(network, kind, path, options)
    if network is not None or kind is not None or options:
        raise InvalidInputError(f"--network, --kind and --option belong to a file of weights, and {where} is none")
    return bundle_source(where, size)


def _latents(bundle: Bundle, count: int) -> Arrays:
    part = bundle.generator_part()
    return {**mapping_inputs([face_from_seed(6_000_000 + i, part.label_size) for i in range(count)])}


def _split1(count: int, width: int) -> Arrays:
    rng = np.random.Generator(np.random.Philox(key=6))
    return {"mapping_split1": rng.standard_normal((count, width)).astype(np.float32)}


def _faces(count: int, side: int) -> Arrays:
    return {"image": portraits.render(portraits.parameters_from_seeds(TEST_SEEDS[:count]), side).images}
