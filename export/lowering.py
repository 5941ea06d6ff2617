"""Networks of an export in the precision or preset that was asked for, each behind its gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx

from ohlora.base.types import Report
from ohlora.base.version import __version__
from ohlora.engines.onnx_torch.mixed_precision import Low, lower
from ohlora.errors import EngineError
from ohlora.export.bundle.preset import lower_hair, lower_synthesis
from ohlora.export.formats import JUDGED, LOWERED_TYPES, TYPED
from ohlora.export.graphs.passes import subpixel
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.networks.compare import Comparison, Figures, Kind, figures
from ohlora.export.networks.registry import Graph
from ohlora.export.precision.presets import Preset, run_rows
from ohlora.export.sources import COMPOSED, Source

TYPES: dict[str, Low] = {"fp16": "float16", "bf16": "bfloat16"}
JUDGED_ROWS = 16

# What fp16 and bf16 graphs are held to. Statistics stay float32 in both; bfloat16 keeps 8 bits of a number, float16 11.
LOOSE: dict[tuple[str, Kind], Comparison] = {
    ("fp16", "image"): Comparison(least={"psnr_db": 45.0}),
    ("bf16", "image"): Comparison(least={"psnr_db": 35.0}),
    ("fp16", "mask"): Comparison(least={"iou": 0.999}),
    ("bf16", "mask"): Comparison(least={"iou": 0.99}),
    ("fp16", "classes"): Comparison({"share_different": 0.01}),
    ("bf16", "classes"): Comparison({"share_different": 0.03}),
    ("fp16", "score"): Comparison({"relative_error": 0.01}),
    ("bf16", "score"): Comparison({"relative_error": 0.05}),
}


def tensorrt_form(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph in fp16 or bf16 as TensorRT builds it: it has no transposed convolution in bfloat16."""
    return lower(subpixel(model) if precision == "bf16" else model, TYPES[precision])


@dataclass(frozen=True)
class Lowered:
    """A graph as it is exported. precision: of its arithmetic in the file; runtime: what its float part may run in.

    quality: figures against the float32 graph, empty where it is that graph.
    """

    graph: Graph
    model: onnx.ModelProto
    precision: str = "fp32"
    runtime: str = "fp32"
    quality: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What export.json says of it."""
        return {
            "precision": self.precision,
            "runtime_precision": self.runtime,
            "parity": {name: dict(found) for name, found in self.graph.parity.items()},
            "quality": self.quality,
            "rows_depend_on_batch": self.graph.rows_depend,
        }


def serialized(one: Lowered) -> bytes:
    """The model's bytes, with what it is in its metadata."""
    model = onnx.ModelProto()
    model.CopyFrom(one.model)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | {"ohlora.precision": one.precision, "ohlora.version": __version__})
    return bytes(model.SerializeToString(deterministic=True))


@dataclass
class Lowering:
    """One export's way of lowering. Synthesis and hair finder are planned once and used in the fused graphs too.

    seeds: faces that presets are judged on. symmetric: int8 as TensorRT takes it.
    """

    source: Source
    precision: str | None
    preset: Preset | None
    gate: Preset
    seeds: int
    symmetric: bool
    report: Report
    _done: dict[str, Lowered] = field(default_factory=dict)

    def of(self, name: str) -> Lowered:
        """Raises EngineError when the network misses its gate."""
        if name not in self._done:
            graph = self.source.graphs[name]()
            self._done[name] = self._composed(graph) if name in COMPOSED else self._lowered(graph)
        return self._done[name]

    def _lowered(self, graph: Graph) -> Lowered:
        if self.precision in LOWERED_TYPES and graph.name in TYPED:
            return self._typed(graph, self.precision)
        plans = self.preset is not None or self.precision == "int8"
        if not plans or graph.name not in JUDGED or self.source.bundle is None:
            return Lowered(graph, graph.model)
        options = (self.source.bundle, self.gate, self.precision, self.seeds)
        lower_network = lower_synthesis if graph.name == "synthesis" else lower_hair
        chosen = lower_network(*options, report=self.report, symmetric=self.symmetric)
        form = "int8" if chosen.form.startswith("int8") else "fp32"
        return Lowered(graph, chosen.model, form, chosen.precision, chosen.to_json(self.gate))

    def _typed(self, graph: Graph, precision: str) -> Lowered:
        """fp16 or bf16: judged by OpenVINO or ONNX Runtime on the CPU, whose sums are float32 as tensor cores' are."""
        model = tensorrt_form(graph.model, precision) if self.symmetric else lower(graph.model, TYPES[precision])
        found = _compared(graph, model, graph.kind)
        kind: Kind = "score" if graph.kind == "latent" else graph.kind
        LOOSE[precision, kind].require(f"{graph.name} in {precision}", found)
        self.report(f"  {graph.name} {precision}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        return Lowered(graph, model, precision, "fp32", {"figures": found, "rows": JUDGED_ROWS})

    def _composed(self, graph: Graph) -> Lowered:
        """portrait or recolor, made of the networks as they are exported here."""
        bundle = self.source.bundle
        if bundle is None or (self.preset is None and self.precision in (None, "fp32")):
            return Lowered(graph, graph.model)
        names = ("synthesis", "hair") if graph.name == "portrait" else ("hair",)
        parts = [self.of(name) for name in names if name in self.source.graphs]
        models = {part.graph.name: part.model for part in parts}
        if graph.name == "portrait":
            model = portrait_graph(bundle, synthesis=models["synthesis"], hair=models.get("hair"))
        else:
            _, height, width, _ = (dim.dim_value for dim in graph.model.graph.input[0].type.tensor_type.shape.dim)
            model = recolor_graph(bundle, (height, width), hair=models["hair"])
        found = _compared(graph, model, "image")
        if not all(part.quality for part in parts):
            raise EngineError(f"{graph.name} was made of networks that were not judged")
        lowest = next((part for part in parts if part.precision != "fp32"), parts[0])
        return Lowered(graph, model, lowest.precision, parts[0].runtime, {"figures": found})


def _compared(graph: Graph, model: onnx.ModelProto, kind: Kind) -> Figures:
    """Figures of `model` against the float32 graph on the same rows."""
    inputs = graph.inputs(JUDGED_ROWS)
    made, wanted = (run_rows(each, inputs)[graph.output] for each in (model, graph.model))
    return figures(kind, made, wanted)
