"""What one entry of the table of networks says (`table.NETWORKS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray
from torch import nn

from ohlora.base.types import check_choice
from ohlora.errors import InvalidInputError
from ohlora.export.networks.compare import Kind

Options = Mapping[str, str]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GraphExport:
    """One ONNX file of a network.

    build(module, options): the checked model. reference(module, inputs, options): outputs of the unrewritten module by
    name, float64 where that is affordable, else float32. probe_inputs(module, seed, count, options): realistic inputs
    by name. outputs: what each is. needed: whether a module has this graph at all.
    """

    name: str
    build: Callable[[Any, Options], onnx.ModelProto]
    reference: Callable[[Any, Arrays, Options], Arrays]
    probe_inputs: Callable[[Any, int, int, Options], Arrays]
    outputs: Mapping[str, Kind]
    needed: Callable[[Any], bool] = lambda module: True


@dataclass(frozen=True)
class NetworkExport:
    """One network.

    kinds: of `training.checkpoints`, or own formats (`registry.LOADERS`). module: its class.
    classifier attributes share a class: `attribute` tells them apart.
    options: name -> choices, the first of which is the default.
    rows_depend: whether, with these options, a row of a batch depends on the others. Such a graph must not be run row
        by row: that changes what it means.
    """

    name: str
    kinds: tuple[str, ...]
    module: type[nn.Module]
    graphs: tuple[GraphExport, ...]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows_depend: Callable[[Options], bool] = lambda options: False
    attribute: str | None = None

    def chosen(self, given: Options) -> dict[str, str]:
        """The given options and defaults for the rest. Raises InvalidInputError for an unknown option or choice."""
        for name, value in given.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise InvalidInputError(f"the network '{self.name}' has no option '{name}'; it has {known}")
            check_choice(name, value, self.options[name])
        return {name: choices[0] for name, choices in self.options.items()} | dict(given)

    def require(self, module: nn.Module) -> None:
        """Raises InvalidInputError for a module of another network."""
        found = getattr(getattr(module, "config", None), "attribute", None)
        if not isinstance(module, self.module) or (self.attribute is not None and found != self.attribute):
            what = f"{type(module).__name__}{f' ({found})' if found else ''}"
            raise InvalidInputError(f"a {what} is no '{self.name}': name the network that the module belongs to")

    def graphs_of(self, module: nn.Module) -> tuple[GraphExport, ...]:
        return tuple(graph for graph in self.graphs if graph.needed(module))
