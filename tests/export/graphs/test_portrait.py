"""portrait.onnx and recolor.onnx against the runtime's own pipeline, in every latent space, on random requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ohlora.base.values import Expression
from ohlora.bundle import Bundle
from ohlora.engines import open_engine
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.export.graphs.expression import edited_latent
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.mapping import mapping_end_graph, mapping_graph
from ohlora.export.graphs.ombre import add_ombre
from ohlora.export.graphs.portrait import portrait_graph, recolor_graph
from ohlora.export.graphs.portrait_requests import portrait_requests, recolor_requests
from ohlora.export.rewrites.generator import fold_gains
from ohlora.kernels.ombre import apply_ombre
from ohlora.latents.mapping import LatentSource
from ohlora.latents.spaces import SPACES
from ohlora.render.renderer import Renderer
from tests.support.split_generators import NETWORKS, directions_in, faces, randomized

SHARE = 1e-3  # of the values may differ by one level


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")


def difference(made: np.ndarray, wanted: np.ndarray) -> tuple[int, float]:
    apart = np.abs(made.astype(int) - wanted)
    return int(apart.max()), float((apart > 0).mean())


@pytest.mark.parametrize("which", ["demo", "tiny_bundle", "photo_bundle"])
def test_portrait_is_the_pipeline(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bundle = Bundle.open(which if which == "demo" else request.getfixturevalue(which))
    asked = portrait_requests(bundle, 10)
    model = portrait_graph(bundle)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, "standard operations only"
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["ohlora.psi"] == ("0.7" if which == "photo_bundle" else "1")
    assert ("group" in asked.inputs) == (which == "tiny_bundle"), "of several groups the graph takes one"
    (tmp_path / "portrait.onnx").write_bytes(model.SerializeToString())
    with Renderer(bundle, backend="onnxruntime", precision="fp32") as renderer:
        wanted = asked.pipeline(renderer)
    made = run_graph(model, asked.inputs)[0]  # one batch
    # Random weights draw noise that is hair all over; results that are whole numbers but for float64's last bit are
    # truncated to either side, and there are more of them.
    allowed = SHARE if which == "demo" else 2 * SHARE
    levels, share = difference(made, wanted)
    assert levels <= 1
    assert share <= allowed
    assert np.abs(wanted[0].astype(int) - wanted[1]).mean() > 2, "requests differ"
    with open_engine(tmp_path / "portrait.onnx", backend="onnxruntime") as engine:  # row by row
        levels, share = difference(engine(**asked.inputs)["image"], wanted)
    assert levels <= 1
    assert share <= allowed


def test_an_undyed_request_is_the_plain_picture() -> None:
    bundle = Bundle.open("demo")
    asked = portrait_requests(bundle, 8)
    assert asked.inputs["ombre"][7].tolist() == [-1, 0, 0]
    inputs = {name: value[7:8] for name, value in asked.inputs.items()}
    plain, hair = run_graph(portrait_graph(bundle), inputs)
    dyed = run_graph(portrait_graph(bundle), inputs | {"ombre": np.array([[0.5, 1.0, 0.0]], np.float32)})[0]
    assert hair.shape == (1, 224, 224)
    with Renderer(bundle, backend="onnxruntime") as renderer:
        exact = asked.calls[7](renderer)
    assert difference(plain, exact)[1] <= SHARE
    assert difference(dyed, exact)[1] > 0.02


@pytest.mark.parametrize("size", [(256, 256), (96, 160), (300, 200), (448, 448)])
def test_recolor_is_the_pipeline(size: tuple[int, int]) -> None:
    bundle = Bundle.open("demo")
    asked = recolor_requests(size, 4)
    with Renderer(bundle, backend="onnxruntime") as renderer:
        wanted = asked.pipeline(renderer)
    made, hair = run_graph(recolor_graph(bundle, size), asked.inputs)
    levels, share = difference(made, wanted)
    assert levels <= 1
    assert share <= SHARE
    assert max(hair.shape[1:]) == 224
    assert difference(wanted, asked.inputs["image"])[1] > 0.01, "something was dyed"


@pytest.mark.parametrize("networks", NETWORKS, ids=["vectors", "network"])
@pytest.mark.parametrize("space", SPACES)
def test_expressions_in_every_space(space: str, networks: tuple[str, ...], tmp_path: Path) -> None:
    generator = fold_gains(randomized())
    directions = directions_in(space, networks)
    models = {"mapping": mapping_graph(generator), "mapping_end": mapping_end_graph(generator)}
    graph = GraphBuilder()
    w = edited_latent(graph, models["mapping"], models["mapping_end"], directions, 3)
    graph.add("Identity", [w], "w")
    inputs = {"z": ("float32", ("N", 512)), "label": ("float32", ("N", 3)), "expression": ("float32", ("N", 3))}
    model = graph.model("test", inputs | {"group": ("int64", ("N",))}, {"w": ("float32", ("N", 24))})
    looks = (Expression(), Expression(0.4, -1.0, 0.7), Expression(mouth=-1.5))
    asked = [(i, face, look) for i, face in enumerate(faces(3)) for look in looks]
    for name, part in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(part.SerializeToString())
    mapping, end = (open_engine(tmp_path / f"{name}.onnx", backend="onnxruntime") for name in models)
    wanted = LatentSource(mapping, end, directions).rows(asked)
    given = {
        "z": np.stack([face.z for _, face, _ in asked]),
        "label": np.stack([face.label for _, face, _ in asked]),
        "expression": np.array([[e.eyes, e.mouth, e.pose] for _, _, e in asked], np.float32),
        "group": np.array([directions.groups.index(str(face.group)) for _, face, _ in asked], np.int64),
    }
    used = {name: value for name, value in given.items() if name in {i.name for i in model.graph.input}}
    made = run_graph(model, used)[0]
    np.testing.assert_allclose(made, wanted, atol=5e-5)
    assert np.abs(wanted[1] - wanted[0]).max() > 0.1
    mapping.close()
    end.close()


def ombre_model(size: tuple[int, int], hair: tuple[int, int]) -> onnx.ModelProto:
    graph = GraphBuilder()
    add_ombre(graph, "image", "hair", size, hair, output="dyed")
    inputs = {"image": ("uint8", ("N", *size, 3)), "hair": ("float32", ("N", *hair)), "ombre": ("float32", ("N", 3))}
    return graph.model("ombre", inputs, {"dyed": ("uint8", ("N", *size, 3))})


@pytest.mark.parametrize("kind", ["none", "all", "weak", "one row", "bottom row", "random"])
@pytest.mark.parametrize("dye", [(0.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.4, 0.7, 0.5), (0.9, 1.0, 0.0)])
def test_ombre_on_extreme_masks(kind: str, dye: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    hair = {
        "none": lambda: np.zeros((2, 28, 28)),
        "all": lambda: np.ones((2, 28, 28)),
        "weak": lambda: np.full((2, 28, 28), 0.9),  # coverage without a hair row
        "one row": lambda: np.eye(28)[None, 14][:, :, None].repeat(28, 2).repeat(2, 0),
        "bottom row": lambda: np.eye(28)[None, 27][:, :, None].repeat(28, 2).repeat(2, 0),
        "random": lambda: rng.random((2, 28, 28)),
    }[kind]().astype(np.float32)
    wanted = apply_ombre(image, hair, *dye, backend="reference")
    given = {"image": image, "hair": hair, "ombre": np.array([dye, dye], np.float32)}
    levels, share = difference(run_graph(ombre_model((32, 32), (28, 28)), given)[0], wanted)
    assert levels <= 1
    assert share <= 2 * SHARE  # of two small pictures a single row of a gradient is much


def test_sizes_that_show_no_portrait_are_refused() -> None:
    bundle = Bundle.open("demo")
    with pytest.raises(InvalidInputError, match="sides must be in"):
        recolor_graph(bundle, (4, 256))
    with pytest.raises(Exception, match="too narrow"):
        recolor_graph(bundle, (10, 256))


def test_split1_without_its_network_is_refused() -> None:
    generator = fold_gains(randomized())
    with pytest.raises(InvalidInputError, match="mapping_end"):
        edited_latent(GraphBuilder(), mapping_graph(generator), None, directions_in("mapping_split1"), 3)


def test_the_files_say_what_they_are() -> None:
    bundle = Bundle.open("demo")
    found = {entry.key: entry.value for entry in recolor_graph(bundle, (64, 64)).metadata_props}
    assert found["ohlora.role"] == "recolor"
    assert found["ohlora.bundle_sha256"] == bundle.identity


def test_requests_are_the_same_every_time_and_differ_from_each_other() -> None:
    bundle = Bundle.open("demo")
    first, again = (portrait_requests(bundle, 4).inputs for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert all(len(np.unique(values, axis=0)) == 4 for values in first.values())
