"""The hair finder as the documented system runs it: fed 256x256 images though it was trained on 224x224 ones.

Convolutions do not mind. The features are 128, 64, 32, 16 and 8 wide then, and the documented network brings all of
them to 224 by nearest sampling (docs/spec/segmentation.md, section 5). A bundle's graph doubles each level up to the
finest one first, which picks the same pixels, and has one more step to the size of the map: that step alone changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ohlora.bundle.photo.fill_graph import GRAPH, INITIALIZER, NAME, initializer_arrays, message, payload, text
from ohlora.engines.model_file import ModelFile, fields
from ohlora.errors import EngineError

# Field numbers of onnx.proto.
NODE, INPUT, VALUE_INFO = 1, 11, 13
NODE_INPUT, NODE_OUTPUT, NODE_OP, NODE_ATTRIBUTE = 1, 2, 4, 5
VALUE_NAME, VALUE_TYPE, TENSOR_TYPE, TENSOR_SHAPE, SHAPE_DIM, DIM_VALUE = 1, 2, 1, 2, 1, 1
TENSOR_DIMS, TENSOR_TYPE_FIELD, TENSOR_RAW, FLOAT = 1, 2, 9, 1

TRAINED, DOCUMENTED = 224, 256
SCALES = "documented_scales"
Found = list[tuple[int, int | memoryview]]
Written = tuple[int, int | bytes | memoryview]


def documented_side(side: int) -> int:
    """What a finder for images of `side` is fed: 256 in place of 224. Raises EngineError for a side without one."""
    if side * DOCUMENTED % TRAINED:
        raise EngineError(f"a hair finder of {side}x{side} images has no documented form: the documented one is of 224")
    return side * DOCUMENTED // TRAINED


def documented_finder(model: ModelFile, side: int) -> ModelFile:
    """The same network for images of `documented_side(side)`; its maps stay `side` wide.

    Raises EngineError for a graph whose size cannot be changed so.
    """
    try:
        data = b"".join(message(_model(model.data, side, documented_side(side))))
    except (ValueError, IndexError) as error:
        raise EngineError(
            f"{model.name} cannot be fed {documented_side(side)}x{documented_side(side)} images ({error}): build the "
            "bundle of a student of `ohlora train distill`, or leave --compat out"
        ) from error
    return ModelFile(model.path, data, hashlib.sha256(data).hexdigest())


def _model(data: bytes, side: int, fed: int) -> Iterator[Written]:
    for number, value in fields(memoryview(data)):
        yield number, b"".join(message(_graph(data, payload(value), side, fed))) if number == GRAPH else value


def _graph(model: bytes, data: memoryview, side: int, fed: int) -> Iterator[Written]:
    found: Found = list(fields(data))
    nodes = [list(fields(payload(value))) for number, value in found if number == NODE]
    last = _last_resizes(nodes)
    if not last:
        raise ValueError("it has no step that enlarges features to the map")
    scales = _scales(model, [nodes[i] for i in last]) * np.array([1, 1, side / fed, side / fed])
    at = -1
    for number, value in found:
        if number == VALUE_INFO:  # sizes in between, which are others now
            continue
        if number == NODE:
            at += 1
            yield number, b"".join(message(_rescaled(nodes[at]))) if at in last else value
        elif number == INPUT and text(list(fields(payload(value))), VALUE_NAME) == b"image":
            yield number, _resized(payload(value), (VALUE_TYPE, TENSOR_TYPE, TENSOR_SHAPE), side, fed)
        else:
            yield number, value
    raw = scales.astype("<f4").tobytes()
    tensor = [(TENSOR_DIMS, 4), (TENSOR_TYPE_FIELD, FLOAT), (NAME, SCALES.encode()), (TENSOR_RAW, raw)]
    yield INITIALIZER, b"".join(message(tensor))


def _last_resizes(nodes: list[Found]) -> set[int]:
    """Numbers of the resizes that no other one follows. Nodes of a graph stand in order."""
    leading: set[bytes] = set()  # tensors that a later resize is made of
    last = set()
    for i, node in reversed(list(enumerate(nodes))):
        resizes = text(node, NODE_OP) == b"Resize"
        followed = any(name in leading for name in _names(node, NODE_OUTPUT))
        if resizes and not followed:
            last.add(i)
        if resizes or followed:
            leading.update(_names(node, NODE_INPUT))
    return last


def _scales(model: bytes, nodes: list[Found]) -> np.ndarray:
    """[1, 1, s, s] of nodes that sample the nearest pixel, rounding down."""
    for node in nodes:
        said = b"".join(bytes(payload(value)) for number, value in node if number == NODE_ATTRIBUTE)
        if not all(word in said for word in (b"nearest", b"asymmetric", b"floor")):
            raise ValueError("it enlarges features otherwise than by nearest sampling")
    names = {_names(node, NODE_INPUT)[2] for node in nodes if len(_names(node, NODE_INPUT)) == 3}
    arrays = [initializer_arrays(model, name.decode()).get(name.decode()) for name in names]
    if len(arrays) != 1 or arrays[0] is None or arrays[0].shape != (4,):
        raise ValueError("it enlarges features by other than one constant scale")
    return arrays[0].astype(np.float64)


def _rescaled(node: Found) -> Iterator[Written]:
    seen = 0
    for number, value in node:
        seen += number == NODE_INPUT
        yield number, SCALES.encode() if number == NODE_INPUT and seen == 3 else value


def _names(node: Found, number: int) -> list[bytes]:
    return [bytes(payload(value)) for key, value in node if key == number]


def _resized(data: memoryview, path: tuple[int, ...], side: int, fed: int) -> bytes:
    """A description of a tensor, in which lengths of `side` become `fed`. path: fields down to its shape."""
    inner = path[0] if path else SHAPE_DIM

    def lengths() -> Iterator[Written]:
        for number, value in fields(data):
            if number != inner:
                yield number, value
            elif path:
                yield number, _resized(payload(value), path[1:], side, fed)
            else:
                said = fields(payload(value))
                dim = [(key, fed if (key, length) == (DIM_VALUE, side) else length) for key, length in said]
                yield number, b"".join(message(dim))

    return b"".join(message(lengths()))
