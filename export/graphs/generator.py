"""StyleGAN generator -> mapping.onnx and synthesis.onnx, checked against PyTorch (float64) before they are written.

    mapping.onnx    z float32 [N,Z], label float32 [N,L] (left out when L = 0) -> w float32 [N,W]
    synthesis.onnx  wp float32 [N,layers,W] -> image uint8 [N,R,R,3] RGB

A mapping that ends in two branches has one more output, and mapping_end.onnx beside it (`graphs.mapping`).

Standard operations, any batch size, weights inside the file. Truncation is not in the graphs: the caller
makes wp from w and the generator's `w_avg` (docs/spec/stylegan.md, section 2.4). Weights are stored as float32, or as
float16 and computed in float32 (`graphs.half_storage`).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.atomic import write_bytes
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.graphs.from_torch import CHECKED_BATCH, TRACED_BATCH, compare, run_graph, to_onnx
from ohlora.export.graphs.half_storage import NoiseOffset, Source, WidenedKernel, store_half
from ohlora.export.graphs.mapping import (
    check_mapping,
    check_mapping_end,
    check_same_end,
    generator_properties,
    mapping_end_graph,
    mapping_graph,
)
from ohlora.export.rewrites.generator import COLLAPSES, Collapse, rewrite_generator, synthesis_layers
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_layers import EPSILON, AdaIN, UpConv

LEVEL_SHARE = 1e-3  # of the uint8 values may differ by one level

Storage = Literal["float32", "float16"]
STORAGES: tuple[Storage, ...] = ("float32", "float16")
HALF_FACES = 8  # random faces on which float16 weights are judged
# Rounded weights move many values a little: random generators measured 0.25 levels and 52 dB. At edges single
# values move far (14 levels at 128 px, 26 at 256), which nobody sees: that figure is recorded, not judged.
HALF_MEAN_LEVELS, HALF_PSNR = 0.5, 45.0


@dataclass(frozen=True)
class HalfFigures:
    """What float16 weights do to whole pictures, against the PyTorch module, from the latents on."""

    w_max_abs_error: float
    image_mean_grey_levels: float
    image_max_grey_levels: int
    image_psnr_db: float


@dataclass(frozen=True)
class GeneratorExport:
    """Files and what the check against PyTorch found.

    mapping_error, image_error: largest absolute differences of w and of the float image (nominally in [-1,
    1]).
    off_by_one: share of the uint8 values that differ by one level; None with float output.
    mapping_end, mapping_end_error: of a split mapping; the largest difference of its outputs, else None.
    All of them are those of float32 weights; half: what storing them as float16 adds, None where they are not.
    """

    mapping: Path
    synthesis: Path
    mapping_error: float
    image_error: float
    off_by_one: float | None
    half: HalfFigures | None = None
    mapping_end: Path | None = None
    mapping_end_error: float | None = None

    def parity(self) -> dict[str, float | int]:
        """The float16 figures for a manifest; empty for float32 weights."""
        return {} if self.half is None else asdict(self.half)


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
    storage: Storage = "float32",
) -> GeneratorExport:
    """Rewrite, export, check with ONNX Runtime, then write the files into the existing `folder` (atomic each).

    collapse: form of the upsampling convolutions; "transposed" is the faster in OpenVINO, "subpixel" in ONNX
        Runtime's CPU provider. float_output: image float32 [N,3,R,R], not clipped, in place of bytes; for
    parity tests. storage: of the weights in the files; "float16" takes about a third of the space (noise maps and
    upsampling kernels are stored as what they are made from) and is judged by its own, looser gate.
    Raises InvalidInputError for a generator that is not finished (level of detail above 0) or an unknown collapse or
    storage, EngineError when a graph differs from the module, OutputError when a file cannot be written.
    """
    for what, value, known in (("collapse", collapse, COLLAPSES), ("storage", storage, STORAGES)):
        if value not in known:
            raise InvalidInputError(f"{what} must be one of {', '.join(known)}, got '{value}'")
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        reference = exact_reference(module)
        # Folded exactly, rounded once.
        rewritten = rewrite_generator(reference, collapse).float()
        mapping = mapping_graph(rewritten)
        synthesis = synthesis_graph(rewritten, collapse, float_output)
        graphs = {"mapping.onnx": mapping, "synthesis.onnx": synthesis}
        mapping_error = check_mapping(reference, mapping)
        end_error = None
        if module.config.split_size:
            graphs["mapping_end.onnx"] = mapping_end_graph(rewritten)
            end_error = check_mapping_end(reference, graphs["mapping_end.onnx"])
        image_error, off_by_one = check_synthesis(reference, synthesis, float_output)
        half = None
        if storage == "float16":
            for graph in graphs.values():
                store_half(graph, synthesis_sources(reference, collapse) if graph is synthesis else None)
                onnx.checker.check_model(graph, full_check=True)
            half = check_half(reference, mapping, synthesis)
            if "mapping_end.onnx" in graphs:
                check_same_end(reference, mapping, graphs["mapping_end.onnx"])
    paths = {name: folder / name for name in graphs}
    for name, path in paths.items():
        write_bytes(path, graphs[name].SerializeToString(deterministic=True))
    return GeneratorExport(
        paths["mapping.onnx"],
        paths["synthesis.onnx"],
        mapping_error,
        image_error,
        off_by_one,
        half,
        paths.get("mapping_end.onnx"),
        end_error,
    )


class ExactAdaIN(AdaIN):
    """AdaIN in its input's own precision; the training one takes its statistics in float32, whatever comes in."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)
        x = x - x.mean((2, 3), keepdim=True)
        return x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + EPSILON) * scale + shift


