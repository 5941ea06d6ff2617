"""Engines on a CUDA device: what is exact, how fast, and how near the device's own ceilings.

    python -m ohlora.bench.gpu.engines --out bench/results/gpu_engines.json

Full-size generator (256 px, published channels, seeded weights) and the demo bundle's student, by the torch backend:
eager, compiled, recorded as a CUDA graph; float32, bfloat16, float16; both forms of upsampling; then the whole chain
from latent to dyed bytes as one recorded graph. Baseline: the training module in eager PyTorch, as documented, in the
same run.
Times are CUDA events, medians after warm-up. A section that fails is reported and the rest goes on.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor

from ohlora.bench.baselines.networks import generator as seeded_generator
from ohlora.bench.gpu.timing import Report, timed
from ohlora.bench.runner.study import study
from ohlora.bundle import Bundle
from ohlora.engines.onnx_torch.mixed_precision import lower
from ohlora.engines.onnx_torch.torch_device import DeviceRunner
from ohlora.engines.onnx_torch.torch_graph import LOWERED, torch_graph
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.generator import ByteSynthesis, synthesis_graph
from ohlora.export.graphs.ombre import add_hair, add_ombre
from ohlora.export.networks.compare import Kind, figures
from ohlora.export.rewrites.generator import Collapse, rewrite_generator, synthesis_layers
from ohlora.photos.segmentation import SIZE
from ohlora.training.nets.stylegan import CONFIGS, Generator, GeneratorConfig
from ohlora.training.nets.stylegan_layers import Conv, UpConv

SMALL = GeneratorConfig(resolution=32, channel_base=256, channel_max=16)


def generator(config: GeneratorConfig) -> Generator:
    """An image of moderate contrast, as trained ones have."""
    model = copy.deepcopy(seeded_generator(config))
    with torch.no_grad():
        cast(Tensor, model.synthesis.to_rgb[-1].weight).mul_(0.25)
    return model


def chain_graph(synthesis: onnx.ModelProto, hair: onnx.ModelProto, config: GeneratorConfig) -> onnx.ModelProto:
    """wp [N,layers,W], ombre [N,3] -> dyed bytes [N,R,R,3] and hair [N,224,224], all in one graph."""
    graph, side = GraphBuilder(), config.resolution
    image = graph.include(synthesis, "synthesis", {"wp": "wp"})["image"]
    found = add_hair(graph, image, hair, (side, side), SIZE)
    graph.add("Identity", [found], "hair")
    add_ombre(graph, image, found, (side, side), (SIZE, SIZE), output="dyed")
    inputs = {"wp": ("float32", ("N", config.layers, config.w_size)), "ombre": ("float32", ("N", 3))}
    outputs = {"dyed": ("uint8", ("N", side, side, 3)), "hair": ("float32", ("N", SIZE, SIZE))}
    return graph.model("chain", inputs, outputs)


class Bench(Report):
    """Models made once. A section is a method."""

    def __init__(self, device: str, config: GeneratorConfig, batches: list[int]) -> None:
        super().__init__(torch.device(device))
        self.config, self.batches, self.on_gpu = config, batches, self.device.type == "cuda"
        self.module = generator(config)
        forms: tuple[Collapse, ...] = ("transposed", "subpixel")
        with torch.no_grad():
            self.models = {form: synthesis_graph(rewrite_generator(self.module, form), form) for form in forms}
        self.hair = onnx.load(Bundle.open("demo").file("hair.onnx"))
        stream = torch.Generator().manual_seed(1)
        with torch.no_grad():
            w = self.module.mapping(torch.randn(max(batches), config.z_size, generator=stream))
        self.wp = w[:, None].repeat(1, config.layers, 1).numpy()
        self.gmac = multiplications(self.module) / 1e9

    def add_speed(self, what: str, precision: str, batch: int, seconds: float, **more: Any) -> None:
        per_second = batch / seconds
        if self.gmac and "chain" not in what and "student" not in what:
            more["tflops"] = round(2 * self.gmac * per_second / 1e3, 2)
        self.add(
            what=what, precision=precision, batch=batch, per_second=round(per_second, 1),
            ms_per_image=round(1e3 / per_second, 4), **more,
        )  # fmt: skip

    # sections

    def ceiling(self) -> None:
        self.measure_ceilings()

    def baseline(self) -> None:
        """The documented arithmetic: the module as it is trained, TF32 off, a batch at a time."""
        module = ByteSynthesis(self.module).to(self.device).eval()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        for batch in (1, 8):
            wp = torch.from_numpy(self.wp[:batch]).to(self.device)
            with torch.inference_mode():
                self.add_speed("eager PyTorch, documented", "fp32", batch, timed(partial(module, wp), self.device))

    def exactness(self) -> None:
        """Pictures of the device against ONNX Runtime's on the CPU."""
        noise = np.random.default_rng(0).integers(0, 256, (4, SIZE // 16, SIZE // 16, 3)).astype(np.uint8)
        picture = noise.repeat(16, 1).repeat(16, 2)
        cases: list[tuple[onnx.ModelProto, dict[str, Any], Kind, Mapping[Any, onnx.ModelProto]]] = [
            (self.models["transposed"], {"wp": self.wp[:4]}, "image", self.models),
            (self.hair, {"image": picture}, "mask", {"student": self.hair}),
        ]
        for model, inputs, kind, names in cases:
            wanted = run_graph(model, inputs)[0]
            for precision, (name, other) in itertools.product(("fp32", "bf16", "fp16"), names.items()):
                made = self.run(other, precision, inputs)[0]
                self.add(what=f"exactness, {name}", precision=precision, **figures(kind, made, wanted))

    def run(self, model: onnx.ModelProto, precision: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        module = torch_graph(model.SerializeToString(), precision).to(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.inference_mode():
            made = module(*[torch.from_numpy(value).to(self.device) for value in inputs.values()])
        return [value.cpu().numpy() for value in made]

    def engines(self) -> None:
        """Synthesis: form x precision x batch, recorded, compiled and not."""
        ways: list[tuple[Collapse, str, bool]] = [
            ("subpixel", "bf16", True),
            ("transposed", "bf16", True),
            ("subpixel", "fp16", True),
            ("subpixel", "bf16", False),
            ("transposed", "fp32", False),
        ]
        for number, (form, precision, compiled) in enumerate(ways):
            for batch in self.batches if number == 0 else self.batches[-1:]:
                name = f"synthesis {form}, {'compiled, ' if compiled else ''}recorded"
                self.recorded(name, self.models[form].SerializeToString(), precision, batch, compiled)

    def student(self) -> None:
        for batch in self.batches[-1:]:
            for precision in ("bf16", "fp16"):
                self.recorded("student, compiled, recorded", self.hair.SerializeToString(), precision, batch, True)

    def chain(self) -> None:
        """Latent to dyed bytes in one recorded graph: synthesis and student lowered, everything between in float32."""
        for precision in ("bf16", "fp16"):
            low = LOWERED[precision]
            model = chain_graph(lower(self.models["subpixel"], low), lower(self.hair, low), self.config)
            for batch in self.batches[-1:]:
                name = "chain to dyed bytes, compiled, recorded"
                self.recorded(name, model.SerializeToString(), "fp32", batch, True, shown=precision)

    def recorded(
        self, name: str, data: bytes, precision: str, batch: int, compiled: bool, shown: str | None = None
    ) -> None:
        began = time.perf_counter()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            runner = DeviceRunner(data, self.device, precision, batch, compiled)
            inputs = {t.name: torch.zeros((batch, *t.row_shape), device=self.device, dtype=getattr(torch, t.dtype))
                      for t in runner.spec.inputs}  # fmt: skip
            if "wp" in inputs:
                inputs["wp"].copy_(torch.from_numpy(self.wp[:batch]))
            seconds = timed(lambda: runner.run_device(inputs), self.device)
            memory = torch.cuda.max_memory_allocated() / 1e9
            setup = time.perf_counter() - began
            self.add_speed(name, shown or precision, batch, seconds, gb=round(memory, 2), setup_s=round(setup, 1))
            runner.close()
        else:
            module = torch_graph(data, precision)
            rows = [torch.from_numpy(self.wp[:batch]), torch.full((batch, 3), 0.5)]
            if "student" in name:
                rows = [torch.zeros((batch, SIZE, SIZE, 3), dtype=torch.uint8)]
            with torch.inference_mode():
                given = rows[: len(module.input_names)]
                self.add_speed(name, shown or precision, batch, timed(partial(module, *given), self.device, 2))


def multiplications(module: Generator) -> float:
    """Of one picture, in the collapsed form that engines run: convolutions only."""
    total, side = 0.0, 4
    for layer in synthesis_layers(module):
        conv = getattr(layer, "conv", None)
        if not isinstance(conv, Conv):
            continue
        outputs, inputs = conv.weight.shape[:2]
        if isinstance(conv, UpConv):
            total += side * side * inputs * outputs * 16
            side *= 2
        else:
            total += side * side * inputs * outputs * 9
    return total


@study(on=dict, shown=False, smoke="a tiny generator: does every step work")
def main(
    device: str = "cuda",
    smoke: bool = False,
    batches: str = "8,64",
    sections: str = "ceiling,baseline,exactness,engines,student,chain",
) -> dict[str, Any]:
    sizes = [2, 3] if smoke else [int(text) for text in batches.split(",")]
    bench = Bench(device, SMALL if smoke else CONFIGS["original"], sizes)
    for name in sections.split(","):
        bench.section(name, getattr(bench, name))
        if bench.on_gpu:
            torch.cuda.empty_cache()
    result = bench.result(torch.cuda.get_device_name() if bench.on_gpu else "CPU", gmac_per_image=round(bench.gmac, 3))
    print(f"\n{result['device']}, ceilings {bench.ceilings}, {bench.gmac:.2f} GMAC an image")
    for row in bench.rows:
        if "per_second" in row:
            share = row.get("tflops", 0) / bench.ceilings.get("bf16_tflops", 1e9)
            print(
                f"{row['what']:44} {row['precision']:5} batch {row['batch']:4} {row['per_second']:9.1f}/s {share:5.1%}"
            )
    return result


if __name__ == "__main__":
    main()
