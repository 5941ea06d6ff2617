"""Students -> ONNX: picture bytes in, hair probability or class ids out, everything between inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from ohlora.base.atomic import write_bytes
from ohlora.export.graphs.from_torch import TRACED_BATCH, to_onnx
from ohlora.export.graphs.pictures import PictureGraph, first_class
from ohlora.export.rewrites.student import rewrite_student
from ohlora.training.data.parsing_classes import HAIR
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet

# Tensors below this stay float32: they are biases and norms, where rounding costs most and saves nothing.
HALF_FROM = 256


Role = Literal["hair", "parsing"]


def student_module(model: EffiSegNet, role: Role) -> PictureGraph:
    """Rewritten, of bytes: hair float32 [N,224,224], or class ids, which need no soft-max."""
    student, hair = rewrite_student(model), hair_output(model)
    if role == "hair":
        return PictureGraph(lambda x: student(x)[:, hair], student=student)
    return PictureGraph(lambda x: first_class(student.logits(x)), student=student)


def hair_output(model: EffiSegNet) -> int:
    """The output of a student that is hair: the only one, or the class."""
    return 0 if model.outputs == 1 else HAIR


def export_student(model: EffiSegNet, path: Path, role: Role | None = None, *, half_weights: bool = True) -> None:
    """Rewrite, export and check.

    role: "hair" gives the output `hair`, also of a student of classes; "parsing" gives `parsing`; None: what the
    student was made for. half_weights: store large weights as float16 (half the file), compute in float32.
    Raises CheckpointError for encoders that cannot be rewritten.
    """
    example = torch.zeros((TRACED_BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
    role = role or ("hair" if model.outputs == 1 else "parsing")
    graph = to_onnx(student_module(model, role), {"image": example}, role)
    if half_weights:
        halve_weights(graph)
    onnx.checker.check_model(graph)
    write_bytes(path, graph.SerializeToString(deterministic=True))


def halve_weights(model: onnx.ModelProto) -> None:
    """Store large float32 initialisers as float16 with a Cast behind them; backends fold it when they load."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_FROM:
            continue
        name, stored = tensor.name, f"{tensor.name}_f16"
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), stored)
        tensor.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])


@torch.no_grad()
def reference_hair(model: EffiSegNet, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the exported graph must give, from the unrewritten float32 module; images uint8 [N,224,224,3]."""
    hair: NDArray[np.float32] = model.eval()(_planes(images))[:, hair_output(model)].numpy()
    return hair


@torch.no_grad()
def reference_logits(model: EffiSegNet, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Class logits [N,C,224,224] of the unrewritten float32 module; images uint8 [N,224,224,3]."""
    return model.eval().logits(_planes(images)).numpy()


def _planes(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
