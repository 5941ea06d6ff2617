"""Every network of the toolkit that has a graph: what it takes, how it is built, judged and loaded.

    module = load_network("facexformer", "facexformer", "model.pt")
    export_network("facexformer", module, "engines") -> Exported(files={"facexformer": engines/facexformer.onnx}, ...)

`NETWORKS` is the table; a further network is one entry. Graphs are standard ONNX with any batch size, weights inside;
pictures come in as uint8 RGB and are prepared inside. Rewrites are exact (`passes`); every graph is compared with the
unrewritten PyTorch module on realistic inputs, and nothing is written before all of a network's graphs have passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.networks.compare import Comparison, Figures, figures
from ohlora.export.networks.entry import GraphExport, NetworkExport, Options
from ohlora.export.networks.table import NETWORKS

__all__ = [
    "NETWORKS", "Comparison", "Exported", "Figures", "GraphExport", "NetworkExport", "Options",
    "build_graphs", "export_network", "figures", "graph_parity", "load_network", "network_named",
]  # fmt: skip

SAMPLES = 3  # that parity is measured on; not the batch size that graphs are traced with


@dataclass(frozen=True)
class Exported:
    """files: graph name -> path. parity: "graph.output" -> figures against PyTorch. rows_depend: see NetworkExport."""

    name: str
    files: dict[str, Path]
    parity: dict[str, Figures]
    options: dict[str, str]
    rows_depend: bool
    samples: int
    seed: int


def network_named(name: str) -> NetworkExport:
    """The entry of `name`. Raises InvalidInputError naming the known ones."""
    if name not in NETWORKS:
        raise InvalidInputError(f"unknown network '{name}'; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def load_network(name: str, kind: str | None, path: Path | str | None) -> nn.Module:
    """The module of a weights file, float32, in evaluation mode, on the CPU.

    kind: one of the network's kinds; None where it has only one. path: None for weights that come with a package.
    Raises InvalidInputError for a kind that is not the network's, CheckpointError for a file that is not of that kind.
    """
    network = network_named(name)
    if kind is None and len(network.kinds) == 1:
        kind = network.kinds[0]
    if kind not in network.kinds:
        given = "no kind" if kind is None else f"kind '{kind}'"
        raise InvalidInputError(f"{given} of weights for the network '{name}': give one of {', '.join(network.kinds)}")
    module = network.load(kind, None if path is None else Path(path))
    network.require(module)
    return module.eval()


@torch.no_grad()
def build_graphs(name: str, module: nn.Module, options: Options) -> dict[str, onnx.ModelProto]:
    """Graph name -> float32 model, not compared yet. Raises InvalidInputError for a foreign module or option."""
    network = network_named(name)
    network.require(module)
    chosen = network.chosen(options)
    with torch.random.fork_rng(devices=[]):
        return {graph.name: graph.build(module, chosen) for graph in network.graphs_of(module)}


@torch.no_grad()
def graph_parity(
    graph: GraphExport,
    module: nn.Module,
    model: onnx.ModelProto,
    options: Options,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> dict[str, Figures]:
    """Output name -> figures of `model`, run by ONNX Runtime, against the module. options: complete (`chosen`)."""
    inputs = graph.probe_inputs(module, seed, samples, options)
    wanted = graph.reference(module, inputs, options)
    made = dict(zip((value.name for value in model.graph.output), run_graph(model, inputs), strict=True))
    return {name: figures(graph.outputs[name].kind, made[name], value) for name, value in wanted.items()}


def export_network(
    name: str, module: nn.Module, folder: Path | str, *, seed: int = 0, samples: int = SAMPLES, **options: str
) -> Exported:
    """Rewrite, export, compare with PyTorch, then write GRAPH.onnx of each graph into `folder` (atomic each).

    Raises InvalidInputError for a foreign module or option, EngineError when a graph differs from the module (nothing
    is written), OutputError when a file cannot be written.
    """
    network = network_named(name)
    chosen = network.chosen(options)
    models = build_graphs(name, module, chosen)
    parity: dict[str, Figures] = {}
    for graph in network.graphs_of(module):
        found = graph_parity(graph, module, models[graph.name], chosen, seed=seed, samples=samples)
        for output, values in found.items():
            graph.outputs[output].require(f"{graph.name}.onnx, output {output},", values)
            parity[f"{graph.name}.{output}"] = values
    place = make_folder(folder)
    files = {stem: place / f"{stem}.onnx" for stem in models}
    for stem, path in files.items():
        write_bytes(path, models[stem].SerializeToString(deterministic=True))
    return Exported(name, files, parity, chosen, network.rows_depend(chosen), samples, seed)
