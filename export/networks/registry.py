"""Every network of the toolkit that has a graph: what it takes, how it is built, judged and loaded.

    module = load_network("facexformer", "facexformer", "model.pt")
    graph = module_graphs("facexformer", module)["facexformer"]() -> Graph(model=..., parity={"parsing": ...}, ...)

`NETWORKS` is the table; a further network is one entry. Graphs are standard ONNX with any batch size, weights inside;
pictures come in as uint8 RGB and are prepared inside. Rewrites are exact (`passes`); every graph is compared with the
unrewritten PyTorch module on realistic inputs before anybody gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import nn

from ohlora.base.types import check_choice
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.mtcnn import SOURCE
from ohlora.export.networks.compare import EXACT, Figures, Kind, figures
from ohlora.export.networks.entry import Arrays, GraphExport, NetworkExport, Options
from ohlora.export.networks.graphs import FaceNetworks
from ohlora.export.networks.table import NETWORKS, OWN_PARSER, OWN_READER, OWN_STUDENT
from ohlora.training import checkpoints
from ohlora.training.directions.reader import load_reader
from ohlora.training.teachers.mtcnn import published_detector
from ohlora.training.weights.student import load_parser, load_student

SAMPLES = 3  # that parity is measured on; not the batch size that graphs are traced with: a frozen one cannot pass

# Kinds that have file formats of their own; the others are `training.checkpoints`'.
LOADERS: Mapping[str, Callable[[Path], nn.Module]] = {
    OWN_STUDENT: load_student,
    OWN_PARSER: load_parser,
    OWN_READER: load_reader,
}


def _without_module(inputs: Arrays) -> Arrays:
    raise EngineError("a graph of a bundle has no PyTorch module beside it")


@dataclass(frozen=True)
class Graph:
    """One network to export, float32.

    inputs(n): realistic inputs of n rows. output: name and kind of the result that is judged. parity: figures against
    PyTorch, where there is a module. eager(inputs): the unrewritten PyTorch module's results, where there is one.
    rows_depend: a row depends on its batch.
    """

    name: str
    model: onnx.ModelProto
    inputs: Callable[[int], Arrays]
    output: str
    kind: Kind
    parity: Mapping[str, Figures] = field(default_factory=dict)
    eager: Callable[[Arrays], Arrays] = _without_module
    rows_depend: bool = False


def network_named(name: str) -> NetworkExport:
    """The entry of `name`. Raises InvalidInputError naming the known ones."""
    return NETWORKS[check_choice("network", name, NETWORKS)]


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
    if kind == SOURCE:
        if path is not None:
            raise InvalidInputError(f"the face networks' weights come with {SOURCE}: give no file, got {path}")
        detector = published_detector()
        return FaceNetworks(detector.pnet, detector.rnet, detector.onet).eval()
    if path is None:
        raise InvalidInputError(f"weights of kind '{kind}' are in a file: give its path")
    module = LOADERS.get(kind, partial(checkpoints.load, kind))(Path(path))
    network.require(module)
    return module.eval()


def module_graphs(name: str, module: nn.Module, options: Options | None = None) -> dict[str, Callable[[], Graph]]:
    """Makers of the graphs of a module, compared with it when they are made: EngineError for one that differs.

    Raises InvalidInputError for a foreign module or option.
    """
    network = network_named(name)
    network.require(module)
    chosen = network.chosen(options or {})

    @torch.no_grad()
    def make(graph: GraphExport) -> Graph:
        with torch.random.fork_rng(devices=[]):
            model = graph.build(module, chosen)
        parity = graph_parity(graph, module, model, chosen)
        for output, found in parity.items():
            EXACT[graph.outputs[output]].require(f"{graph.name}.onnx, output {output},", found)
        # A network may lack some of the outputs that its kind knows.
        output = next(value.name for value in model.graph.output if value.name in graph.outputs)
        return Graph(
            graph.name,
            model,
            torch.no_grad()(lambda count: graph.probe_inputs(module, 1, count, chosen)),
            output,
            graph.outputs[output],
            parity,
            torch.no_grad()(lambda inputs: graph.reference(module, inputs, chosen)),
            network.rows_depend(chosen),
        )

    return {graph.name: partial(make, graph) for graph in network.graphs_of(module)}


@torch.no_grad()
def graph_parity(
    graph: GraphExport, module: nn.Module, model: onnx.ModelProto, options: Options, samples: int = SAMPLES
) -> dict[str, Figures]:
    """Output name -> figures of `model`, run by ONNX Runtime, against the module. options: complete (`chosen`)."""
    inputs = graph.probe_inputs(module, 0, samples, options)
    wanted = graph.reference(module, inputs, options)
    made = dict(zip((value.name for value in model.graph.output), run_graph(model, inputs), strict=True))
    return {name: figures(graph.outputs[name], made[name], value) for name, value in wanted.items()}
