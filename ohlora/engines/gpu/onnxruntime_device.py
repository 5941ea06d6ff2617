"""ONNX Runtime on a GPU, by its CUDA or TensorRT provider: buffers bound on the device, buckets of one size.

The CPU provider runs through the same code; that is how it is tested where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.types import check_choice
from ohlora.engines.batches import BatchEngine, model_for_buckets
from ohlora.engines.cache import cache_root
from ohlora.engines.gpu.device_memory import DeviceBuffer
from ohlora.engines.model_file import ModelFile
from ohlora.engines.onnxruntime_backend import bound, model_spec, open_session
from ohlora.engines.selftest import ProbeSource, with_selftest
from ohlora.engines.spec import Arrays, EngineSpec, TensorSpec
from ohlora.errors import EngineError, one_line

BUCKET = 8
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def provider_options(
    provider: str, device: int, model: ModelFile, stream: int | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """What a session is opened with; the next one takes what the first cannot run.

    TensorRT keeps the engines that it builds in the user's cache, by the model's hash.
    """
    placed: dict[str, Any] = {"device_id": device}
    if stream is not None:
        placed["user_compute_stream"] = str(stream)
    options = {} if provider == "cpu" else dict(placed)
    chosen = [(PROVIDERS[provider], options)]
    if provider == "tensorrt":
        root = cache_root()
        if root is not None:
            folder = root / "onnxruntime-tensorrt" / model.sha256[:16]
            options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
            options |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(folder)}
        chosen.append((PROVIDERS["cuda"], placed))
    return chosen if provider == "cpu" else [*chosen, (PROVIDERS["cpu"], {})]


class DeviceSession:
    """One session with inputs and outputs bound on the device for `bucket` rows."""

    def __init__(
        self, session: Any, spec: EngineSpec, bucket: int, provider: str, device: int, stream: int | None = None
    ) -> None:
        import onnxruntime

        self.spec, self.bucket, self.stream = spec, bucket, stream
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session = session
        place = ("cpu", 0) if provider == "cpu" else ("cuda", device)

        def zeros(tensor: TensorSpec) -> Any:
            array = np.zeros((bucket, *tensor.row_shape), tensor.dtype)
            return onnxruntime.OrtValue.ortvalue_from_numpy(array, *place)

        self._binding, self._values = bound(session, spec, zeros)

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        for name, array in inputs.items():
            self._values[name].update_inplace(np.ascontiguousarray(array))
        self._session.run_with_iobinding(self._binding)
        for name, array in outputs.items():
            array[...] = self._values[name].numpy()

    def buffer(self, name: str) -> DeviceBuffer:
        tensor = next(tensor for tensor in self.spec.tensors if tensor.name == name)
        pointer = self._values[name].data_ptr()
        return DeviceBuffer(pointer, (self.bucket, *tensor.row_shape), tensor.dtype, self.stream or 0)

    def launch(self, stream: int) -> None:
        """Put a run from buffers to buffers on `stream`, which must be the one that the session was opened for."""
        if stream != self.stream:
            raise EngineError("this session was opened for another stream: open it with the one it is to run on")
        self._session.run_with_iobinding(self._binding, self._options)

    def close(self) -> None:
        self._values.clear()
        self._binding = self._session = None


def open_onnxruntime_device(
    path: Path | str | ModelFile,
    *,
    provider: str = "cuda",
    device: int = 0,
    bucket: int = BUCKET,
    stream: int | None = None,
    probe: ProbeSource | None = None,
) -> BatchEngine:
    """The network of an ONNX file on GPU `device` by ONNX Runtime, tested.

    provider: 'cuda' or 'tensorrt' ('cpu': for tests). bucket: rows of every run. stream: a CUDA stream's address that
    all runs are put on, for `runner.launch`.
    Raises EngineError: a provider that is not there, an unreadable model, a failed self-test.
    """
    import onnxruntime

    check_choice("provider", provider, PROVIDERS, EngineError)
    present = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in present:
        raise EngineError(
            f"this onnxruntime {onnxruntime.__version__} has no {PROVIDERS[provider]} (it has {', '.join(present)}): "
            "pip install onnxruntime-gpu in place of onnxruntime"
        )
    model = model_for_buckets(path, bucket)
    try:
        session = open_session(model.data, providers=provider_options(provider, device, model, stream))
    except Exception as error:  # the library's own types: no driver, no such device, a graph it cannot take
        raise EngineError(f"ONNX Runtime cannot open {model.path} on {provider}:{device}: {one_line(error)}") from error
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise EngineError(f"{PROVIDERS[provider]} did not start on device {device}: is there a GPU and its driver?")
    runner = DeviceSession(session, model_spec(session), bucket, provider, device, stream)
    engine = BatchEngine(
        model.name, runner, backend="onnxruntime", precision=model.precision_label("fp32"), model_sha256=model.sha256
    )
    return with_selftest(engine, probe, f"onnxruntime: asked for {provider}:{device}")
