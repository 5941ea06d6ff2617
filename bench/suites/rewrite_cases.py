"""What each exact rewrite gains: one picture, two threads, eager PyTorch beside the compiled forms.

    python -m ohlora.bench.suites.rewrite_cases --out bench/results/rewrites.json [--networks generator,student,...]

Passes are added one after the other, in the order in which the export applies them; the first row is the network as it
is documented (the generator's upsampling and the students' decoder are written out for it). Every row says how far its
output is from the documented form in float64. MACs are those of convolutions and matrix products. Rows marked
"alternative" or "declined" stand beside the row they start from, and are not part of the ones after.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ohlora.base.atomic import write_bytes
from ohlora.bench.baselines.networks import documented_student, documented_upsampling, generator
from ohlora.bench.runner.machine import keep_memory, machine
from ohlora.bench.suites.declined import BatchedStyles, phase_kernels
from ohlora.engines.openvino_backend import openvino
from ohlora.export.graphs.from_torch import to_onnx
from ohlora.export.graphs.generator import SynthesisGraph, exact_reference
from ohlora.export.rewrites.discriminator import DiscriminatorGraph
from ohlora.export.rewrites.generator import collapse_upsampling
from ohlora.export.rewrites.passes import passes_of
from ohlora.export.rewrites.student import InferenceStudent
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, SIZE, EffiSegNet
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import CONFIGS, Discriminator

THREADS = 2
WARM, ROUNDS, SECONDS = 3, 30, 3.0  # at most so many rounds, and about so long


@dataclass(frozen=True)
class Row:
    """graph: what is run and exported. beside: no part of the rows after it."""

    name: str
    effect: str
    graph: nn.Module
    beside: str | None = None


@dataclass(frozen=True)
class Case:
    """One network: rows, the input (batch 1), and the documented form's output in float64."""

    rows: Callable[[], Iterator[Row]]
    inputs: dict[str, Tensor]
    wanted: Callable[[], NDArray[np.float64]]


# --- generator ---------------------------------------------------------------------------------------------------


def generator_rows() -> Iterator[Row]:
    module = generator()
    yield Row("documented", "as documented", SynthesisGraph(documented_upsampling(module)))
    for one in passes_of("generator"):
        if one.choice == "collapse":
            other = collapse_upsampling(module, "subpixel")
            yield Row("collapse_subpixel", "in place of the next", SynthesisGraph(other), "alternative")
        module = cast(Generator, one.function(module))
        yield Row(one.name, one.effect, SynthesisGraph(documented_upsampling(module)))
    yield Row("batch_affines", "style affines of equal size as one product", BatchedStyles(module), "declined")


def styles() -> Tensor:
    config = generator().config
    return torch.randn(1, config.layers, config.w_size, generator=torch.Generator().manual_seed(1))


def exact_picture() -> NDArray[np.float64]:
    plain = documented_upsampling(exact_reference(generator()))
    return np.asarray(SynthesisGraph(plain)(styles().double()).numpy())


# --- student -----------------------------------------------------------------------------------------------------


