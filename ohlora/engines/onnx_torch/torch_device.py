"""A network on a CUDA device: compiled, recorded once as a CUDA graph for one bucket, replayed for every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ohlora.engines.batches import BatchEngine, model_for_buckets
from ohlora.engines.model_file import ModelFile
from ohlora.engines.onnx_torch.torch_backend import compiled_or_eager, cuda_device
from ohlora.engines.onnx_torch.torch_graph import graph_spec, torch_graph
from ohlora.engines.selftest import ProbeSource, with_selftest
from ohlora.engines.spec import Arrays, EngineSpec
from ohlora.errors import EngineError

BUCKET = 32
WARM_UPS = 3
# Untyped there.
_Stream: Callable[..., torch.cuda.Stream] = torch.cuda.Stream
_ExternalStream: Callable[..., torch.cuda.Stream] = torch.cuda.ExternalStream


class DeviceRunner:
    """Static buffers on the device and the recorded graph. `run_device` stays on the device, on the current stream."""

    def __init__(self, data: bytes, device: torch.device, precision: str, bucket: int, compiled: bool) -> None:
        module = torch_graph(data, precision)
        self.spec: EngineSpec = graph_spec(module, data)
        self.bucket, self.device, self.precision = bucket, device, precision
        self._module: Any = module.to(device=device).to(memory_format=torch.channels_last).eval()
        self._inputs: dict[str, Tensor] = {
            t.name: torch.zeros((bucket, *t.row_shape), dtype=getattr(torch, t.dtype), device=device)
            for t in self.spec.inputs
        }
        with _arithmetic(exact=precision == "fp32"):
            if compiled:
                self._module = compiled_or_eager(self._module, tuple(self._inputs.values()))
            self._record()

    def _record(self) -> None:
        stream = _Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(WARM_UPS):
                self._module(*self._inputs.values())
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            # In memory of their own and row-major, as kernels beside PyTorch read them.
            results = zip(self.spec.outputs, self._module(*self._inputs.values()), strict=True)
            self._outputs: dict[str, Tensor] = {tensor.name: value.contiguous() for tensor, value in results}

    def run_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors [bucket, ...] on the device -> the outputs' buffers, which the next call overwrites. No waiting."""
        for name, buffer in self._inputs.items():
            given = inputs[name]
            if given.device != buffer.device or given.shape != buffer.shape or given.dtype != buffer.dtype:
                raise EngineError(
                    f"input '{name}' must be {buffer.dtype} {list(buffer.shape)} on {buffer.device}, got "
                    f"{given.dtype} {list(given.shape)} on {given.device}"
                )
            buffer.copy_(given)
        self._graph.replay()
        return dict(self._outputs)

    def buffer(self, name: str) -> Tensor:
        return self._inputs[name] if name in self._inputs else self._outputs[name]

    def launch(self, stream: int) -> None:
        with torch.cuda.stream(_ExternalStream(stream, self.device)):
            self._graph.replay()

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        with torch.cuda.device(self.device):
            made = self.run_device({name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()})
            for name, value in made.items():
                outputs[name][...] = value.cpu().numpy()

    def close(self) -> None:
        del self._graph, self._outputs, self._module
        self._inputs = {}
        torch.cuda.empty_cache()


@contextmanager
def _arithmetic(exact: bool) -> Iterator[None]:
    """float32 means float32: TF32 is for the lower precisions only. The process's own setting comes back."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    cuda.allow_tf32 = cudnn.allow_tf32 = not exact
    cudnn.benchmark = True
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def open_torch_device(
    path: Path | str | ModelFile,
    *,
    device: str = "cuda",
    precision: str = "fp32",
    bucket: int = BUCKET,
    probe: ProbeSource | None = None,
) -> BatchEngine:
    """The network of an ONNX file on a CUDA device, tested. `engine.runner.run_device` computes without the host.

    precision: 'fp32', 'bf16' or 'fp16'. bucket: rows of every launch.
    Raises EngineError: no such device, an unreadable model, a failed self-test.
    """
    device_place, model = cuda_device(device), model_for_buckets(path, bucket)
    with torch.cuda.device(device_place):
        runner = DeviceRunner(model.data, device_place, precision, bucket, compiled=True)
    engine = BatchEngine(
        model.name, runner, backend="torch", precision=model.precision_label(precision), model_sha256=model.sha256
    )
    return with_selftest(engine, probe, f"torch: asked for {device}")
