"""Forked, spawned and pickled: what was opened before a process began, used in it. Each in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ohlora
from ohlora.engines import open_engine
from ohlora.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import multiprocessing, os, signal, sys
import numpy as np
import ohlora
from ohlora.kernels.ombre import apply_ombre

PICTURES, HAIR = np.full((8, 256, 256, 3), 90, np.uint8), np.ones((8, 224, 224), np.float32)
RED = ohlora.Ombre(0.0, 0.7, 0.5)

def dyed(_=None):
    return apply_ombre(PICTURES, HAIR, 0.5, 0.7, 0.5, backend="cpu").tobytes()
"""
RENDERER = "renderer = ohlora.Renderer(threads=2, backend='{backend}')\n"
PORTRAITS = "def portraits(seed): return renderer.render(ohlora.SeedRange(seed, seed), ombres=RED).tobytes()\n"
IN_A_FORK = """
wanted = {work}
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    sys.exit(0 if {work} == wanted else 7)
assert os.waitpid(pid, 0)[1] == 0
assert {work} == wanted
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SETUP + script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)  # the test's own process has set it
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


def test_kernels_work_after_a_fork(tmp_path: Path) -> None:
    run(IN_A_FORK.format(work="dyed()"), tmp_path)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_used_renderer_renders_after_a_fork_and_the_process_ends(backend: str, tmp_path: Path) -> None:
    """As a server's workers do that fork from a parent which loaded, and used, the application."""
    pytest.importorskip(backend)
    run(RENDERER.format(backend=backend) + PORTRAITS + IN_A_FORK.format(work="portraits(1)"), tmp_path)


def test_a_forked_process_that_uses_nothing_ends(tmp_path: Path) -> None:
    run(RENDERER.format(backend="auto") + PORTRAITS + "portraits(1)\n" + IN_A_FORK.format(work="1"), tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_over_a_used_renderer(method: str, tmp_path: Path) -> None:
    script = RENDERER.format(backend="auto") + PORTRAITS
    body = f"""
    wanted = [portraits(seed) for seed in range(3)]
    with multiprocessing.get_context('{method}').Pool(2) as pool:
        assert pool.map_async(portraits, range(3)).get(timeout=120) == wanted
"""
    run(script + "if __name__ == '__main__':" + body, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_data_loader_over_a_used_renderer(method: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    script = f"""
import torch.utils.data

class Portraits(torch.utils.data.Dataset):
    def __init__(self): self.renderer = ohlora.Renderer(threads=1)
    def __len__(self): return 4
    def __getitem__(self, seed): return self.renderer.render(ohlora.SeedRange(seed, seed), ombres=RED)[0]

if __name__ == '__main__':
    data = Portraits()
    wanted = np.stack([data[seed] for seed in range(4)])
    loader = torch.utils.data.DataLoader(data, 2, num_workers=2, multiprocessing_context='{method}', timeout=120)
    assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), wanted)
"""
    run(script, tmp_path)


def test_a_model_that_changed_before_the_fork_is_refused(hair: Path, tmp_path: Path) -> None:
    script = f"""
import shutil
from ohlora.engines import open_engine
from ohlora.errors import EngineError
shutil.copy({str(hair)!r}, "hair.onnx")
engine = open_engine("hair.onnx", threads=1)
zeros = {{tensor.name: np.zeros((1, *tensor.row_shape), tensor.dtype) for tensor in engine.spec.inputs}}
engine(**zeros)
with open("hair.onnx", "ab") as file: file.write(bytes([0x72, 0]))
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    try: engine(**zeros)
    except EngineError as error: os._exit(0 if "hair.onnx" in str(error) else 7)
    os._exit(8)
assert os.waitpid(pid, 0)[1] == 0
"""
    run(script, tmp_path)


def test_an_engine_that_cannot_be_opened_again_says_so_in_one_line(hair: Path, cache_dir: Path) -> None:
    with open_engine(hair, threads=1) as engine:
        zeros = {t.name: np.zeros((1, *t.row_shape), t.dtype) for t in engine.spec.inputs}
        engine._forked = True
        engine._reopen = super(type(engine), engine)._reopen  # type: ignore[method-assign]  # as engines of devices
        with pytest.raises(EngineError, match="spawn") as caught:
            engine(**zeros)
        assert "\n" not in str(caught.value)


def test_a_used_renderer_is_pickled_by_its_settings() -> None:
    with ohlora.Renderer(threads=1, backend="onnxruntime") as renderer:
        images = renderer.render(ohlora.SeedRange(1, 2))
        data = pickle.dumps(renderer)
        assert len(data) < 2000
        make = renderer.__reduce__()[0]
        assert len(make.args) + len(make.keywords) == len(inspect.signature(ohlora.Renderer).parameters)
        with pickle.loads(data) as other:
            assert (other.backend, other.threads, other.bundle.identity) == (
                "onnxruntime", 1, renderer.bundle.identity,
            )  # fmt: skip
            assert np.array_equal(other.render(ohlora.SeedRange(1, 2)), images)


def test_threads_and_asyncio_share_a_renderer() -> None:
    with ohlora.Renderer(threads=2) as renderer:
        barrier = threading.Barrier(4)

        def portrait(seed: int) -> bytes:
            return renderer.render(ohlora.SeedRange(seed, seed), ombres=ohlora.Ombre(0.1, 0.7, 0.5)).tobytes()

        def first(seed: int) -> bytes:
            barrier.wait()  # all of them open the engines
            return portrait(seed)

        async def gathered() -> list[bytes]:
            return await asyncio.gather(*(asyncio.to_thread(portrait, seed) for seed in range(4)))

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(first, range(4)))
        assert made == [portrait(seed) for seed in range(4)]
        assert asyncio.run(gathered()) == made