def unlike_new(module: nn.Module) -> nn.Module:
    """Norms and their statistics get random values, so that folding has something to get wrong."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                part.weight.normal_(1.0, 0.2)
                part.bias.normal_(std=0.2)
                part.running_mean.normal_(std=0.2)
                part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return unlike_new(make())


def student_case(encoder: str) -> Case:
    student = cast(EffiSegNet, seeded(lambda: EffiSegNet(encoder)))
    image = picture(3, SIZE)

    def rows() -> Iterator[Row]:
        yield Row("documented", "as documented", documented_student(student))
        yield Row("as trained", "(a), (c) and (e): summed and reduced at half size, in the module itself", student)
        module: nn.Module = student
        for one in passes_of("student"):
            module = one.function(module)
            yield Row(one.name, one.effect, module)
        effect = "the depthwise 3x3 over the doubled map as four kernels over the small one"
        yield Row("phase_kernels", effect, phase_kernels(cast(InferenceStudent, module)), "declined")

    def wanted() -> NDArray[np.float64]:
        return np.asarray(documented_student(student).double()(image.double()).numpy())

    return Case(rows, {"image": image}, wanted)


# --- others ------------------------------------------------------------------------------------------------------


class Parse(nn.Module):
    """image -> logits of a teacher."""

    def __init__(self, network: BiSeNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.parse(image)


def discriminator_case() -> Case:
    module = cast(Discriminator, seeded(lambda: Discriminator(CONFIGS["original"])))
    image = picture(4, module.config.resolution)

    def rows() -> Iterator[Row]:
        rewritten: nn.Module = module
        yield Row("as trained", "the documented form in stride-2 kernels", DiscriminatorGraph(module, "alone"))
        for one in passes_of("discriminator"):
            rewritten = one.function(rewritten)
            yield Row(one.name, one.effect, DiscriminatorGraph(cast(Discriminator, rewritten), "alone"))

    def wanted() -> NDArray[np.float64]:
        return np.asarray(copy.deepcopy(module).double()(image.double(), lod=0.0).numpy())

    return Case(rows, {"image": image}, wanted)


def bisenet_case() -> Case:
    module = cast(BiSeNet, seeded(BiSeNet))
    image = picture(5, 512)

    def rows() -> Iterator[Row]:
        yield Row("documented", "as documented", Parse(module))
        for one in passes_of("bisenet"):
            yield Row(one.name, one.effect, Parse(cast(BiSeNet, one.function(module))))

    return Case(
        rows, {"image": image}, lambda: np.asarray(copy.deepcopy(module).double().parse(image.double()).numpy())
    )


def picture(seed: int, side: int) -> Tensor:
    """[1,3,side,side] in [-1,1]"""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- measuring ---------------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    """Median, quartiles and the fastest in milliseconds."""
    for _ in range(WARM):
        run()
    times: list[float] = []
    while len(times) < ROUNDS and sum(times) < SECONDS:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    low, middle, high = (round(float(v) * 1e3, 3) for v in np.percentile(times, [25, 50, 75]))
    fastest = round(min(times) * 1e3, 3)
    return {"median_ms": middle, "quartiles_ms": [low, high], "fastest_ms": fastest, "rounds": len(times)}


def onnxruntime_runner(model: bytes, inputs: dict[str, NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: cast("NDArray[Any]", session.run(None, inputs)[0])


def openvino_runner(model: bytes, inputs: dict[str, NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    core = openvino.Core()
    read = core.read_model(model)
    read.reshape({name: list(value.shape) for name, value in inputs.items()})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": THREADS}
    compiled = core.compile_model(read, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: cast("NDArray[Any]", request.infer(inputs)[0])


def measure(row: Row, inputs: dict[str, Tensor], wanted: NDArray[np.float64]) -> dict[str, Any]:
    """Times, sizes and errors of one row."""
    graph = row.graph.eval()
    given = tuple(inputs.values())
    with FlopCounterMode(display=False) as counter:
        graph(*given)
    example = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    model = to_onnx(graph, example, "output").SerializeToString()
    arrays = {name: value.numpy() for name, value in inputs.items()}
    runners: dict[str, Callable[[], NDArray[Any]]] = {
        "eager": lambda: cast("NDArray[Any]", graph(*given).numpy()),
        "openvino": openvino_runner(model, arrays),
        "onnxruntime": onnxruntime_runner(model, arrays),
    }
    held = [*graph.parameters(), *graph.buffers()]
    found: dict[str, Any] = {
        "name": row.name,
        "effect": row.effect,
        "beside": row.beside,
        "macs": counter.get_total_flops() // 2,
        "parameter_bytes": sum(value.numel() * value.element_size() for value in held),
        "file_bytes": len(model),
    }
    for way, run in runners.items():
        error = float(np.abs(run().astype(np.float64) - wanted).max())
        found[way] = timed(run) | {"max_abs_error": error}
    return found


def run_case(case: Case, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Rows of one network. say: takes each row's line as it is done."""
    wanted = case.wanted()
    done: list[dict[str, Any]] = []
    chain: list[dict[str, Any]] = []  # rows that later ones build on
    for row in case.rows():
        found = measure(row, case.inputs, wanted)
        for way in ("eager", "openvino", "onnxruntime"):
            first, last = (rows[way]["median_ms"] for rows in (chain[0], chain[-1])) if chain else (None, None)
            # What stands beside a row is compared with that row.
            if first is not None:
                found[way]["times_first"] = round(first / found[way]["median_ms"], 3)
                found[way]["times_previous"] = round(last / found[way]["median_ms"], 3)
        done.append(found)
        if row.beside is None:
            chain.append(found)
        say(line(found))
    return done


def line(row: dict[str, Any]) -> str:
    ways = " ".join(
        f"{row[way]['median_ms']:9.2f} {row[way].get('times_previous', 1.0):5.2f}x"
        for way in ("eager", "openvino", "onnxruntime")
    )
    worst = max(row[way]["max_abs_error"] for way in ("eager", "openvino", "onnxruntime"))
    name = row["name"] + (f" ({row['beside']})" if row["beside"] else "")
    return f"{name:34} {ways} {row['macs'] / 1e9:7.2f} {row['parameter_bytes'] / 1e6:8.2f} {worst:9.1e}"


HEADER = (
    f"{'':34} {'eager ms':>9} {'':6} {'OpenVINO':>9} {'':6} {'ORT':>9} {'':6} {'GMAC':>7} {'MB held':>8} {'error':>9}"
)

CASES: dict[str, Callable[[str], Case]] = {
    "generator": lambda encoder: Case(generator_rows, {"wp": styles()}, exact_picture),
    "student": student_case,
    "discriminator": lambda encoder: discriminator_case(),
    "bisenet": lambda encoder: bisenet_case(),
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="generator,student", help=f"of {', '.join(CASES)}")
    parser.add_argument("--encoder", default=SHIPPED_ENCODER, help="of the student")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = given.networks.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"unknown network '{unknown[0]}': choose of {', '.join(CASES)}")
    torch.set_num_threads(THREADS)
    settings = {"threads": THREADS, "batch": 1, "encoder": given.encoder, "memory_kept": keep_memory()}
    result: dict[str, Any] = {"machine": machine(), **settings}
    for name in names:
        print(f"{name}\n{HEADER}", flush=True)
        result[name] = run_case(CASES[name](given.encoder))
    if given.out is not None:
        write_bytes(given.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
