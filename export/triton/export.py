"""`ohlora export --to triton`: an export's networks as a repository, with an ensemble where the chain is whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from ohlora.base.types import Report
from ohlora.bundle import Bundle
from ohlora.engines.spec import TensorSpec
from ohlora.errors import EngineError
from ohlora.export.formats import Batch
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.ombre import student_picture
from ohlora.export.graphs.portrait import truncated
from ohlora.export.graphs.portrait_requests import portrait_requests
from ohlora.export.lowering import Lowered, serialized
from ohlora.export.sources import Source
from ohlora.export.triton.config import Step
from ohlora.export.triton.repository import Ensemble, TritonModel, tensors, validate_repository, write_repository
from ohlora.photos.segmentation import SIZE

PREFIX = "ohlora_"
ENSEMBLE = f"{PREFIX}portrait_chain"
WARM_ROWS = 1


def write_lowered(
    lowered: Sequence[Lowered], folder: Path, source: Source, batch: Batch, report: Report
) -> list[list[Path]]:
    """Write the repository; returns the files of each network. Validated where Triton's definitions are installed."""
    by_name = {one.graph.name: one for one in lowered}
    models = [
        TritonModel(f"{PREFIX}{one.graph.name}", serialized(one), one.graph.inputs(WARM_ROWS), batch) for one in lowered
    ]
    ensembles = []
    if source.bundle is not None and {"mapping", "synthesis", "hair"} <= by_name.keys():
        extra, ensemble = portrait_chain(source.bundle, by_name, batch)
        models += extra
        ensembles.append(ensemble)
    files = write_repository(models, ensembles, folder)
    first = by_name.get("portrait") or lowered[0]
    write_guide(folder, [model.name for model in models] + [one.name for one in ensembles], first)
    try:
        problems = validate_repository(folder)
    except EngineError as error:
        report(f"  not validated: {error}")
    else:
        if problems:
            raise EngineError("the Triton repository is wrong: " + "; ".join(problems))
        report(f"  {len(files)} configurations validated with Triton's definitions")
    return [files[f"{PREFIX}{one.graph.name}"] for one in lowered]


def portrait_chain(bundle: Bundle, lowered: dict[str, Lowered], batch: Batch) -> tuple[list[TritonModel], Ensemble]:
    """mapping -> truncation -> synthesis -> the student's size -> hair, and the two small models between them."""

    def result(name: str) -> NDArray[Any]:
        graph = lowered[name].graph
        return run_graph(graph.model, graph.inputs(WARM_ROWS))[0]

    truncation = portrait_requests(bundle, WARM_ROWS).inputs["truncation"]
    between = (
        ("truncate", truncation_graph(bundle), {"w": result("mapping"), "truncation": truncation}),
        ("student_input", student_input_graph(bundle.generator_part().resolution), {"image": result("synthesis")}),
    )
    models = [
        TritonModel(f"{PREFIX}{name}", model.SerializeToString(deterministic=True), rows, batch)
        for name, model, rows in between
    ]
    latents = tensors(lowered["mapping"].model)[0]
    outputs = [tensors(lowered[name].model)[1][0] for name in ("synthesis", "hair")]
    steps = [
        Step(f"{PREFIX}mapping", {tensor.name: tensor.name for tensor in latents}, {"w": "w"}),
        Step(f"{PREFIX}truncate", {"w": "w", "truncation": "truncation"}, {"wp": "wp"}),
        Step(f"{PREFIX}synthesis", {"wp": "wp"}, {"image": "image"}),
        Step(f"{PREFIX}student_input", {"image": "image"}, {"small": "small"}),
        Step(f"{PREFIX}hair", {"image": "small"}, {"hair": "hair"}),
    ]
    inputs = [*latents, TensorSpec("truncation", "float32", (None, 2))]
    return models, Ensemble(ENSEMBLE, inputs, outputs, steps, batch.max)


def truncation_graph(bundle: Bundle) -> onnx.ModelProto:
    """w float32 [N,W], truncation float32 [N,2] (psi, layers) -> wp float32 [N,layers,W]."""
    part = bundle.generator_part()
    graph = GraphBuilder()
    truncated(graph, "w", bundle.w_avg(), part.num_layers)
    inputs = {"w": ("float32", ("N", part.w_size)), "truncation": ("float32", ("N", 2))}
    return graph.model("truncate", inputs, {"wp": ("float32", ("N", part.num_layers, part.w_size))})


def student_input_graph(resolution: int) -> onnx.ModelProto:
    """image uint8 [N,R,R,3] -> small uint8 [N,224,224,3], as the runtime brings portraits to the student."""
    graph = GraphBuilder()
    made = student_picture(graph, "image", (resolution, resolution), SIZE)
    graph.add("Identity", [made], "small")
    inputs = {"image": ("uint8", ("N", resolution, resolution, 3))}
    return graph.model("student_input", inputs, {"small": ("uint8", ("N", SIZE, SIZE, 3))})


def write_guide(folder: Path, names: Sequence[str], first: Lowered) -> None:
    """README.md with the two commands, and client.py for the main model."""
    inputs, outputs = tensors(first.model)
    model = f"{PREFIX}{first.graph.name}"
    listed = "\n".join(f"- `{name}`" for name in names)
    (folder / "README.md").write_text(GUIDE.format(models=listed, model=model), encoding="utf-8")
    fields = "\n".join(
        f'    "{tensor.name}": np.zeros((1, {", ".join(map(str, tensor.row_shape or (1,)))}), np.{tensor.dtype}),'
        for tensor in inputs
    )
    text = CLIENT.format(model=model, fields=fields, output=outputs[0].name)
    (folder / "client.py").write_text(text, encoding="utf-8")


GUIDE = """# Triton model repository

Written by `ohlora export --to triton`. Models:

{models}

```bash
docker run --rm -p 8000:8000 -p 8001:8001 -v "$PWD:/models" nvcr.io/nvidia/tritonserver:25.06-py3 \\
    tritonserver --model-repository=/models
pip install 'tritonclient[grpc]' && python client.py   # asks {model} for one row
```

Add `--gpus all` on a machine with GPUs. Every model takes batches; Triton joins requests that arrive within 2 ms.
"""

CLIENT = '''"""Asks {model} for one row. Needs: pip install 'tritonclient[grpc]'"""

import numpy as np
import tritonclient.grpc as triton

rows = {{
{fields}
}}
client = triton.InferenceServerClient("localhost:8001")
inputs = []
for name, array in rows.items():
    tensor = triton.InferInput(name, array.shape, triton.np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    inputs.append(tensor)
result = client.infer("{model}", inputs).as_numpy("{output}")
print("{output}", result.dtype, result.shape)
'''
