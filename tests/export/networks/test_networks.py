"""Every network's graph: equal to the module, any batch size, rows independent where said, wrong weights refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ohlora.errors import CheckpointError, EngineError, InvalidInputError
from ohlora.export.networks import graphs as networks_graphs
from ohlora.export.networks import registry as networks
from ohlora.export.networks.compare import EXACT
from ohlora.export.networks.inputs import faces
from ohlora.export.networks.registry import (
    NETWORKS,
    Comparison,
    build_graphs,
    export_network,
    figures,
    graph_parity,
    load_network,
)
from ohlora.training import checkpoints
from ohlora.training.checkpoints import KINDS
from ohlora.training.data import portraits
from ohlora.training.directions.reader import save_reader
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.teachers.bisenet import BiSeNetTeacher
from ohlora.training.teachers.facexformer import FaceXFormerTeacher
from ohlora.training.teachers.mtcnn import TorchNetworks
from ohlora.training.weights.facexformer_keys import TEACHER
from ohlora.training.weights.score_cnns_keys import make
from ohlora.training.weights.student import save_student
from tests.support.golden_weights import facexformer_state, score_cnn_state
from tests.support.network_modules import DISCRIMINATOR, MAKERS, random_module

LARGE = ("facexformer", "mtcnn")  # not made small: golden or packaged weights
# Large, or covered by others already: the same graph with more parts, or with classes in place of a probability.
SLOW = (
    "student",
    "parsing",
    "bisenet",
    "cnn-hairstyle",
    "cnn-quality",
    "cnn-age",
    "cnn-glass",
    "cnn-property",
    "cnn-merged",
)


@pytest.fixture(autouse=True)
def seeded_without_gradients() -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # refused batches are meant to be
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in opened.get_outputs()]
    return dict(zip(names, opened.run(None, inputs), strict=True))


def check(name: str, module: nn.Module, folder: Path, **options: str) -> networks.Exported:
    """Export; then other inputs than the export's own, one and three at a time, and rows alone."""
    entry = NETWORKS[name]
    made = export_network(name, module, folder, samples=1, **options)
    chosen = entry.chosen(options)
    assert made.options == chosen
    assert made.rows_depend == entry.rows_depend(chosen)
    assert set(made.parity) == {
        f"{graph.name}.{output.name}"
        for graph in entry.graphs_of(module)
        for output in onnx.load(made.files[graph.name]).graph.output
    }
    for graph in entry.graphs_of(module):
        opened = session(made.files[graph.name])
        inputs = {key: np.array(value) for key, value in graph.probe_inputs(module, 7, 3, chosen).items()}
        together = run(opened, inputs)
        wanted = graph.reference(module, inputs, chosen)
        assert set(together) == set(wanted)
        first = {key: value[:1] for key, value in inputs.items()}
        alone = run(opened, first)
        alone_wanted = graph.reference(module, first, chosen) if made.rows_depend else wanted
        for output, comparison in graph.outputs.items():
            if output not in wanted:
                continue
            assert together[output].shape == wanted[output].shape
            assert together[output].shape[0] == 3
            comparison.require(output, figures(comparison.kind, together[output], wanted[output]))
            comparison.require(output, figures(comparison.kind, alone[output], alone_wanted[output][:1]))
            assert wanted[output].std() > 0, output
    return made


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MAKERS]
)
def test_graph_equals_the_module(name: str, tmp_path: Path) -> None:
    module = random_module(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    made = check(name, module, tmp_path / "out")
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(made.files)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    for path in made.files.values():
        model = onnx.load(path)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert str(Path(__file__).resolve().parents[3]).encode() not in model.SerializeToString()


def test_all_networks_are_tested() -> None:
    assert set(MAKERS) | set(LARGE) == set(NETWORKS)


def test_packaged_face_networks(tmp_path: Path) -> None:
    module = load_network("mtcnn", None, None)
    made = check("mtcnn", module, tmp_path)
    assert set(made.files) == {"proposal", "refinement", "output"}
    # As the cascade itself calls them.
    crops = faces(3, 2, 48).astype(np.float32)
    found = run(session(made.files["output"]), {"image": crops})
    for mine, theirs in zip(
        (found["probability"], found["box"], found["landmarks"]), TorchNetworks().output(crops), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"come with facenet-pytorch: give no file, got own.pt"):
        load_network("mtcnn", None, "own.pt")


@pytest.mark.slow
def test_facexformer(tmp_path: Path) -> None:
    model = TEACHER.load(facexformer_state()).eval()
    made = check("facexformer", model, tmp_path)
    image = portraits.render(portraits.parameters_from_seeds([5]), 224).images
    maps = run(session(made.files["facexformer"]), {"image": image})["parsing"]
    teacher = FaceXFormerTeacher(model).parsing11(list(image))  # 224 pixels: its own resize has nothing to do
    assert (maps != teacher).mean() < 1e-3
    weights = sum(int(np.prod(t.dims)) for t in onnx.load(made.files["facexformer"]).graph.initializer)
    assert weights < 95_000_000


def test_bisenet_sees_what_its_teacher_sees(tmp_path: Path) -> None:
    module = random_module("bisenet")
    assert isinstance(module, BiSeNet)
    image = faces(0, 1, 512)
    prepared = NETWORKS["bisenet"].graphs[0].reference(module, {"image": image}, {})["parsing"]
    logits = BiSeNetTeacher(module, find_eyes=None).parse(list(image))  # 512 pixels: its own resize has nothing to do
    assert prepared.dtype == np.uint8
    assert (prepared != logits.argmax(1)).mean() < 1e-4


# --- options -----------------------------------------------------------------------------------------------------


def test_collapse_of_the_generator() -> None:
    module = random_module("generator")
    graph = next(graph for graph in NETWORKS["generator"].graphs if graph.name == "synthesis")
    model = graph.build(module, {"collapse": "subpixel"})
    operations = [node.op_type for node in model.graph.node]
    assert "ConvTranspose" not in operations
    assert operations.count("DepthToSpace") == 2
    found = graph_parity(graph, module, model, {"collapse": "subpixel"})
    graph.outputs["image"].require("image", found["image"])


@pytest.mark.parametrize(("statistics", "picture"), [("alone", "uint8"), ("batch", "float32")])
def test_options_of_the_discriminator(tmp_path: Path, statistics: str, picture: str) -> None:
    made = check("discriminator", random_module("discriminator"), tmp_path, statistics=statistics, input=picture)
    model = onnx.load(made.files["discriminator"])
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["ohlora.statistics"] == statistics
    assert ("ohlora.rows" in said) == (statistics == "batch")
    kind = model.graph.input[0].type.tensor_type.elem_type
    assert kind == (onnx.TensorProto.UINT8 if picture == "uint8" else onnx.TensorProto.FLOAT)


def test_discriminator_keeps_the_groups_of_its_definition(tmp_path: Path) -> None:
    """Groups are of min(group, batch); a batch that cannot be cut into groups fails, as in PyTorch."""
    module: Any = random_module("discriminator")
    made = export_network("discriminator", module, tmp_path)
    opened = session(made.files["discriminator"])
    entry = NETWORKS["discriminator"].graphs[0]
    for count in (1, 2, 4, 8, 12):
        inputs = entry.probe_inputs(module, 1, count, made.options)
        wanted = entry.reference(module, inputs, made.options)["score"]
        EXACT["score"].require("score", figures("score", run(opened, inputs)["score"], wanted))
    inputs = entry.probe_inputs(module, 1, DISCRIMINATOR.group + 1, made.options)
    with pytest.raises(Exception, match="Reshape"):
        run(opened, inputs)
    with pytest.raises(InvalidInputError, match="cannot be cut into groups of 4"):
        entry.reference(module, inputs, made.options)
    # A neighbour changes a row's score: this graph must not be run row by row.
    pair = entry.probe_inputs(module, 1, 2, made.options)
    single = {key: value[:1] for key, value in pair.items()}
    assert made.rows_depend
    assert abs(run(opened, pair)["score"][0, 0] - run(opened, single)["score"][0, 0]) > 1e-3


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="collapse must be one of transposed, subpixel, got 'winograd'"):
        export_network("generator", random_module("generator"), tmp_path, collapse="winograd")
    with pytest.raises(InvalidInputError, match="the network 'reader' has no option 'collapse'; it has none"):
        export_network("reader", random_module("reader"), tmp_path, collapse="subpixel")
    with pytest.raises(InvalidInputError, match="1 to 1000 samples, got 0 and 0"):
        export_network("reader", random_module("reader"), tmp_path, samples=0)
    assert not list(tmp_path.iterdir())


