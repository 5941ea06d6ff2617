"""Synthesis at 256 pixels: what the rewrites bring, by backend; one image, one thread.

Run: pytest bench/test_generator_bench.py
Baseline is the documented form (nearest upsampling, 3x3 convolution, blur; gains, noise and bias applied at
run time) in PyTorch. Every row carries its largest difference from it, in grey levels, and the share of
values that differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the train extra makes the models")

from torch import Tensor  # noqa: E402

from ohlora.bench.baselines.networks import documented_upsampling, generator  # noqa: E402
from ohlora.engines import backend_report, open_engine  # noqa: E402
from ohlora.export.graphs.from_torch import to_onnx  # noqa: E402
from ohlora.export.graphs.generator import ByteSynthesis, synthesis_graph  # noqa: E402
from ohlora.export.rewrites.generator import Collapse, rewrite_generator  # noqa: E402
from ohlora.training.nets.stylegan import CONFIGS  # noqa: E402

FORMS = ("documented", "transposed", "subpixel")
WAYS = [(status.name, "fp32") for status in backend_report() if status.available]
WAYS += [(status.name, "bf16") for status in backend_report() if status.bf16]
# bfloat16 is judged on pictures elsewhere; here only a broken graph shall fail.
LEVELS = {"fp32": 1, "bf16": 64}


@cache
def documented() -> ByteSynthesis:
    return ByteSynthesis(documented_upsampling(generator())).eval()


@cache
def latent() -> Tensor:
    config = CONFIGS["original"]
    wp: Tensor = torch.randn(1, config.layers, config.w_size, generator=torch.Generator().manual_seed(1))
    return wp


@cache
def expected() -> NDArray[np.uint8]:
    with torch.no_grad():
        return np.asarray(documented()(latent()).numpy())


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("graphs")

    def make(form: str) -> Path:
        path = folder / f"{form}.onnx"
        if not path.exists():
            if form == "documented":
                example = {"wp": latent().repeat(2, 1, 1)}
                model = to_onnx(documented(), example, "image", {})
            else:
                collapse = cast(Collapse, form)
                model = synthesis_graph(rewrite_generator(generator(), collapse), collapse)
            path.write_bytes(model.SerializeToString())
        return path

    return make


def record(benchmark: Any, image: NDArray[np.uint8], allowed: int) -> None:
    difference = np.abs(image.astype(int) - expected())
    benchmark.extra_info["max_levels"] = int(difference.max())
    benchmark.extra_info["share_differing"] = float((difference > 0).mean())
    assert difference.max() <= allowed


@pytest.fixture(autouse=True)
def _one_thread(benchmark: Any) -> Any:
    benchmark.group = "synthesis 256 px, 1 image, 1 thread"
    benchmark.extra_info.update({status.name: status.version for status in backend_report()})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_baseline_torch(benchmark: Any, rounds: int) -> None:
    with torch.no_grad():
        image = benchmark.pedantic(documented(), (latent(),), rounds=rounds, warmup_rounds=1)
    record(benchmark, image.numpy(), 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_synthesis(benchmark: Any, graphs: Callable[[str], Path], form: str, way: tuple[str, str], rounds: int) -> None:
    wp = latent().numpy()
    with open_engine(graphs(form), backend=way[0], precision=way[1], threads=1) as engine:
        image = benchmark.pedantic(engine, kwargs={"wp": wp}, rounds=rounds, warmup_rounds=2)["image"]
    record(benchmark, image, LEVELS[way[1]])
