"""Numbers put into an ONNX graph by name, without the package onnx: its bytes are copied, tensors are written anew.

Graphs that ship without weights say of each tensor its name, type and shape, and that its data lie elsewhere. A filled
graph is one self-contained file, so that its hash covers the weights, and every reader of ONNX takes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.model_file import fields
from ohlora.errors import EngineError

# Field numbers of onnx.proto.
GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
TYPED_DATA = (4, 5, 6, 7, 10, 11)  # float_data, int32_data ...: other places for a tensor's values
FLOAT, EXTERNAL = 1, 1
Fields = list[tuple[int, int | memoryview]]


def fill_graph(model: bytes, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """`model` with these arrays as its initializers of the same names; everything else stays, byte for byte.

    Raises EngineError for an array that no initializer takes, one of another shape, an initializer whose data would
    still be missing, and for bytes that are not an ONNX model.
    """
    left = dict(arrays)
    try:
        filled = b"".join(message(_model(memoryview(model), left)))
    except (ValueError, IndexError) as error:
        raise EngineError(f"this is not an ONNX model, or it is damaged ({error}): get it again") from error
    if left:
        raise EngineError(f"the graph has no initializer {', '.join(sorted(left)[:3])}: it belongs to other weights")
    return filled


def initializer_arrays(model: bytes, ending: str) -> dict[str, NDArray[np.float32]]:
    """The float32 initializers of `model` whose names end so. Raises EngineError for what is not an ONNX model."""
    arrays = {}
    try:
        for graph in (payload(value) for number, value in fields(memoryview(model)) if number == GRAPH):
            for tensor in (payload(value) for number, value in fields(graph) if number == INITIALIZER):
                found = list(fields(tensor))
                name, data = (text(found, number) for number in (NAME, RAW_DATA))
                if name.decode().endswith(ending) and (DATA_TYPE, FLOAT) in found and data:
                    arrays[name.decode()] = np.frombuffer(data, "<f4").reshape(tuple(_dims(found))).astype(np.float32)
    except (ValueError, IndexError) as error:
        raise EngineError(f"this is not an ONNX model, or it is damaged ({error}): get it again") from error
    return arrays


def text(found: Fields, number: int) -> bytes:
    return next((bytes(payload(value)) for key, value in found if key == number), b"")


def _model(data: memoryview, left: dict[str, NDArray[np.float32]]) -> Iterator[tuple[int, int | bytes | memoryview]]:
    for number, value in fields(data):
        yield number, b"".join(message(_graph(payload(value), left))) if number == GRAPH else value


def _graph(data: memoryview, left: dict[str, NDArray[np.float32]]) -> Iterator[tuple[int, int | bytes | memoryview]]:
    for number, value in fields(data):
        yield number, _tensor(payload(value), left) if number == INITIALIZER else value


def _tensor(data: memoryview, left: dict[str, NDArray[np.float32]]) -> bytes | memoryview:
    found: Fields = list(fields(data))
    name = text(found, NAME).decode()
    array = left.pop(name, None)
    if array is None:
        if (DATA_LOCATION, EXTERNAL) in found:
            raise EngineError(
                f"there is no data for the graph's initializer {name}: the weights belong to another graph"
            )
        return data
    dims = tuple(_dims(found))
    kind = next((value for number, value in found if number == DATA_TYPE), None)
    if kind != FLOAT or dims != array.shape or array.dtype != np.float32:
        expected = f"{'float32' if kind == FLOAT else 'not float32'} {list(dims)}"
        raise EngineError(f"the graph's initializer {name} is {expected}, got {array.dtype} {list(array.shape)}")
    dropped = (RAW_DATA, EXTERNAL_DATA, DATA_LOCATION, *TYPED_DATA)
    kept: list[tuple[int, Any]] = [(number, value) for number, value in found if number not in dropped]
    return b"".join(message([*kept, (RAW_DATA, np.ascontiguousarray(array, "<f4").tobytes())]))


def _dims(found: Fields) -> Iterator[int]:
    for number, value in found:
        if number != DIMS:
            continue
        if isinstance(value, int):
            yield value
            continue
        position = 0  # packed
        while position < len(value):
            length = next(i for i in range(position, len(value)) if value[i] < 0x80) + 1 - position
            yield sum((value[position + i] & 0x7F) << (7 * i) for i in range(length))
            position += length


def message(found: Any) -> Iterator[bytes | memoryview]:
    """Bytes of a message; only numbers and payloads of variable length, which is all that these messages have."""
    for number, value in found:
        if isinstance(value, int):
            yield _varint(number << 3) + _varint(value)
        else:
            yield _varint(number << 3 | 2) + _varint(len(value))
            yield value


def _varint(value: int) -> bytes:
    count = max(1, math.ceil(value.bit_length() / 7))
    return bytes((value >> (7 * i)) & 0x7F | (0x80 if i < count - 1 else 0) for i in range(count))


def payload(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message belongs")
    return value
