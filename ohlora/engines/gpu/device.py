"""A bundle's network on a CUDA device, by whichever library is there, for renderers that never leave the device.

What they need of an engine is its `runner`: memory of its own for inputs and outputs, and a way to put a run on a
stream.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

from ohlora.base.atomic import recover_folder
from ohlora.base.installation import install_command
from ohlora.base.types import DeviceBackend, check_choice
from ohlora.engines import PRECISIONS
from ohlora.engines.batches import BatchEngine
from ohlora.engines.gpu.tensorrt_sidecar import Sidecar, read_sidecar
from ohlora.engines.model_file import ModelFile, read_model_file
from ohlora.engines.selftest import Probe
from ohlora.errors import EngineError

BUCKET = 64


def open_device_engine(
    path: Path | ModelFile,
    *,
    device: int,
    stream: int,
    backend: str = "auto",
    precision: str = "fp32",
    bucket: int = BUCKET,
    engines: Path | None = None,
    probe: Probe | None = None,
) -> BatchEngine:
    """The network of an ONNX file on GPU `device`, tested; its `runner` computes `bucket` rows.

    backend: 'tensorrt' takes the engine in folder `engines` that was built of this file (`ohlora export --to
    tensorrt`); 'torch' compiles and records; 'onnxruntime' takes its CUDA provider, in float32. 'auto': tensorrt with
    `engines`, else torch where it is installed, else onnxruntime.
    precision: 'fp32', 'bf16' or 'fp16', of torch; a TensorRT engine has its own.
    Raises EngineError naming what is missing.
    """
    backend = backend_for(backend, precision, engines)
    if backend == "tensorrt" and engines is not None:
        return _tensorrt(path, device, bucket, engines, probe)
    if backend == "torch":
        from ohlora.engines.onnx_torch.torch_device import open_torch_device

        return open_torch_device(path, device=f"cuda:{device}", precision=precision, bucket=bucket, probe=probe)
    from ohlora.engines.gpu.onnxruntime_device import open_onnxruntime_device

    return open_onnxruntime_device(path, device=device, bucket=bucket, stream=stream, probe=probe)


def backend_for(backend: str, precision: str, engines: Path | None) -> str:
    """The backend that a name means here. Raises EngineError for what does not go together or is not installed."""
    check_choice("backend of a GPU", backend, get_args(DeviceBackend), EngineError)
    check_choice("precision", precision, PRECISIONS, EngineError)
    has_torch = importlib.util.find_spec("torch") is not None
    if backend == "auto":
        backend = "tensorrt" if engines is not None else "torch" if has_torch else "onnxruntime"
    if backend == "tensorrt" and engines is None:
        raise EngineError(
            "backend tensorrt needs built engines: ohlora export BUNDLE --to tensorrt --out FOLDER, then --engines "
            "FOLDER"
        )
    if backend != "tensorrt" and engines is not None:
        raise EngineError(f"{engines} holds TensorRT engines, backend {backend} takes none: leave one of them out")
    if backend == "torch" and not has_torch:
        raise EngineError(f"backend torch is not installed: {install_command('train')}")
    if backend == "onnxruntime" and precision != "fp32":
        raise EngineError(
            f"backend onnxruntime computes a bundle's networks in fp32, not {precision}: use backend torch"
        )
    return backend


def _tensorrt(path: Path | ModelFile, device: int, bucket: int, engines: Path, probe: Probe | None) -> BatchEngine:
    from ohlora.engines.gpu.tensorrt_backend import open_tensorrt

    engine, sidecar = engine_of(path, engines)
    best = sidecar.batch[1]
    if best != bucket:
        raise EngineError(f"{engine} is made for batches of {best}, {bucket} were asked for: use --batch {best}")
    return open_tensorrt(engine, device=device, probe=probe)


def engine_of(path: Path | ModelFile, engines: Path) -> tuple[Path, Sidecar]:
    """The TensorRT engine in folder `engines` that was built of a bundle's file. Raises EngineError without one."""
    model = read_model_file(path)
    for engine in sorted(recover_folder(engines).glob("*.engine")):
        sidecar = read_sidecar(engine)
        if sidecar.network_sha256 == model.sha256:
            return engine, sidecar
    raise EngineError(
        f"{engines} has no engine of {model.name} (sha256 {model.sha256[:12]}): build it of this bundle "
        "(ohlora export BUNDLE --to tensorrt)"
    )