# --- what is written ---------------------------------------------------------------------------------------------


def test_nothing_is_written_when_a_graph_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(module: nn.Module) -> nn.Module:
        made = random_module("reader", seed=1)
        made.mean.copy_(module.mean)  # type: ignore[operator]
        return made

    monkeypatch.setattr(networks_graphs, "fold_batch_norms", spoiled)
    with pytest.raises(EngineError, match=r"reader.onnx, output parameters, differs .* relative_error is [0-9]"):
        export_network("reader", random_module("reader"), tmp_path / "out")
    broken: Any = random_module("reader")
    broken.mean.fill_(float("nan"))
    monkeypatch.undo()
    with pytest.raises(EngineError, match="relative_error is nan"):
        export_network("reader", broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_exports_are_reproducible() -> None:
    graph = NETWORKS["generator"].graphs[0]
    first, second = (graph.build(random_module("generator"), {"collapse": "transposed"}) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


# --- kinds -------------------------------------------------------------------------------------------------------


def test_every_kind_of_weights_belongs_to_a_network() -> None:
    kinds = [kind for entry in NETWORKS.values() for kind in entry.kinds]
    assert len(kinds) == len(set(kinds))
    assert set(KINDS) <= set(kinds)


def test_wrong_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    checkpoints.save(random_module("generator"), path, "stylegan")
    assert isinstance(load_network("generator", "stylegan", path), NETWORKS["generator"].module)
    with pytest.raises(
        InvalidInputError, match="kind 'discriminator' of weights for the network 'generator': give one of st"
    ):
        load_network("generator", "discriminator", path)
    with pytest.raises(InvalidInputError, match="no kind of weights for the network 'generator'"):
        load_network("generator", None, path)
    with pytest.raises(CheckpointError, match="is no 'discriminator': its metadata say 'stylegan'"):
        load_network("discriminator", "discriminator", path)
    with pytest.raises(InvalidInputError, match="unknown network 'unet'; known: generator, discriminator"):
        load_network("unet", None, path)
    with pytest.raises(InvalidInputError, match="'cnn-age' are in a file: give its path"):
        load_network("cnn-age", None, None)


def test_a_module_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="a Discriminator is no 'generator'"):
        export_network("generator", random_module("discriminator"), tmp_path)
    with pytest.raises(InvalidInputError, match=r"a ClassifierCnn \(gender\) is no 'cnn-age'"):
        export_network("cnn-age", make("gender", 0.03), tmp_path)
    with pytest.raises(InvalidInputError, match="this student has one output, needed is one of several classes"):
        export_network("parsing", random_module("student"), tmp_path)
    with pytest.raises(InvalidInputError, match="this student has 11 classes, needed is one of one output"):
        export_network("student", random_module("parsing"), tmp_path)


def test_own_and_published_files_are_read(tmp_path: Path) -> None:
    for name, kind in (("student", "student"), ("parsing", "parsing-student")):
        module: Any = random_module(name)
        save_student(tmp_path / f"{name}.safetensors", module.state_dict(), module.encoder_name)
        loaded: Any = load_network(name, kind, tmp_path / f"{name}.safetensors")
        assert loaded.outputs == module.outputs
        assert not loaded.training
    with pytest.raises(CheckpointError, match="is a hair student, needed is a parsing student"):
        load_network("parsing", "parsing-student", tmp_path / "student.safetensors")
    reader: Any = random_module("reader")
    save_reader(tmp_path / "reader.safetensors", reader)
    assert torch.equal(load_network("reader", None, tmp_path / "reader.safetensors").spread, reader.spread)  # type: ignore[arg-type]
    torch.save(score_cnn_state("quality"), tmp_path / "quality.pth")
    assert isinstance(load_network("cnn-quality", None, tmp_path / "quality.pth"), NETWORKS["cnn-quality"].module)


# --- comparisons and inputs --------------------------------------------------------------------------------------


def test_figures_tell_what_differs() -> None:
    picture = np.full((1, 4, 4, 3), 100, np.uint8)
    other = picture.copy()
    other[0, 0, 0, 0] = 103
    assert figures("image", other, picture) == {
        "max_grey_levels": 3.0,
        "mean_grey_levels": 3 / 48,
        "share_different": 1 / 48,
        "psnr_db": pytest.approx(10 * np.log10(255**2 / (9 / 48))),
    }
    assert figures("image", picture, picture)["psnr_db"] == 100
    mask = np.array([[[0.2, 0.6], [0.7, 0.1]]], np.float32)
    moved = np.array([[[0.2, 0.4], [0.7, 0.1]]], np.float32)
    assert figures("mask", moved, mask) == {
        "max_abs_error": pytest.approx(0.2),
        "mean_abs_error": pytest.approx(0.05),
        "iou": 0.5,
    }
    assert figures("mask", 0 * mask, 0 * mask)["iou"] == 1
    classes, changed = np.array([[[0, 1], [1, 2]]], np.uint8), np.array([[[0, 1], [2, 2]]], np.uint8)
    assert figures("classes", changed, classes) == {"share_different": 0.25, "mean_iou": pytest.approx(2 / 3)}
    values = np.array([[0.5], [200.0]], np.float32)
    assert figures("score", values + np.float32(0.5), values) == {"max_abs_error": 0.5, "relative_error": 0.0025}
    with pytest.raises(EngineError, match=r"has shape \[1\], PyTorch makes \[2, 1\]"):
        figures("score", values[0], values)


def test_bounds_in_both_directions() -> None:
    gate = Comparison("mask", {"max_abs_error": 0.1}, {"iou": 0.9})
    gate.require("x", {"max_abs_error": 0.1, "iou": 0.9})
    with pytest.raises(EngineError, match=r"iou is 0.89, allowed is at least 0.9"):
        gate.require("x", {"max_abs_error": 0.1, "iou": 0.89})
    with pytest.raises(EngineError, match=r"max_abs_error is nan, allowed is at most 0.1"):
        gate.require("x", {"max_abs_error": float("nan"), "iou": 1.0})


def test_probe_inputs_are_seeded_and_differ() -> None:
    for name in ("generator", "discriminator", "cvae-encoder", "reader"):
        module = random_module(name)
        entry = NETWORKS[name]
        for graph in entry.graphs_of(module):
            first, again, other = (graph.probe_inputs(module, seed, 2, entry.chosen({})) for seed in (0, 0, 1))
            for key, value in first.items():
                assert value.shape[0] == 2
                assert np.array_equal(value, again[key])
                assert not np.array_equal(value, other[key])
                assert not np.array_equal(value[0], value[1])


def test_parity_of_a_changed_graph_is_measured_not_judged() -> None:
    module: Any = random_module("reader")
    entry = NETWORKS["reader"]
    model = build_graphs("reader", module, {})["reader"]
    module.mean.add_(0.25)
    found = graph_parity(entry.graphs[0], module, model, {}, samples=2)
    assert found["parameters"]["max_abs_error"] == pytest.approx(0.25, abs=1e-5)
