"""Reading an ONNX file once: the bytes that are hashed are the bytes that are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ohlora.base.reading import read_file
from ohlora.errors import EngineError

# Field numbers of onnx.proto (IR version 3 onwards) on every way from a model down to a tensor.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TENSOR_NAME, _TENSOR_LOCATION, _EXTERNAL = 8, 14, 1


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model as read from disk."""

    path: Path
    data: bytes
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def quantized(self) -> bool:
        """Whether it computes in int8 somewhere (the operation's name stands in the file as it is)."""
        return b"DequantizeLinear" in self.data

    @property
    def rows_depend(self) -> bool:
        """Whether a row of a batch depends on the others, as exporters note it in the file's metadata."""
        return b"ohlora.rows\x12\x09dependent" in self.data

    def require_independent_rows(self) -> None:
        """Raises EngineError where a row depends on its batch: engines compute rows alone, or beside filled-up ones."""
        if self.rows_depend:
            raise EngineError(
                f"{self.path} computes rows that depend on their batch, and engines here compute each by itself: "
                "export it with --option statistics=alone, or run it with ONNX Runtime itself"
            )

    def precision_label(self, precision: str) -> str:
        """What an engine says it computes in, its float part in `precision`: 'fp32', 'int8', 'int8+bf16' ..."""
        if not self.quantized:
            return precision
        return "int8" if precision == "fp32" else f"int8+{precision}"


def read_model_file(source: Path | str | ModelFile) -> ModelFile:
    """Read an ONNX file. Raises EngineError when it is absent, not ONNX, or keeps weights in a second file.

    Weights outside the file would be covered neither by its hash nor by a bundle's list of files.
    source: a path, or a model that was read or made before, which is returned as it is.
    """
    if isinstance(source, ModelFile):
        return source
    path = Path(source)
    data = read_file(path, "model", EngineError)
    try:
        external = next(_external_tensors(memoryview(data)), None)
    except (ValueError, IndexError, RecursionError) as error:
        raise EngineError(f"{path} is not an ONNX model or is damaged: export or download it again") from error
    if external is not None:
        raise EngineError(
            f"{path} keeps weights ('{external}') in a separate file: export it as one file "
            "(onnx.save without external data)"
        )
    return ModelFile(path, data, hashlib.sha256(data).hexdigest())


def _external_tensors(data: memoryview, kind: str = "model") -> Iterator[str]:
    if kind == "tensor":
        found = dict(fields(data))
        if found.get(_TENSOR_LOCATION) == _EXTERNAL:
            name = found.get(_TENSOR_NAME, b"")
            yield bytes(name).decode(errors="replace") if not isinstance(name, int) else "?"
        return
    seen_graph = False
    for number, value in fields(data):
        child = _CHILDREN[kind].get(number)
        if child and not isinstance(value, int):
            seen_graph |= child == "graph"
            yield from _external_tensors(value, child)
    if kind == "model" and not seen_graph:
        raise ValueError("no graph")


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Top-level fields of one protobuf message: (number, varint) or (number, payload); payloads are views.

    Raises ValueError or IndexError for bytes that are not one.
    """
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > end:
            raise ValueError("truncated")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
