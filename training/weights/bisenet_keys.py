"""Names of the published 19-class face parser (`79999_iter.pth` of face-parsing.PyTorch) -> ours."""

from __future__ import annotations

from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork

MODULES = {
    "backbone": "cp.resnet",
    "context": "cp.conv_avg",
    "refine16": "cp.arm16",
    "refine32": "cp.arm32",
    "head16": "cp.conv_head16",
    "head32": "cp.conv_head32",
    "fusion.conv": "ffm.convblk",
    "fusion": "ffm",
    "out": "conv_out",
    "out16": "conv_out16",
    "out32": "conv_out32",
}
PARTS = {
    "norm": "bn",
    "gate": "conv_atten",
    "gate_norm": "bn_atten",
    "head": "conv_out",
    "squeeze": "conv1",
    "expand": "conv2",
}


def published_name(ours: str) -> str:
    """Key of our state dict -> key of the published file."""
    module = max((m for m in MODULES if ours.startswith(f"{m}.")), key=len)
    rest = ours.removeprefix(f"{module}.").split(".")
    if module != "backbone":  # which has the names of torchvision on both sides
        rest = [PARTS.get(part, part) for part in rest]
    return ".".join([MODULES[module], *rest])


PARSER = PublishedNetwork(
    lambda module: Layout({published_name(key): key for key in module.state_dict()}), lambda state: BiSeNet()
)
