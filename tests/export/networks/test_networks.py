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
from ohlora.export.networks.compare import EXACT, Comparison, figures
from ohlora.export.networks.inputs import faces
from ohlora.export.networks.registry import Graph, graph_parity, load_network, module_graphs
from ohlora.export.networks.table import NETWORKS
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


def session(graph: Graph) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # refused batches are meant to be
    data = graph.model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in opened.get_outputs()]
    return dict(zip(names, opened.run(None, inputs), strict=True))


def check(name: str, module: nn.Module, **options: str) -> dict[str, Graph]:
    """Make the graphs; then other inputs than those of their own comparison, one and three at a time, rows alone."""
    entry = NETWORKS[name]
    graphs = {key: make() for key, make in module_graphs(name, module, options).items()}
    chosen = entry.chosen(options)
    assert list(graphs) == [graph.name for graph in entry.graphs_of(module)]
    for graph in entry.graphs_of(module):
        made = graphs[graph.name]
        assert made.rows_depend == entry.rows_depend(chosen)
        assert set(made.parity) == {output.name for output in made.model.graph.output}
        opened = session(made)
        inputs = {key: np.array(value) for key, value in graph.probe_inputs(module, 7, 3, chosen).items()}
        together = run(opened, inputs)
        wanted = made.eager(inputs)
        assert set(together) == set(wanted)
        first = {key: value[:1] for key, value in inputs.items()}
        alone = run(opened, first)
        alone_wanted = made.eager(first) if made.rows_depend else wanted
        for output, kind in graph.outputs.items():
            if output not in wanted:
                continue
            assert together[output].shape == wanted[output].shape
            assert together[output].shape[0] == 3
            EXACT[kind].require(output, figures(kind, together[output], wanted[output]))
            EXACT[kind].require(output, figures(kind, alone[output], alone_wanted[output][:1]))
            assert wanted[output].std() > 0, output
    return graphs


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MAKERS]
)
def test_graph_equals_the_module(name: str) -> None:
    module = random_module(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    made = check(name, module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    for graph in made.values():
        assert {node.domain for node in graph.model.graph.node} <= {"", "ai.onnx"}
        assert str(Path(__file__).resolve().parents[3]).encode() not in graph.model.SerializeToString()


def test_all_networks_are_tested() -> None:
    assert set(MAKERS) | set(LARGE) == set(NETWORKS)


def test_packaged_face_networks() -> None:
    module = load_network("mtcnn", None, None)
    made = check("mtcnn", module)
    assert set(made) == {"proposal", "refinement", "output"}
    # As the cascade itself calls them.
    crops = faces(3, 2, 48).astype(np.float32)
    found = run(session(made["output"]), {"image": crops})
    for mine, theirs in zip(
        (found["probability"], found["box"], found["landmarks"]), TorchNetworks().output(crops), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"come with facenet-pytorch: give no file, got own.pt"):
        load_network("mtcnn", None, "own.pt")


@pytest.mark.slow
def test_facexformer() -> None:
    model = TEACHER.load(facexformer_state()).eval()
    made = check("facexformer", model)["facexformer"]
    image = portraits.render(portraits.parameters_from_seeds([5]), 224).images
    maps = run(session(made), {"image": image})["parsing"]
    teacher = FaceXFormerTeacher(model).labels(list(image)).parsing  # 224 pixels: its own resize has nothing to do
    assert (maps != teacher).mean() < 1e-3
    weights = sum(int(np.prod(t.dims)) for t in made.model.graph.initializer)
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
    made = module_graphs("generator", module, {"collapse": "subpixel"})["synthesis"]()
    operations = [node.op_type for node in made.model.graph.node]
    assert "ConvTranspose" not in operations
    assert operations.count("DepthToSpace") == 2
    assert made.parity["image"]["max_grey_levels"] <= 1


@pytest.mark.parametrize(("size", "haar", "side"), [("own", "butterfly", 64), ("half", "grouped", 32),
                                                    ("quarter", "grouped", 16)])  # fmt: skip
def test_sizes_of_the_photographic_generator(size: str, haar: str, side: int) -> None:
    made = check("mobilestylegan", random_module("mobilestylegan"), size=size, haar=haar)["synthesis"].model
    said = {entry.key: entry.value for entry in made.metadata_props}
    assert (said["ohlora.resolution"], said["ohlora.haar"]) == (str(side), haar)


@pytest.mark.parametrize(("statistics", "picture"), [("alone", "uint8"), ("batch", "float32")])
def test_options_of_the_discriminator(statistics: str, picture: str) -> None:
    made = check("discriminator", random_module("discriminator"), statistics=statistics, input=picture)
    model = made["discriminator"].model
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["ohlora.statistics"] == statistics
    assert ("ohlora.rows" in said) == (statistics == "batch")
    kind = model.graph.input[0].type.tensor_type.elem_type
    assert kind == (onnx.TensorProto.UINT8 if picture == "uint8" else onnx.TensorProto.FLOAT)


def test_discriminator_keeps_the_groups_of_its_definition() -> None:
    """Groups are of min(group, batch); a batch that cannot be cut into groups fails, as in PyTorch."""
    module: Any = random_module("discriminator")
    made = module_graphs("discriminator", module)["discriminator"]()
    opened = session(made)
    for count in (1, 2, 4, 8, 12):
        inputs = made.inputs(count)
        EXACT["score"].require("score", figures("score", run(opened, inputs)["score"], made.eager(inputs)["score"]))
    inputs = made.inputs(DISCRIMINATOR.group + 1)
    with pytest.raises(Exception, match="Reshape"):
        run(opened, inputs)
    with pytest.raises(InvalidInputError, match="cannot be cut into groups of 4"):
        made.eager(inputs)
    # A neighbour changes a row's score: this graph must not be run row by row.
    pair = made.inputs(2)
    single = {key: value[:1] for key, value in pair.items()}
    assert made.rows_depend
    assert abs(run(opened, pair)["score"][0, 0] - run(opened, single)["score"][0, 0]) > 1e-3


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown collapse 'winograd': choose transposed or subpixel"):
        module_graphs("generator", random_module("generator"), {"collapse": "winograd"})
    with pytest.raises(InvalidInputError, match="the network 'reader' has no option 'collapse'; it has none"):
        module_graphs("reader", random_module("reader"), {"collapse": "subpixel"})
    with pytest.raises(InvalidInputError, match="1 to 1000 samples, got 0 and 0"):
        faces(0, 0, 32)


# --- what is compared --------------------------------------------------------------------------------------------


def test_a_graph_that_differs_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(module: nn.Module) -> nn.Module:
        made = random_module("reader", seed=1)
        made.mean.copy_(module.mean)  # type: ignore[operator]
        return made

    monkeypatch.setattr(networks_graphs, "fold_batch_norms", spoiled)
    with pytest.raises(EngineError, match=r"reader.onnx, output parameters, differs .* relative_error is [0-9]"):
        module_graphs("reader", random_module("reader"))["reader"]()
    broken: Any = random_module("reader")
    broken.mean.fill_(float("nan"))
    monkeypatch.undo()
    with pytest.raises(EngineError, match="relative_error is nan"):
        module_graphs("reader", broken)["reader"]()


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
    with pytest.raises(InvalidInputError, match="unknown network 'unet': choose generator, mobilestylegan, disc"):
        load_network("unet", None, path)
    with pytest.raises(InvalidInputError, match="'cnn-age' are in a file: give its path"):
        load_network("cnn-age", None, None)


def test_a_module_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a Discriminator is no 'generator'"):
        module_graphs("generator", random_module("discriminator"))
    with pytest.raises(InvalidInputError, match=r"a ClassifierCnn \(gender\) is no 'cnn-age'"):
        module_graphs("cnn-age", make("gender", 0.03))
    with pytest.raises(InvalidInputError, match="this student has one output, needed is one of several classes"):
        module_graphs("parsing", random_module("student"))["parsing"]()
    assert module_graphs("student", random_module("parsing"))["student"]().output == "hair"  # of its class


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
    gate = Comparison({"max_abs_error": 0.1}, {"iou": 0.9})
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
    model = module_graphs("reader", module)["reader"]().model
    module.mean.add_(0.25)
    found = graph_parity(entry.graphs[0], module, model, {}, samples=2)
    assert found["parameters"]["max_abs_error"] == pytest.approx(0.25, abs=1e-5)
