"""PyTorch backend: the graph run operation by operation on the CPU, or compiled and recorded on a CUDA device.

On the CPU it is the plain reference that compiled engines are compared with. A CUDA device runs buckets of one size
through one recorded CUDA graph (`torch_device.open_torch_device`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ohlora.engines.model_file import ModelFile
from ohlora.engines.onnx_torch.torch_graph import TorchGraph, graph_spec, torch_graph
from ohlora.engines.rows import Compiled
from ohlora.engines.spec import Arrays
from ohlora.errors import EngineError, one_line

_LOG = logging.getLogger("ohlora")
_init_cuda: Callable[[], None] = torch.cuda.init  # untyped there


def compile_model(model: ModelFile, *, precision: str, threads: int, use_cache: bool = True) -> Compiled:
    """Translate `model` for the CPU, for `threads` concurrent rows, each spread over PyTorch's own threads."""
    module = torch_graph(model.data, precision)
    spec = graph_spec(module, model.data)
    return Compiled(spec, [_Runner(module) for _ in range(threads)])


class _Runner:
    def __init__(self, module: TorchGraph) -> None:
        self._module = module

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        with torch.inference_mode():
            # Rows of a call may be read-only, which PyTorch warns of; a copy of one row costs nothing.
            made = self._module(*[torch.from_numpy(inputs[name].copy()) for name in self._module.input_names])
        for name, value in zip(self._module.output_names, made, strict=True):
            outputs[name][...] = value.numpy()


def describe() -> tuple[str, bool, str]:
    """(version, has bf16, detail) for `ohlora doctor`."""
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return torch.__version__, True, f"PyTorch on {names}"
    return torch.__version__, True, "PyTorch on the CPU: for comparison, not for speed"


def cuda_device(name: str) -> torch.device:
    """'cuda' or 'cuda:N' as a device. Raises EngineError: no driver, no GPU, an index that is not there."""
    index = name.removeprefix("cuda").removeprefix(":")
    if not name.startswith("cuda") or (index and not index.isdigit()):
        raise EngineError(f"unknown device '{name}': choose cpu, cuda or cuda:N")
    if torch.version.cuda is None:
        raise EngineError(f"this PyTorch ({torch.__version__}) was built without CUDA: install one with it, or use cpu")
    try:
        count = torch.cuda.device_count()
        _init_cuda()
    except Exception as error:  # RuntimeError and its kinds: no driver, a driver that is too old
        raise EngineError(f"no CUDA device can be used: {one_line(error, 200)}; use cpu") from error
    number = int(index or 0)
    if number >= count:
        raise EngineError(f"{name} was asked for, this machine has {count} CUDA device{'s' if count != 1 else ''}")
    return torch.device("cuda", number)


def compiled_or_eager(module: Any, example: tuple[torch.Tensor, ...]) -> Any:
    """`module` through torch.compile where that works here, else as it is, with one warning."""
    try:
        compiled: Any = torch.compile(module, dynamic=False)
        with torch.inference_mode():
            compiled(*example)
    except Exception as error:  # Triton missing, a compiler missing, an operation it cannot lower
        _LOG.warning("torch.compile does not work here (%s): running uncompiled", str(error).splitlines()[0][:120])
        return module
    return compiled
