"""What each exact rewrite gains: one picture, two threads, eager PyTorch beside the compiled forms.

    python -m ohlora.bench.suites.rewrite_cases --out bench/results/rewrites.json [--networks generator,student,...]

Passes are added one after the other, in the order in which the export applies them; the first row is the network as it
is documented (the generator's upsampling and the students' decoder are written out for it). Every row says how far its
output is from the documented form in float64. MACs are those of convolutions and matrix products. Rows marked
"alternative" or "declined" stand beside the row they start from, and are not part of the ones after.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ohlora.bench.baselines.networks import documented_student, documented_upsampling, generator
from ohlora.bench.runner.machine import keep_memory
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import quartiles, seconds_of
from ohlora.bench.suites.declined import BatchedStyles, phase_kernels
from ohlora.engines.openvino_backend import openvino
from ohlora.errors import InvalidInputError
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
WAYS = ("eager", "openvino", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """graph: what is run and exported. beside: no part of the rows after it."""

    name: str
    effect: str
    graph: nn.Module
    beside: str | None = None


@dataclass(frozen=True)
class Case:
    """A network and the passes that are added to it.

    first: rows before them. graph: what is run of a module. beside: rows that stand beside the pass of this choice, by
    the module it starts from; "" for what stands after the last. wanted: the documented form's output in float64.
    """

    network: str
    module: nn.Module
    inputs: dict[str, Tensor]  # batch 1
    first: tuple[Row, ...]
    wanted: Callable[[], Tensor]
    graph: Callable[[nn.Module], nn.Module] = lambda module: module
    beside: Mapping[str, Callable[[nn.Module], Row]] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        yield from self.first
        module = self.module
        for one in passes_of(self.network):
            if one.collapse and "collapse" in self.beside:
                yield self.beside["collapse"](module)
            module = one.function(module)
            yield Row(one.name, one.effect, self.graph(module))
        if "" in self.beside:
            yield self.beside[""](module)


def generator_case(encoder: str) -> Case:
    module = generator()
    config = module.config
    wp = torch.randn(1, config.layers, config.w_size, generator=torch.Generator().manual_seed(1))

    def graph(module: nn.Module) -> nn.Module:
        return SynthesisGraph(documented_upsampling(cast(Generator, module)))

    def alternative(module: nn.Module) -> Row:
        other = collapse_upsampling(cast(Generator, module), "subpixel")
        return Row("collapse_subpixel", "in place of the next", SynthesisGraph(other), "alternative")

    def declined(module: nn.Module) -> Row:
        effect = "style affines of equal size as one product"
        return Row("batch_affines", effect, BatchedStyles(cast(Generator, module)), "declined")

    first = (Row("documented", "as documented", graph(module)),)
    beside = {"collapse": alternative, "": declined}
    exact = graph(exact_reference(module))
    return Case("generator", module, {"wp": wp}, first, lambda: exact(wp.double()), graph, beside)


def student_case(encoder: str) -> Case:
    student, image = cast(EffiSegNet, seeded(lambda: EffiSegNet(encoder))), picture(3, SIZE)
    first = (
        Row("documented", "as documented", documented_student(student)),
        Row("as trained", "(a), (c) and (e): summed and reduced at half size, in the module itself", student),
    )

    def declined(module: nn.Module) -> Row:
        effect = "the depthwise 3x3 over the doubled map as four kernels over the small one"
        return Row("phase_kernels", effect, phase_kernels(cast(InferenceStudent, module)), "declined")

    exact = documented_student(student).double()
    return Case("student", student, {"image": image}, first, lambda: exact(image.double()), beside={"": declined})


def discriminator_case(encoder: str) -> Case:
    module = cast(Discriminator, seeded(lambda: Discriminator(CONFIGS["original"])))
    image, exact = picture(4, module.config.resolution), copy.deepcopy(module).double()

    def graph(module: nn.Module) -> nn.Module:
        return DiscriminatorGraph(cast(Discriminator, module), "alone")

    first = (Row("as trained", "the documented form in stride-2 kernels", graph(module)),)
    return Case("discriminator", module, {"image": image}, first, lambda: exact(image.double(), lod=0.0), graph)


class Parse(nn.Module):
    """image -> logits of a teacher."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = cast(BiSeNet, network)

    def forward(self, image: Tensor) -> Tensor:
        return self.network.parse(image)