def exact_reference(module: Generator) -> Generator:
    """A float64 copy on the CPU: what exported graphs are compared with.

    A start that is nearly constant (training leaves it so: mean 1, deviation 0.004) is a norm's worst case: there
    PyTorch's own float32 rounding is enlarged to one grey level on 0.1 % of the values.
    """
    reference = copy.deepcopy(module).cpu().double().eval()
    for layer in synthesis_layers(reference):
        layer.adain.__class__ = ExactAdaIN
    return reference


def synthesis_graph(rewritten: Generator, collapse: Collapse, float_output: bool = False) -> onnx.ModelProto:
    """The synthesis network of a rewritten generator as a checked ONNX model."""
    config = rewritten.config
    graph = SynthesisGraph(rewritten) if float_output else ByteSynthesis(rewritten)
    example = {"wp": torch.zeros(TRACED_BATCH, config.layers, config.w_size)}
    properties = generator_properties("synthesis", config) | {"ohlora.collapse": collapse}
    return to_onnx(graph, example, "image", properties)


def synthesis_sources(generator: Generator, collapse: Collapse) -> dict[str, Source]:
    """What the folded tensors of the synthesis graph are made from, by their names there.

    generator: as it was before the rewrites.
    """
    sources: dict[str, Source] = {}
    # Layer 0 has neither: it is precomputed up to its style.
    for index, layer in enumerate(synthesis_layers(generator)[1:], start=1):
        name = f"synthesis.layers.{index}"
        parts = (layer.offset.noise, layer.offset.strength, layer.offset.bias)
        sources[f"{name}.offset.offset"] = NoiseOffset(*(part.detach().float().numpy() for part in parts))
        if isinstance(layer.conv, UpConv) and collapse == "transposed":
            weight = (layer.conv.weight.detach().double() * layer.conv.weight_gain).float()
            weight = weight.flip(2, 3) if layer.conv.flipped else weight
            sources[f"{name}.conv.kernel"] = WidenedKernel(weight.numpy())
    return sources


def check_synthesis(reference: Generator, model: onnx.ModelProto, float_output: bool) -> tuple[float, float | None]:
    """(largest difference of the float image, share of bytes off by one). Raises EngineError when too large.

    Random w rows differ between layers, so that a mixed-up style shows.
    """
    config = reference.config
    stream = torch.Generator().manual_seed(1)
    z = torch.randn(CHECKED_BATCH * config.layers, config.z_size, generator=stream)
    label = torch.randn(z.shape[0], config.label_size, generator=stream) if config.label_size else None
    wp = reference.mapping(*_exact(z, label)).unflatten(0, (CHECKED_BATCH, config.layers)).float()
    wanted = reference.synthesis(wp.double(), lod=0.0)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    if not float_output:
        # The bytes hide small differences: look at the tensor they are made from as well.
        last = [node.output[0] for node in probed.graph.node if node.op_type == "Conv"][-1]
        probed.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    made = run_graph(probed, {"wp": wp.numpy()})
    error = compare("synthesis.onnx", made[-1], wanted)
    if float_output:
        return error, None
    difference = np.abs(made[0].astype(np.int16) - as_levels(wanted))
    share = float(np.mean(difference > 0))
    if difference.max() > 1 or share > LEVEL_SHARE:
        raise EngineError(
            f"synthesis.onnx differs from PyTorch by up to {difference.max()} grey levels, in {share:.2%} "
            f"of the values (allowed: 1 level in {LEVEL_SHARE:.1%}); nothing was written"
        )
    return error, share


def check_half(reference: Generator, mapping: onnx.ModelProto, synthesis: onnx.ModelProto) -> HalfFigures:
    """Whole pictures of random faces from graphs with float16 weights. Raises EngineError when they are too far off."""
    config = reference.config
    stream = torch.Generator().manual_seed(2)
    z = torch.randn(HALF_FACES, config.z_size, generator=stream)
    label = torch.randn(HALF_FACES, config.label_size, generator=stream) if config.label_size else None
    w = reference.mapping(*_exact(z, label))
    wanted = as_levels(reference.synthesis(reference.broadcast(w), lod=0.0))
    inputs = {"z": z.numpy()} | ({} if label is None else {"label": label.numpy()})
    made_w = cast(NDArray[np.float32], run_graph(mapping, inputs)[0])
    made = run_graph(synthesis, {"wp": np.repeat(made_w[:, None], config.layers, axis=1)})[0]
    if made.dtype != np.uint8:
        made = as_levels(torch.from_numpy(made))
    difference = np.abs(made.astype(np.int16) - wanted)
    error = float(np.mean(difference.astype(np.float64) ** 2))
    figures = HalfFigures(
        w_max_abs_error=float(np.abs(made_w - w.numpy()).max()),
        image_mean_grey_levels=float(difference.mean()),
        image_max_grey_levels=int(difference.max()),
        image_psnr_db=100.0 if error == 0 else 10 * float(np.log10(255.0**2 / error)),
    )
    if not (figures.image_mean_grey_levels <= HALF_MEAN_LEVELS and figures.image_psnr_db >= HALF_PSNR):
        raise EngineError(
            f"with weights stored as float16 the pictures differ from PyTorch by {figures.image_mean_grey_levels:.2f} "
            f"grey levels ({figures.image_psnr_db:.1f} dB), allowed are {HALF_MEAN_LEVELS} and {HALF_PSNR:g} dB; "
            "nothing was written. Use float32 storage for this generator"
        )
    return figures


def as_levels(image: Tensor) -> NDArray[np.uint8]:
    """Image [N,3,R,R], nominally in [-1, 1] -> grey levels uint8 [N,R,R,3]."""
    levels: NDArray[np.uint8] = ((image + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0).to(torch.uint8).numpy()
    return levels.transpose(0, 2, 3, 1)


def _exact(z: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return z.double(), None if label is None else label.double()
