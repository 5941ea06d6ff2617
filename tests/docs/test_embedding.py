"""The embedding examples, run as their users run them, against the renderer's own pictures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ohlora
from ohlora.base.values import Expression, Ombre
from ohlora.bundle import Bundle
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.faces import face_from_seed

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "embedding"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    bundle = Bundle.open("demo")
    (folder / "portrait.onnx").write_bytes(portrait_graph(bundle).SerializeToString())
    (folder / "recolor.onnx").write_bytes(recolor_graph(bundle, (96, 128)).SerializeToString())
    return folder


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "import ohlora" not in text
    assert "import torch" not in text
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def nearly(made: np.ndarray, wanted: np.ndarray) -> None:
    apart = np.abs(made.astype(int) - wanted)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 1e-3


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """Three seeds, wide eyes, dyed: what `ohlora render` gives."""
    with ohlora.Renderer("demo", backend="onnxruntime") as renderer:
        faces = [face_from_seed(seed) for seed in range(3)]
        return renderer.render(faces, Expression(eyes=-1.0), Ombre(0.55, 0.8, 0.4))


def test_portraits_in_plain_python(engines: Path, tmp_path: Path, wanted: np.ndarray) -> None:
    dye = ("--color", 0.55, "--height", 0.8, "--grad-height", 0.4)
    done = example(
        "portrait_onnxruntime.py", engines / "portrait.onnx", "--seeds", "0:3", "--eyes", -1, *dye, "--batch", 2,
        "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = np.stack([np.asarray(Image.open(tmp_path / f"seed{seed:06d}.png")) for seed in range(3)])
    nearly(made, wanted)


def test_recolouring_in_plain_python(engines: Path, tmp_path: Path) -> None:
    with ohlora.Renderer("demo", backend="onnxruntime") as renderer:
        face = Image.fromarray(renderer.render(face_from_seed(4))[0]).resize((128, 96))
        face.save(tmp_path / "face.png")
        exact = renderer.recolor(np.asarray(face), Ombre(0.9), detect="whole")[0]
    done = example("recolor_onnxruntime.py", engines / "recolor.onnx", tmp_path / "face.png", tmp_path / "dyed.png",
                   "--color", 0.9)  # fmt: skip
    assert done.returncode == 0, done.stderr
    nearly(np.asarray(Image.open(tmp_path / "dyed.png")), exact)
    face.resize((64, 64)).save(tmp_path / "small.png")
    done = example("recolor_onnxruntime.py", engines / "recolor.onnx", tmp_path / "small.png", tmp_path / "x.png",
                   "--color", 0.9)  # fmt: skip
    assert done.returncode != 0
    assert "64x64, the model takes 128x96" in done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, built with the headers of the openvino package."""
    utils = pytest.importorskip("openvino.utils", reason="the openvino package carries the C++ headers")
    if not (shutil.which("cmake") and (shutil.which("g++") or shutil.which("clang++"))):
        pytest.skip("cmake and a C++ compiler build the C++ example")
    if not Path(utils.get_cmake_path()).is_dir():
        pytest.skip("this openvino package carries no C++ headers")
    build = tmp_path_factory.mktemp("build")
    where = f"-DOpenVINO_DIR={utils.get_cmake_path()}"
    for command in (["cmake", "-S", str(EXAMPLES / "cpp"), "-B", str(build), where], ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "portrait"


def test_portraits_in_cpp(program: Path, engines: Path, tmp_path: Path, wanted: np.ndarray) -> None:
    z = np.stack([face_from_seed(seed).z for seed in range(3)])
    (tmp_path / "z.f32").write_bytes(z.astype("<f4").tobytes())
    numbers = [str(value) for value in (-1, 0, 0, 0.55, 0.8, 0.4)]
    command = [str(program), str(engines / "portrait.onnx"), str(tmp_path / "z.f32"), str(tmp_path / "face"), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = np.stack([np.asarray(Image.open(tmp_path / f"face{row}.ppm")) for row in range(3)])
    nearly(made, wanted)
    done = subprocess.run([*command[:2], str(tmp_path / "none"), "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds no float32 numbers" in done.stderr
    assert subprocess.run([str(program)], capture_output=True, check=False).returncode == 2