def bisenet_case(encoder: str) -> Case:
    module, image = seeded(BiSeNet), picture(5, 512)
    first = (Row("documented", "as documented", Parse(module)),)
    exact = Parse(copy.deepcopy(module).double())
    return Case("bisenet", module, {"image": image}, first, lambda: exact(image.double()), Parse)


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


def picture(seed: int, side: int) -> Tensor:
    """[1,3,side,side] in [-1,1]"""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- measuring ---------------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    """Median, quartiles and the fastest in milliseconds."""
    times = 1e3 * seconds_of({"": run}, ROUNDS, warm=WARM, seconds=SECONDS)[""]
    low, middle, high = (round(value, 3) for value in quartiles(times))
    return {"median_ms": middle, "quartiles_ms": [low, high], "fastest_ms": round(min(times), 3), "rounds": len(times)}


def onnxruntime_runner(model: bytes, inputs: dict[str, NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: np.asarray(session.run(None, inputs)[0])


def openvino_runner(model: bytes, inputs: dict[str, NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    core = openvino.Core()
    read = core.read_model(model)
    read.reshape({name: list(value.shape) for name, value in inputs.items()})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": THREADS}
    compiled = core.compile_model(read, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: np.asarray(request.infer(inputs)[0])


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
        "eager": lambda: np.asarray(graph(*given).numpy()),
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
    wanted = case.wanted().numpy()
    done: list[dict[str, Any]] = []
    chain: list[dict[str, Any]] = []  # rows that later ones build on
    for row in case.rows():
        found = measure(row, case.inputs, wanted)
        for way in WAYS if chain else ():
            # What stands beside a row is compared with that row.
            for name, other in (("times_first", chain[0]), ("times_previous", chain[-1])):
                found[way][name] = round(other[way]["median_ms"] / found[way]["median_ms"], 3)
        done.append(found)
        if row.beside is None:
            chain.append(found)
        say(line(found))
    return done


def line(row: dict[str, Any]) -> str:
    ways = " ".join(f"{row[way]['median_ms']:9.2f} {row[way].get('times_previous', 1.0):5.2f}x" for way in WAYS)
    worst = max(row[way]["max_abs_error"] for way in WAYS)
    name = row["name"] + (f" ({row['beside']})" if row["beside"] else "")
    return f"{name:34} {ways} {row['macs'] / 1e9:7.2f} {row['parameter_bytes'] / 1e6:8.2f} {worst:9.1e}"


HEADER = (
    f"{'':34} {'eager ms':>9} {'':6} {'OpenVINO':>9} {'':6} {'ORT':>9} {'':6} {'GMAC':>7} {'MB held':>8} {'error':>9}"
)
CASES: dict[str, Callable[[str], Case]] = {
    "generator": generator_case,
    "student": student_case,
    "discriminator": discriminator_case,
    "bisenet": bisenet_case,
}


@study(shown=False, networks=f"of {', '.join(CASES)}", encoder="of the student")
@torch.no_grad()
def main(networks: str = "generator,student", encoder: str = SHIPPED_ENCODER) -> dict[str, Any]:
    names = networks.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise InvalidInputError(f"unknown network '{unknown[0]}': choose of {', '.join(CASES)}")
    torch.set_num_threads(THREADS)
    result: dict[str, Any] = {"threads": THREADS, "batch": 1, "encoder": encoder, "memory_kept": keep_memory()}
    for name in names:
        print(f"{name}\n{HEADER}", flush=True)
        result[name] = run_case(CASES[name](encoder))
    return result


if __name__ == "__main__":
    main()
