"""Synthesis and hair networks alone: eager PyTorch, plain ONNX Runtime, and this package's engines at every preset."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import ohlora
from ohlora.base.types import Backend, Rgb
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Facts, Group, Work
from ohlora.bundle import Bundle
from ohlora.engines import Engine, backend_report
from ohlora.faces import latents_of_seeds
from ohlora.photos.segmentation import SIZE, resize_area

if TYPE_CHECKING:
    from torch import nn

BATCH = 8
SEED = 7_100_000  # faces that no preset was judged or calibrated on
STUDENT_GOAL = 10.0
EAGER = "eager PyTorch, documented, batch 8, channels last"
EAGER_1 = "eager PyTorch, documented, batch 1"
Runner = Callable[[NDArray[Any]], NDArray[Any]]


def engine_groups(options: Options) -> Iterator[Group]:
    """Groups of batch 8 and, unless quick, of one picture at a time."""
    for batch in (BATCH,) if options.quick else (BATCH, 1):
        yield synthesis(options, batch)
        yield hair(options, batch)


def synthesis(options: Options, batch: int) -> Group:
    """wp -> picture bytes."""
    module: nn.Module | None = None
    if options.subject.documented is not None:
        from ohlora.export.graphs.generator import ByteSynthesis

        module = ByteSynthesis(options.subject.documented.generator)

    def facts(made: NDArray[Any], wanted: NDArray[Any]) -> Facts:
        from ohlora.export.precision.quality import psnr

        found = psnr(wanted, made)
        return {"psnr_db": float(found.mean()), "worst_db": float(found.min())}

    rows = latents(options.subject.bundle)
    return network_group(
        options, "synthesis", batch, ("wp", rows, "image"), module, Bundle.synthesis_engine, facts, None
    )


def hair(options: Options, batch: int) -> Group:
    """Picture bytes -> hair map."""
    module: nn.Module | None = None
    if options.subject.documented is not None:
        from ohlora.bench.baselines.documented import ByteEffiSegNet

        module = ByteEffiSegNet(options.subject.documented.student)

    def facts(made: NDArray[Any], wanted: NDArray[Any]) -> Facts:
        from ohlora.export.precision.quality import mask_quality

        return {"iou": mask_quality(wanted, made)["iou"], "max_difference": float(np.abs(made - wanted).max())}

    ports, goal = ("image", portraits(options.subject.bundle), "hair"), STUDENT_GOAL if batch == BATCH else None
    return network_group(options, "student", batch, ports, module, Bundle.hair_engine, facts, goal)


def network_group(
    options: Options,
    name: str,
    batch: int,
    ports: tuple[str, NDArray[Any], str],
    module: nn.Module | None,
    opened: Callable[[Bundle, Backend], Engine],
    facts: Callable[[NDArray[Any], NDArray[Any]], Facts],
    goal: float | None,
) -> Group:
    """The baseline of a batch of 8 is PyTorch's fastest form, channels last; of one picture, plain PyTorch.

    ports: input, its rows, output. module: as documented.
    """
    given, rows, output = ports[0], ports[1][:batch], ports[2]
    stack = ExitStack()
    runners = {} if module is None else eager_forms(module.eval(), {given: ports[1]}, output)
    runners = {key: run for key, run in runners.items() if f"batch {batch}" in key or "ONNX" in key}
    baseline = next((key for key in (EAGER, EAGER_1) if key in runners), None)
    wanted = None if baseline is None else runners[baseline](rows)

    def work(run: Runner, reached: float | None = None) -> Work:
        accuracy = None if wanted is None else lambda: facts(run(rows), wanted)
        return Work(functools.partial(run, rows), batch, accuracy, reached)

    works = {key: work(run) for key, run in runners.items()}
    names = list(options.subject.bundles)
    for preset, bundle in options.subject.bundles.items():
        for backend in (status.name for status in backend_report(["openvino", "onnxruntime"]) if status.available):
            engine = opened(bundle, backend)
            stack.callback(engine.close)
            reached = goal if preset == names[-1] and len(names) > 1 and backend == "openvino" else None
            run: Runner = lambda values, engine=engine: engine(**{given: values})[output]  # type: ignore[misc]  # noqa: E731
            works[f"ohlora {preset}, {backend} {engine.precision}"] = work(run, reached)
    return Group("engines", f"{name}, batch {batch}", "picture", works, baseline, stack)


def eager(network: nn.Module) -> Runner:
    """A module of one input as PyTorch runs it."""
    import torch

    def run(rows: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(rows)).numpy())

    return run


def eager_forms(module: nn.Module, example: dict[str, NDArray[Any]], output: str) -> dict[str, Runner]:
    """Eager PyTorch at both batches and in both memory layouts, and ONNX Runtime on its plain export."""
    import onnxruntime
    import torch

    from ohlora.export.graphs.from_torch import to_onnx

    ((name, rows),) = example.items()
    model = to_onnx(module, {name: torch.from_numpy(rows[:2])}, output).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return {
        EAGER_1: eager(module),
        "eager PyTorch, documented, batch 8": eager(module),
        EAGER: eager(copy.deepcopy(module).to(memory_format=torch.channels_last)),
        "plain ONNX Runtime": lambda rows: np.asarray(session.run(None, {name: rows})[0]),
    }


def latents(bundle: Bundle) -> NDArray[np.float32]:
    """wp [8,L,W] of faces that nothing was judged on."""
    part = bundle.generator_part()
    z, label = latents_of_seeds(range(SEED, SEED + BATCH), part.label_size)
    engine = bundle.mapping_engine()
    w = engine(z=z, **({"label": label} if part.label_size else {}))["w"]
    engine.close()
    return np.ascontiguousarray(np.repeat(w[:, None], part.num_layers, axis=1))


def portraits(bundle: Bundle) -> Rgb:
    """The same faces' portraits at the student's size, uint8 [8,224,224,3]."""
    with ohlora.Renderer(bundle) as renderer:
        made = renderer.render(ohlora.SeedRange(SEED, SEED + BATCH - 1, renderer.label_size))
    return np.stack([resize_area(picture, (SIZE, SIZE)) for picture in made])
