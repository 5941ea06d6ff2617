"""StyleGAN generator -> mapping.onnx and synthesis.onnx, checked against PyTorch before they are written.

    mapping.onnx    z float32 [N,Z], label float32 [N,L] (left out when L = 0) -> w float32 [N,W]
    synthesis.onnx  wp float32 [N,layers,W] -> image uint8 [N,R,R,3] RGB

Standard operations, any batch size, weights inside the file. Truncation is not in the graphs: the caller
makes wp from w and the generator's `w_avg` (spec: stylegan, section 2.4).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.atomic import write_bytes
from ohlora.errors import BadRequest, EngineError
from ohlora.export.graph import to_onnx
from ohlora.export.rewrites import COLLAPSES, Collapse, rewrite_generator
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

TRACED_BATCH, CHECKED_BATCH = 2, 3  # different, so that a frozen batch size cannot pass
TOLERANCE = 1e-4  # of the largest value, at least of 1
LEVEL_SHARE = 1e-3  # of the uint8 values may differ by one level


@dataclass(frozen=True)
class GeneratorExport:
    """Files and what the check against PyTorch found.

    mapping_error, image_error: largest absolute differences of w and of the float image (nominally in [-1,
    1]).
    off_by_one: share of the uint8 values that differ by one level; None with float output.
    """

    mapping: Path
    synthesis: Path
    mapping_error: float
    image_error: float
    off_by_one: float | None


class SynthesisGraph(nn.Module):
    """Rewritten synthesis at level of detail 0: wp [N,layers,W] -> image float32 [N,3,R,R]."""

    def __init__(self, rewritten: Generator) -> None:
        super().__init__()
        self.synthesis = rewritten.synthesis

    def forward(self, wp: Tensor) -> Tensor:
        x: Tensor = self.synthesis.const
        for index, layer in enumerate(self.synthesis.layers):
            x = layer(x, wp[:, index])
        image: Tensor = self.synthesis.to_rgb[-1](x)
        return image


class ByteSynthesis(SynthesisGraph):
    """wp -> image uint8 [N,R,R,3] RGB. The cast truncates, which is floor here: no value is negative."""

    def forward(self, wp: Tensor) -> Tensor:
        levels = (super().forward(wp) + 1.0) * 127.5 + 0.5
        return levels.clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)


def export_generator(
    module: Generator,
    folder: Path | str,
    *,
    collapse: Collapse = "transposed",
    float_output: bool = False,
) -> GeneratorExport:
    """Rewrite, export, check with ONNX Runtime, then write both files into the existing `folder` (atomic
    each).

    collapse: form of the upsampling convolutions; "transposed" is the faster in OpenVINO, "subpixel" in ONNX
        Runtime's CPU provider. float_output: image float32 [N,3,R,R], not clipped, in place of bytes; for
    parity tests. Raises BadRequest for a generator that is not finished (level of detail above 0) or an
    unknown collapse, EngineError when the graph differs from the module, OutputError when a file cannot be
    written.
    """
    if collapse not in COLLAPSES:
        raise BadRequest(f"collapse must be one of {', '.join(COLLAPSES)}, got '{collapse}'")
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        reference = copy.deepcopy(module).cpu().float().eval()
        rewritten = rewrite_generator(reference, collapse)
        mapping = mapping_graph(rewritten)
        synthesis = synthesis_graph(rewritten, collapse, float_output)
        mapping_error = check_mapping(reference, mapping)
        image_error, off_by_one = check_synthesis(reference, synthesis, float_output)
    paths = folder / "mapping.onnx", folder / "synthesis.onnx"
    for path, graph in zip(paths, (mapping, synthesis), strict=True):
        write_bytes(path, graph.SerializeToString(deterministic=True))
    return GeneratorExport(*paths, mapping_error, image_error, off_by_one)


def mapping_graph(rewritten: Generator) -> onnx.ModelProto:
    """The mapping network of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    inputs = {"z": torch.zeros(TRACED_BATCH, config.z_size)}
    if config.label_size:
        inputs["label"] = torch.zeros(TRACED_BATCH, config.label_size)
    return to_onnx(rewritten.mapping, inputs, "w", _properties("mapping", config))


