"""Names of the published hair student (`segmentation_model_ohlora_v4.pth`) -> ours
(docs/spec/segmentation.md, section 5).
"""

from __future__ import annotations

import re

from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER, EffiSegNet
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork, Shapes

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Blocks per stack of EfficientNet-B0; the published block index counts over all stacks.
STACKS = (1, 2, 2, 3, 3, 4, 1)
# Saved but never used: the classifier's last convolution and its norm.
DEAD: Shapes = {
    "encoder._conv_head.weight": (1280, 320, 1, 1),
    **{f"encoder._bn1.{name}": (1280,) for name in NORM[:4]},
    "encoder._bn1.num_batches_tracked": (),
}


def _norm(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{ours}.{name}" for name in NORM}


def _encoder() -> dict[str, str]:
    names = {"encoder._conv_stem.weight": "encoder.conv_stem.weight", **_norm("encoder._bn0", "encoder.bn1")}
    index = 0
    for stack, count in enumerate(STACKS):
        for position in range(count):
            theirs, ours = f"encoder._blocks.{stack}.{index}", f"encoder.blocks.{stack}.{position}"
            expands = stack > 0  # the first stack has no expansion, and its projection is called pw, not pwl
            if expands:
                names[f"{theirs}._expand_conv.weight"] = f"{ours}.conv_pw.weight"
                names |= _norm(f"{theirs}._bn0", f"{ours}.bn1")
            names[f"{theirs}._depthwise_conv.weight"] = f"{ours}.conv_dw.weight"
            names |= _norm(f"{theirs}._bn1", f"{ours}.bn{2 if expands else 1}")
            for part in ("weight", "bias"):
                names[f"{theirs}._se_reduce.{part}"] = f"{ours}.se.conv_reduce.{part}"
                names[f"{theirs}._se_expand.{part}"] = f"{ours}.se.conv_expand.{part}"
            names[f"{theirs}._project_conv.weight"] = f"{ours}.conv_pw{'l' if expands else ''}.weight"
            names |= _norm(f"{theirs}._bn2", f"{ours}.bn{3 if expands else 2}")
            index += 1
    return names


def _decoder() -> dict[str, str]:
    names = {"conv6.weight": "decoder.head.weight", **_norm("bn6", "decoder.norm")}
    for level in range(5):
        names[f"conv{level + 1}.weight"] = f"decoder.branches.{level}.conv.weight"
        names |= _norm(f"bn{level + 1}", f"decoder.branches.{level}.norm")
    for ghost in ("ghost1", "ghost2"):
        for theirs, ours in (("primary_conv", "primary"), ("cheap_operation", "cheap")):
            names[f"{ghost}.{theirs}.0.weight"] = f"decoder.{ghost}.{ours}.conv.weight"
            names |= _norm(f"{ghost}.{theirs}.2", f"decoder.{ghost}.{ours}.norm")
    return names


LAYOUT = Layout({**_encoder(), **_decoder()})

# The ImageNet file that the documented encoder started from counts its blocks without naming the stack.
_IMAGENET_BLOCK = re.compile(r"^_blocks\.\d+\.(\d+)\.")
IMAGENET_LAYOUT = Layout(
    {
        _IMAGENET_BLOCK.sub(r"_blocks.\1.", theirs.removeprefix("encoder.")): ours.removeprefix("encoder.")
        for theirs, ours in _encoder().items()
    }
)
CLASSIFIER = frozenset(
    ("_conv_head.weight", *(f"_bn1.{name}" for name in NORM), "_fc.weight", "_fc.bias"),
)

STUDENT = PublishedNetwork(lambda module: LAYOUT, lambda state: EffiSegNet(DOCUMENTED_ENCODER), DEAD)
