"""A model repository for Triton Inference Server: models, configurations, warm-up rows, an ensemble, how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ohlora.base.atomic import write_json
from ohlora.base.version import __version__
from ohlora.bundle.files import file_sha256
from ohlora.engines.spec import TensorSpec
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.formats import Batch
from ohlora.export.triton.config import MODEL_FILE, TYPES, Step, ensemble_config, model_config, parse_config, type_name

REPOSITORY_NAME = "ohlora_repository.json"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}

_DTYPES = {word: kind for kind, word in TYPES.items()}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TritonModel:
    """A network to serve. data: ONNX bytes. rows: real inputs [N, ...] to warm up with."""

    name: str
    data: bytes
    rows: Arrays
    batch: Batch


@dataclass(frozen=True)
class Ensemble:
    """A chain of models. inputs, outputs: tensors of the ensemble, as steps name them."""

    name: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    steps: Sequence[Step]
    max_batch: int


def tensors(model: onnx.ModelProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of an ONNX model, first axis the batch. Raises EngineError for free sides besides it."""

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        kind = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        if None in shape[1:] or not shape:
            raise EngineError(
                f"'{value.name}' has sides that the model leaves open: Triton wants rows of a known shape"
            )
        return TensorSpec(value.name, _ELEMENTS[kind.elem_type], (None, *shape[1:]))

    inferred = onnx.shape_inference.infer_shapes(model)
    return [spec(value) for value in inferred.graph.input], [spec(value) for value in inferred.graph.output]


def write_repository(
    models: Sequence[TritonModel], ensembles: Sequence[Ensemble], folder: Path
) -> dict[str, list[Path]]:
    """Write into the empty `folder`; returns the files of each model.

    Raises InvalidInputError for names that are no folder names or come twice, and models without warm-up rows.
    """
    names = [model.name for model in models] + [ensemble.name for ensemble in ensembles]
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"'{name}' is no name for a Triton model: letters, digits, '_' and '-'")
        if names.count(name) > 1:
            raise InvalidInputError(f"two Triton models are called '{name}'")
    written = {model.name: _write_model(model, folder / model.name) for model in models}
    for one in ensembles:
        config = ensemble_config(one.name, one.inputs, one.outputs, one.max_batch, one.steps)
        # Triton wants a version folder, empty as it is.
        written[one.name] = _write_files(folder / one.name, {"config.pbtxt": config.encode(), "1/.keep": b""})
    content = {
        "ohlora_version": __version__,
        "models": {
            name: {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}
            for name, paths in written.items()
        },
    }
    write_json(folder / REPOSITORY_NAME, content)
    return written


def _write_model(model: TritonModel, place: Path) -> list[Path]:
    inputs, outputs = tensors(onnx.load_from_string(model.data))
    missing = [tensor.name for tensor in inputs if tensor.name not in model.rows]
    if missing:
        raise InvalidInputError(f"'{model.name}' has no warm-up rows for its input '{missing[0]}'")
    warm_ups = {f"batch{rows}": rows for rows in sorted({model.batch.min, model.batch.opt})}
    config = model_config(model.name, inputs, outputs, model.batch, warm_ups)
    files = {"config.pbtxt": config.encode(), f"1/{MODEL_FILE}": model.data}
    for request in warm_ups:
        for tensor in inputs:
            row = np.ascontiguousarray(model.rows[tensor.name][:1]).astype(tensor.dtype)
            files[f"warmup/{request}-{tensor.name}"] = row.tobytes()
    return _write_files(place, files)


def _write_files(place: Path, files: Mapping[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return [place / name for name in files]


def validate_repository(folder: Path) -> list[str]:
    """What is wrong with the repository, one line each; empty when all is well.

    Every config.pbtxt is read as Triton's own message; names, files, warm-up sizes, tensors and ensembles are compared.
    Raises EngineError without tritonclient.
    """
    problems: list[str] = []
    configs = {path.parent.name: parse_config(path) for path in sorted(folder.glob("*/config.pbtxt"))}
    if not configs:
        return [f"{folder} holds no model"]
    for name, config in configs.items():
        place = folder / name
        if config.name != name:
            problems.append(f"{name}: its configuration is called '{config.name}'")
        if config.ensemble_scheduling.step:
            problems += _ensemble_problems(name, config, configs)
            continue
        path = place / "1" / (config.default_model_filename or MODEL_FILE)
        if not path.is_file():
            problems.append(f"{name}: {path.relative_to(folder)} is missing")
            continue
        for side, wanted, given in zip(
            ("input", "output"), tensors(onnx.load(path)), (config.input, config.output), strict=True
        ):
            shown = {t.name: (TYPES[t.dtype], list(t.row_shape) or [1]) for t in wanted}
            found = {t.name: (type_name(t.data_type), list(t.dims)) for t in given}
            if shown != found:
                problems.append(f"{name}: {side}s are {found}, the model's are {shown}")
        sizes = {t.name: int(np.prod(list(t.dims))) for t in config.input}
        for warm in config.model_warmup:
            for key, value in warm.inputs.items():
                file = place / "warmup" / value.input_data_file
                item = np.dtype(_DTYPES[type_name(value.data_type)]).itemsize
                if not file.is_file() or file.stat().st_size != sizes[key] * item:
                    problems.append(f"{name}: warm-up file {file.name} is missing or not one row of '{key}'")
    return problems


def _ensemble_problems(name: str, config: Any, configs: Mapping[str, Any]) -> list[str]:
    """Every step's model exists and takes what is mapped to it, in its type; every output is made."""
    known = {tensor.name: tensor.data_type for tensor in config.input}
    problems = []
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            problems.append(f"{name}: there is no model '{step.model_name}'")
            continue
        types = {tensor.name: tensor.data_type for tensor in (*model.input, *model.output)}
        for inner, outer in step.input_map.items():
            if outer not in known:
                problems.append(f"{name}: nothing makes '{outer}' before {step.model_name} reads it")
            elif known[outer] != types.get(inner):
                problems.append(f"{name}: '{outer}' is of another type than {step.model_name}.{inner}")
        unfed = {tensor.name for tensor in model.input} - set(step.input_map)
        problems += [f"{name}: {step.model_name}.{tensor} is not fed" for tensor in sorted(unfed)]
        known |= {outer: types[inner] for inner, outer in step.output_map.items() if inner in types}
    return problems + [
        f"{name}: nothing makes the output '{t.name}'" for t in config.output if known.get(t.name) != t.data_type
    ]