def synthesis_graph(rewritten: Generator, collapse: Collapse, float_output: bool = False) -> onnx.ModelProto:
    """The synthesis network of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    graph = SynthesisGraph(rewritten) if float_output else ByteSynthesis(rewritten)
    example = {"wp": torch.zeros(TRACED_BATCH, config.layers, config.w_size)}
    properties = _properties("synthesis", config) | {"ohlora.collapse": collapse}
    return to_onnx(graph, example, "image", properties)


def _properties(role: str, config: GeneratorConfig) -> dict[str, str]:
    numbers = {
        "resolution": config.resolution,
        "layers": config.layers,
        "z_size": config.z_size,
        "w_size": config.w_size,
        "label_size": config.label_size,
    }
    return {"ohlora.role": role} | {f"ohlora.{name}": str(value) for name, value in numbers.items()}


def run_graph(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.generic]]:
    """All outputs of `model` on the CPU by ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.generic]] = session.run(None, dict(inputs))
    return outputs


def check_mapping(reference: Generator, model: onnx.ModelProto) -> float:
    """Largest difference of w on random latents. Raises EngineError when it is too large."""
    config = reference.config
    stream = torch.Generator().manual_seed(0)
    z = torch.randn(CHECKED_BATCH, config.z_size, generator=stream)
    label = torch.randn(CHECKED_BATCH, config.label_size, generator=stream) if config.label_size else None
    inputs = {"z": z.numpy()} | ({} if label is None else {"label": label.numpy()})
    return _compare("mapping.onnx", run_graph(model, inputs)[0], reference.mapping(z, label))


def check_synthesis(reference: Generator, model: onnx.ModelProto, float_output: bool) -> tuple[float, float | None]:
    """(largest difference of the float image, share of bytes off by one). Raises EngineError when too large.

    Random w rows differ between layers, so that a mixed-up style shows.
    """
    config = reference.config
    stream = torch.Generator().manual_seed(1)
    z = torch.randn(CHECKED_BATCH * config.layers, config.z_size, generator=stream)
    label = torch.randn(z.shape[0], config.label_size, generator=stream) if config.label_size else None
    wp = reference.mapping(z, label).unflatten(0, (CHECKED_BATCH, config.layers))
    wanted = reference.synthesis(wp, lod=0.0)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    if not float_output:
        # The bytes hide small differences: look at the tensor they are made from as well.
        last = [node.output[0] for node in probed.graph.node if node.op_type == "Conv"][-1]
        probed.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    made = run_graph(probed, {"wp": wp.numpy()})
    error = _compare("synthesis.onnx", made[-1], wanted)
    if float_output:
        return error, None
    levels = ((wanted + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    difference = np.abs(made[0].astype(np.int16) - levels)
    share = float(np.mean(difference > 0))
    if difference.max() > 1 or share > LEVEL_SHARE:
        raise EngineError(
            f"synthesis.onnx differs from PyTorch by up to {difference.max()} grey levels, in {share:.2%} "
            f"of the values (allowed: 1 level in {LEVEL_SHARE:.1%}); nothing was written"
        )
    return error, share


def _compare(name: str, made: NDArray[np.generic], wanted: Tensor) -> float:
    reference = wanted.numpy()
    error = float(np.max(np.abs(made - reference)))
    limit = TOLERANCE * max(1.0, float(np.max(np.abs(reference))))
    if not error <= limit:  # NaN fails too
        raise EngineError(
            f"{name} differs from PyTorch by {error:.3g}, more than {limit:.3g}; nothing was written. The "
            "weights may hold extreme or non-finite values: check the checkpoint"
        )
    return error
