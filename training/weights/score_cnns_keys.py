"""Published names of the score CNNs' tensors, and networks made from published state dicts
(docs/spec/cnn.md, sections 2 to 10).

The width of a network is read off its hidden layer, so files of any width can be imported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from torch import Tensor, nn

from ohlora.training.nets.score_cnns import (
    CLASSIFIERS,
    HAIRSTYLE,
    MAX_WIDTH,
    PROPERTY_PARTS,
    ClassifierCnn,
    ClassifierConfig,
    CropCnn,
    HairstyleCnn,
    HairstyleCnnConfig,
    MergedCnn,
    Network,
    PropertyCnn,
    PropertyCnnConfig,
    Tower,
    width_of_hidden,
)
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork

ScoreCnn = ClassifierCnn | PropertyCnn | HairstyleCnn | MergedCnn

LEAVES = ("weight", "bias")
HIDDEN = "fc1.0.weight"
SIDES = ("bottom_left_cnn.", "bottom_right_cnn.")
HAIRSTYLE_PREFIX = "hairstyle_score_cnn."


def part_prefix(part: str) -> str:
    return f"{part}_score_cnn."


def layout_of(module: ScoreCnn) -> Layout:
    """Published name -> our name."""
    if isinstance(module, ClassifierCnn):
        # The last layer is published as a pair with its sigmoid.
        return Layout(_crop_names(module, ("",), "fc_final.0"))
    if isinstance(module, HairstyleCnn):
        return Layout(_crop_names(module, SIDES))
    if isinstance(module, PropertyCnn):
        return Layout(branch_names(module.parts))
    properties = layout_of(module.properties).inside("", "properties.")
    return Layout(properties | layout_of(module.hairstyle).inside(HAIRSTYLE_PREFIX, "hairstyle."))


def branch_names(parts: nn.ModuleDict) -> dict[str, str]:
    """Of some of the property CNN's parts, which a network has as `parts`."""
    names: dict[str, str] = {}
    for name, part in parts.items():
        names |= Layout(_crop_names(cast(CropCnn, part), ("",))).inside(part_prefix(name), f"parts.{name}.")
    return names


def _crop_names(module: CropCnn, prefixes: tuple[str, ...], last: str = "fc_final") -> dict[str, str]:
    pairs = {"fc1.0": "hidden", last: "output"}
    for t, (prefix, tower) in enumerate(zip(prefixes, module.towers, strict=True)):
        for c in range(len(cast(Tower, tower).convs)):
            pairs[f"{prefix}conv{c + 1}.0"] = f"towers.{t}.convs.{c}"
    return {f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in pairs.items() for leaf in LEAVES}


def _width(state: Mapping[str, Tensor], network: Network, prefix: str = "") -> float:
    """The width of the file's network; 1 for a file of anything else, which strict loading then tells apart."""
    hidden = state.get(prefix + HIDDEN)
    if hidden is None or hidden.ndim != 2:
        return 1.0
    width = width_of_hidden(hidden.shape[0], network.hidden)
    return width if width <= MAX_WIDTH and network.flat(width) == hidden.shape[1] else 1.0


def branches_width(state: Mapping[str, Tensor]) -> float:
    """The width of a file that has branches of the property CNN."""
    first = next(iter(PROPERTY_PARTS))
    return _width(state, PROPERTY_PARTS[first], part_prefix(first))


def _fitting(name: str, state: Mapping[str, Tensor]) -> ScoreCnn:
    """The network `name` with fresh weights, at the width of a published file."""
    if name == "merged":
        return _merged(branches_width(state), _width(state, HAIRSTYLE, HAIRSTYLE_PREFIX))
    if name == "property":
        return make(name, branches_width(state))
    return make(name, _width(state, HAIRSTYLE if name == "hairstyle" else CLASSIFIERS[name]))


def make(name: str, width: float = 1.0) -> ScoreCnn:
    """A network with fresh weights: an attribute, "property", "hairstyle" or "merged"."""
    if name == "property":
        return PropertyCnn(PropertyCnnConfig(width))
    if name == "hairstyle":
        return HairstyleCnn(HairstyleCnnConfig(width))
    return _merged(width, width) if name == "merged" else ClassifierCnn(ClassifierConfig(name, width))


def _merged(properties: float, hairstyle: float) -> MergedCnn:
    return MergedCnn(PropertyCnn(PropertyCnnConfig(properties)), HairstyleCnn(HairstyleCnnConfig(hairstyle)))


def score_cnn(name: str) -> PublishedNetwork[ScoreCnn]:
    """The network `name`, as in `make`."""
    return PublishedNetwork(layout_of, functools.partial(_fitting, name), own=_from_config, config=_config_of)


def _from_config(config: dict[str, Any]) -> ScoreCnn:
    if "attribute" in config:
        return ClassifierCnn(ClassifierConfig(**config))
    if config["network"] == "merged":
        return _merged(config["properties"]["width"], config["hairstyle"]["width"])
    return make(config["network"], config["width"])


def _config_of(module: ScoreCnn) -> dict[str, Any]:
    names: dict[type, str] = {PropertyCnn: "property", HairstyleCnn: "hairstyle", MergedCnn: "merged"}
    network = {"network": names[type(module)]} if type(module) in names else {}
    return network | asdict(module.config)
