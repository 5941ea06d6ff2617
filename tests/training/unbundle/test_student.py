"""A bundle's hair student as a trainable module: the same maps, from every form the exporter writes."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from ohlora.bench.suites.declined import phase_kernels
from ohlora.bench.suites.rewrite_cases import unlike_new
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.errors import BundleError
from ohlora.export.bundle.students import probe_pictures
from ohlora.export.graphs.from_torch import to_onnx
from ohlora.export.graphs.pictures import PictureGraph
from ohlora.export.graphs.student import export_student
from ohlora.export.rewrites.student import rewrite_student
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.unbundle import student as bundle_student
from ohlora.training.unbundle.student import student_from_bundle
from ohlora.training.weights.student import load_student
from tests.support.small_bundle import relist


def maps(student: EffiSegNet) -> np.ndarray:
    x = torch.from_numpy(probe_pictures()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return student(x)[:, 0].numpy()


def random_student() -> EffiSegNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return unlike_new(EffiSegNet(SHIPPED_ENCODER, drop_path=0.0))


def refilled(graph: onnx.ModelProto) -> EffiSegNet:
    made = EffiSegNet(SHIPPED_ENCODER, drop_path=0.0).eval()
    bundle_student._fill(made, graph)
    return made


def test_a_student_survives_the_way_there_and_back(tmp_path: Path) -> None:
    student = random_student()
    export_student(student, tmp_path / "hair.onnx", half_weights=False)
    made = refilled(onnx.load(tmp_path / "hair.onnx"))
    wanted = maps(student)
    assert np.ptp(wanted) > 0.1  # the pictures do matter
    np.testing.assert_allclose(maps(made), wanted, atol=2e-5)
    # Exported again it is the same network.
    export_student(made, tmp_path / "again.onnx", half_weights=False)
    first, second = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"image": probe_pictures()})[0]
        for name in ("hair.onnx", "again.onnx")
    )
    np.testing.assert_allclose(second, first, atol=2e-5)


def test_a_file_with_four_phase_kernels() -> None:
    """What older versions wrote."""
    student = random_student()
    kernels = phase_kernels(rewrite_student(student))
    phases = PictureGraph(lambda x: kernels(x)[:, 0], student=kernels)
    example = {"image": torch.zeros((2, 224, 224, 3), dtype=torch.uint8)}
    graph = to_onnx(phases, example, "hair")
    assert any(node.op_type == "DepthToSpace" for node in graph.graph.node)
    np.testing.assert_allclose(maps(refilled(graph)), maps(student), atol=2e-5)


def test_the_demo_bundle(tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    done = CliRunner().invoke(app, ["train", "unbundle", "demo", "--network", "hair", "--out", str(out)])
    assert done.exit_code == 0, done.output
    student = load_student(out)
    with Bundle.open("demo").hair_engine("onnxruntime") as engine:
        wanted = engine(image=probe_pictures())["hair"]
    np.testing.assert_allclose(maps(student), wanted, atol=2e-3)


def test_a_network_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    demo = Bundle.open("demo")
    graph = onnx.load(demo.file("hair.onnx"))
    fewer = copy.deepcopy(graph)
    last = next(node for node in reversed(fewer.graph.node) if node.op_type == "Conv")
    fewer.graph.node.remove(last)
    shutil.copytree(demo.path, tmp_path / "copy")
    (tmp_path / "copy" / "hair.onnx").write_bytes(fewer.SerializeToString())
    relist(tmp_path / "copy", "hair.onnx")
    with pytest.raises(BundleError, match=r"hair\.onnx is no student that `ohlora bundle build` exported"):
        student_from_bundle(tmp_path / "copy")
    manifest = tmp_path / "copy" / "bundle.json"
    manifest.write_text(manifest.read_text().replace("EffiSegNet (tf_efficientnet_lite0", "UNet (resnet18"))
    with pytest.raises(BundleError, match=r"no EffiSegNet but 'UNet \(resnet18"):
        student_from_bundle(tmp_path / "copy")


def test_an_unknown_network_is_named() -> None:
    done = CliRunner().invoke(app, ["train", "unbundle", "demo", "--network", "mouth"])
    assert "no network 'mouth'" in str(done.exception)
