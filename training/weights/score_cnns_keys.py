"""Published names of the score CNNs' tensors, and networks made from published state dicts
(docs/spec/cnn.md, sections 2 to 10).

The width of a network is read off its hidden layer, so files of any width can be imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
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
from ohlora.training.weights.state_dicts import Layout, Shapes, load_layout

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
        names: dict[str, str] = {}
        for name in PROPERTY_PARTS:
            part = _crop_names(cast(CropCnn, module.parts[name]), ("",))
            names |= {part_prefix(name) + theirs: f"parts.{name}.{ours}" for theirs, ours in part.items()}
        return Layout(names)
    properties = {theirs: f"properties.{ours}" for theirs, ours in layout_of(module.properties).names.items()}
    hairstyle = {
        HAIRSTYLE_PREFIX + theirs: f"hairstyle.{ours}" for theirs, ours in layout_of(module.hairstyle).names.items()
    }
    return Layout({**properties, **hairstyle})


def _crop_names(module: CropCnn, prefixes: tuple[str, ...], last: str = "fc_final") -> dict[str, str]:
    pairs = {"fc1.0": "hidden", last: "output"}
    for t, (prefix, tower) in enumerate(zip(prefixes, module.towers, strict=True)):
        for c in range(len(cast(Tower, tower).convs)):
            pairs[f"{prefix}conv{c + 1}.0"] = f"towers.{t}.convs.{c}"
    return {f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in pairs.items() for leaf in LEAVES}


def published_state(module: ScoreCnn) -> dict[str, Tensor]:
    """State dict of `module` under the published names, for other programs of the family."""
    return layout_of(module).rename(module)


def import_classifier(state: Mapping[str, Tensor], attribute: str) -> ClassifierCnn:
    """A classifier of `attribute` from its published state dict. Raises CheckpointError."""
    module = ClassifierCnn(ClassifierConfig(attribute, _width(state, HIDDEN, CLASSIFIERS[attribute])))
    load_layout(module, state, layout_of(module))
    return module


def import_property_cnn(state: Mapping[str, Tensor]) -> PropertyCnn:
    """The seven-output CNN from its published state dict. Raises CheckpointError."""
    first = next(iter(PROPERTY_PARTS))
    key = part_prefix(first) + HIDDEN
    module = PropertyCnn(PropertyCnnConfig(_width(state, key, PROPERTY_PARTS[first])))
    load_layout(module, state, layout_of(module))
    return module


def import_hairstyle_cnn(state: Mapping[str, Tensor]) -> HairstyleCnn:
    """The hairstyle CNN from its published state dict. Raises CheckpointError."""
    module = HairstyleCnn(HairstyleCnnConfig(_width(state, HIDDEN, HAIRSTYLE)))
    load_layout(module, state, layout_of(module))
    return module


def import_merged_cnn(state: Mapping[str, Tensor]) -> MergedCnn:
    """The eight-output CNN from its published state dict. Raises CheckpointError."""
    inside = {k.removeprefix(HAIRSTYLE_PREFIX): v for k, v in state.items() if k.startswith(HAIRSTYLE_PREFIX)}
    others = {k: v for k, v in state.items() if not k.startswith(HAIRSTYLE_PREFIX)}
    return MergedCnn(import_property_cnn(others), import_hairstyle_cnn(inside))


def _width(state: Mapping[str, Tensor], key: str, network: Network) -> float:
    """The width of the file's network; 1 for a file of anything else, which strict loading then tells apart."""
    hidden = state.get(key)
    if hidden is None or hidden.ndim != 2:
        return 1.0
    width = width_of_hidden(hidden.shape[0], network.hidden)
    return width if width <= MAX_WIDTH and network.flat(width) == hidden.shape[1] else 1.0


def published_shapes(name: str) -> Shapes:
    """Published keys and shapes of the documented network: an attribute, "property", "hairstyle" or "merged"."""
    with torch.device("meta"):
        module = make(name)
    return layout_of(module).shapes(module)


def make(name: str, width: float = 1.0) -> ScoreCnn:
    """A network with fresh weights: an attribute, "property", "hairstyle" or "merged"."""
    if name == "property":
        return PropertyCnn(PropertyCnnConfig(width))
    if name == "hairstyle":
        return HairstyleCnn(HairstyleCnnConfig(width))
    if name == "merged":
        return MergedCnn(PropertyCnn(PropertyCnnConfig(width)), HairstyleCnn(HairstyleCnnConfig(width)))
    return ClassifierCnn(ClassifierConfig(name, width))


def from_upstream(state: Mapping[str, Tensor], name: str) -> ScoreCnn:
    """The network `name` (as in `make`) from its published state dict. Raises CheckpointError."""
    if name == "property":
        return import_property_cnn(state)
    if name == "hairstyle":
        return import_hairstyle_cnn(state)
    return import_merged_cnn(state) if name == "merged" else import_classifier(state, name)


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """A module with fresh weights from what `config_of` stored."""
    if "attribute" in config:
        return ClassifierCnn(ClassifierConfig(**config))
    if config["network"] == "merged":
        properties, hairstyle = config["properties"], config["hairstyle"]
        return MergedCnn(PropertyCnn(PropertyCnnConfig(**properties)), HairstyleCnn(HairstyleCnnConfig(**hairstyle)))
    return make(config["network"], config["width"])


def config_of(module: ScoreCnn) -> dict[str, Any]:
    """The configuration as plain values, to be stored beside the weights."""
    if isinstance(module, ClassifierCnn):
        return asdict(module.config)
    names: dict[type, str] = {PropertyCnn: "property", HairstyleCnn: "hairstyle", MergedCnn: "merged"}
    return {"network": names[type(module)], **asdict(module.config)}
