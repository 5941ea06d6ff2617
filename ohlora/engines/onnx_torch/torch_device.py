"""A network on a CUDA device: compiled, recorded once as a CUDA graph for one bucket, replayed for every call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ohlora.engines.batches import Arrays, BatchEngine, tested
from ohlora.engines.model_file import read_model_file
from ohlora.engines.onnx_torch.torch_backend import compiled_or_eager, cuda_device
from ohlora.engines.onnx_torch.torch_graph import graph_spec, torch_graph
from ohlora.engines.selftest import Probe
from ohlora.engines.spec import EngineSpec
from ohlora.errors import EngineError

BUCKET = 32
WARM_UPS = 3


class DeviceRunner:
    """Static buffers on the device and the recorded graph. `run_device` stays on the device, on the current stream."""

    def __init__(self, data: bytes, device: torch.device, precision: str, bucket: int, compiled: bool) -> None:
        module = torch_graph(data, precision)
        self.spec: EngineSpec = graph_spec(module, data)
        self.bucket, self.device, self.precision = bucket, device, precision
        self._exact = precision == "fp32"
        self._module: Any = module.to(device=device).to(memory_format=torch.channels_last).eval()
        self._inputs = [
            torch.zeros((bucket, *t.row_shape), dtype=getattr(torch, t.dtype), device=device) for t in self.spec.inputs
        ]
        with self._mode():
            if compiled:
                self._module = compiled_or_eager(self._module, tuple(self._inputs))
            self._record()

    def _mode(self) -> Any:
        return _Mode(self._exact)

    def _record(self) -> None:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(WARM_UPS):
                self._module(*self._inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            # In memory of their own and row-major, as kernels beside PyTorch read them.
            self._outputs = tuple(value.contiguous() for value in self._module(*self._inputs))

    def run_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors [bucket, ...] on the device -> the outputs' buffers, which the next call overwrites. No waiting."""
        for tensor, buffer in zip(self.spec.inputs, self._inputs, strict=True):
            given = inputs[tensor.name]
            if given.device != buffer.device or given.shape != buffer.shape or given.dtype != buffer.dtype:
                raise EngineError(
                    f"input '{tensor.name}' must be {buffer.dtype} {list(buffer.shape)} on {buffer.device}, got "
                    f"{given.dtype} {list(given.shape)} on {given.device}"
                )
            buffer.copy_(given)
        self._graph.replay()
        return {tensor.name: value for tensor, value in zip(self.spec.outputs, self._outputs, strict=True)}

    def buffer(self, name: str) -> Tensor:
        """The graph's own memory of an input or output, for kernels that write or read it in place."""
        pairs = (*zip(self.spec.inputs, self._inputs, strict=True), *zip(self.spec.outputs, self._outputs, strict=True))
        return next(tensor for spec, tensor in pairs if spec.name == name)

    def launch(self, stream: int) -> None:
        """Put a run from buffers to buffers on `stream`, a CUDA stream's address."""
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, self.device)):
            self._graph.replay()

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        with torch.cuda.device(self.device):
            made = self.run_device({name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()})
            for name, value in made.items():
                outputs[name][...] = value.cpu().numpy()

    def close(self) -> None:
        del self._graph, self._outputs, self._module
        self._inputs = []
        torch.cuda.empty_cache()


class _Mode:
    """float32 means float32: TF32 is for the lower precisions only. The process's own setting comes back."""

    def __init__(self, exact: bool) -> None:
        self._exact = exact

    def __enter__(self) -> None:
        self._before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not self._exact
        self._benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._before
        torch.backends.cudnn.benchmark = self._benchmark


def open_torch_device(
    path: Path | str,
    *,
    device: str = "cuda",
    precision: str = "fp32",
    bucket: int = BUCKET,
    compiled: bool = True,
    probe: Probe | Mapping[str, Mapping[str, Any]] | Path | str | None = None,
) -> BatchEngine:
    """The network of an ONNX file on a CUDA device, tested. `engine.runner.run_device` computes without the host.

    precision: 'fp32', 'bf16' or 'fp16'. bucket: rows of every launch. compiled: through torch.compile where it works.
    Raises EngineError: no such device, an unreadable model, a failed self-test.
    """
    if bucket < 1:
        raise EngineError(f"a bucket has at least one row, got {bucket}")
    where = cuda_device(device)
    model = read_model_file(Path(path))
    model.require_independent_rows()
    with torch.cuda.device(where):
        runner = DeviceRunner(model.data, where, precision, bucket, compiled)
    engine = BatchEngine(
        model.name, runner.spec, runner, backend="torch", precision=model.precision_label(precision),
        model_sha256=model.sha256,
    )  # fmt: skip
    return tested(engine, f"torch: asked for {device}", probe)
