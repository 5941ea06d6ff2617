"""A generator whose mapping ends in two branches, from checkpoint to portraits, with directions in every space."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import ohlora
from ohlora.base.values import PROPERTIES, Expression, Face
from ohlora.bundle import Bundle
from ohlora.bundle.description import describe
from ohlora.bundle.manifest import parse_manifest
from ohlora.bundle.write import new_bundle
from ohlora.cli import app
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.errors import BundleError, EngineError, InvalidInputError
from ohlora.export.bundle.builder import build_bundle, named_faces
from ohlora.export.bundle.directions import load_directions
from ohlora.export.bundle.generator import write_generator
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.generator import exact_reference
from ohlora.export.graphs.mapping import mapping_end_graph, mapping_graph
from ohlora.export.rewrites.generator import fold_gains
from ohlora.faces import face_from_seed
from ohlora.latents.directions import Directions, write_directions
from ohlora.latents.gradient_network import GradientNetwork
from ohlora.latents.mapping import LatentSource
from ohlora.latents.spaces import SPACES
from ohlora.render.job import Look, RenderJob
from ohlora.training import checkpoints
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.stylegan import Generator
from ohlora.training.unbundle.generator import generator_from_bundle
from ohlora.training.weights import stylegan_keys
from tests.support import small_bundle
from tests.support.command_line import output_of
from tests.support.golden_weights import generator_state
from tests.support.small_bundle import edit, relist
from tests.support.small_directions import make, shapes
from tests.support.split_generators import CONFIG, NETWORKS, directions_in, faces, randomized

SMILE = Expression(0.4, -1.0, 0.7)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")


def options(folder: Path) -> dict[str, Any]:
    return {
        "generator": folder / "g.safetensors",
        "kind": "stylegan",
        "hair": "demo",
        "name": "split",
        "license": "none",
        "provenance": "random weights",
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """g.safetensors, `bundle` of it with directions in mapping_split1, one of them a network; `directions`."""
    folder = tmp_path_factory.mktemp("split")
    generator = randomized()
    checkpoints.save(generator, folder / "g.safetensors", "stylegan")
    found = dataclasses.replace(directions_in("mapping_split1", ("eyes",)), generator_sha256=state_sha256(generator))
    (folder / "directions").mkdir()
    write_directions(folder / "directions" / "directions.safetensors", found)
    build_bundle(folder / "bundle", directions=folder / "directions", **options(folder))
    return folder


@pytest.fixture(scope="module")
def module(made: Path) -> Generator:
    loaded = checkpoints.load("stylegan", made / "g.safetensors")
    assert isinstance(loaded, Generator)
    return exact_reference(loaded)


def gradient(network: GradientNetwork, x: Tensor) -> Tensor:
    """Direction of a network by automatic differentiation, [1,D]."""
    w1, b1, w2, b2, w3, b3 = (torch.from_numpy(value.copy()).double() for value in network.arrays.values())
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        score = torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
        (found,) = torch.autograd.grad(score.sum(), x)
    return network.scale * found / found.norm()


def edited_w(module: Generator, directions: Directions, face: Face, expression: Expression) -> Tensor:
    """The documented way, in float64: the whole latent is edited, then the rest of the mapping runs."""
    mapping = module.mapping
    z, label = (torch.from_numpy(value[None].copy()).double() for value in (face.z, face.label))
    with torch.no_grad():
        w1, w2 = mapping.hidden(z, label)
        ends = mapping.ends(w1, w2)
        starts = {
            "z": torch.cat([z, label], 1),
            "w": ends[0] + ends[1],
            "mapping_split1": torch.cat([w1, w2], 1),
            "mapping_split2": torch.cat(ends, 1),
        }
    x = start = starts[directions.space]
    for name in PROPERTIES:
        network = directions.networks.get(name)
        move = directions.vectors[name][str(face.group)] if network is None else None
        v = gradient(network, start) if network is not None else torch.from_numpy(move)[None]
        x = x + getattr(expression, name) * v
    size = CONFIG.w_size
    with torch.no_grad():
        if directions.space == "z":
            return mapping(x[:, :512], x[:, 512:])
        if directions.space == "mapping_split1":
            return sum(mapping.ends(x[:, :size], x[:, size:]))
        return x[:, :size] + x[:, size:] if directions.space == "mapping_split2" else x


def test_the_bundle_says_what_it_holds(made: Path) -> None:
    bundle = Bundle.open(made / "bundle")
    part = bundle.generator_part()
    assert (part.mapping_end, part.split_size) == ("mapping_end.onnx", 16)
    assert part.parity["mapping_end_max_abs_error"] < 1e-5  # type: ignore[operator]
    assert set(bundle.engine_hashes) == {"hair", "mapping", "synthesis", "mapping_end"}
    directions = bundle.directions_part()
    assert (directions.space, directions.networks) == ("mapping_split1", {"eyes": -1.0})
    assert "2 groups, in mapping_split1, eyes by a network" in dict(describe(bundle))["directions"]
    with ohlora.Renderer(bundle) as renderer:
        assert renderer.directions is not None
        assert renderer.directions.arrays().keys() == directions_in("mapping_split1", ("eyes",)).arrays().keys()
        assert renderer.directions.sha256 == directions_in("mapping_split1", ("eyes",)).sha256
    done = CliRunner().invoke(app, ["bundle", "verify", str(made / "bundle")])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("networks", NETWORKS, ids=["vectors", "network"])
@pytest.mark.parametrize("space", SPACES)
def test_latents_are_those_of_the_module(made: Path, module: Generator, space: str, networks: tuple[str, ...]) -> None:
    bundle, directions = Bundle.open(made / "bundle"), directions_in(space, networks)
    mapping, synthesis = bundle.generator_engines("onnxruntime", threads=2)
    end = bundle.mapping_end_engine("onnxruntime", threads=2)
    looks = (Expression(), SMILE, Expression(mouth=-1.5))
    asked = [(i, face, expression) for i, face in enumerate(faces()) for expression in looks]
    rows = LatentSource(mapping, end, directions).rows(asked)
    wanted = np.concatenate([edited_w(module, directions, face, expression).numpy() for _, face, expression in asked])
    assert np.abs(rows - wanted).max() < 2e-5
    assert np.abs(rows[1] - rows[0]).max() > 0.1, "the expression moves something"
    # Alone, in another order, by parts: the same bits. Neutral: the plain w.
    for i, one in enumerate(asked):
        assert np.array_equal(LatentSource(mapping, end, directions).rows([one])[0], rows[i])
    source = LatentSource(mapping, end, directions)
    backwards = np.concatenate([source.rows(asked[i : i + 4][::-1])[::-1] for i in range(0, len(asked), 4)])
    assert np.array_equal(backwards, rows)
    inputs = {"z": np.stack([f.z for f in faces()]), "label": np.stack([f.label for f in faces()])}
    assert np.array_equal(rows[:: len(looks)], mapping(**inputs)["w"])
    for engine in (mapping, synthesis, end):
        engine.close()


@pytest.mark.parametrize("space", SPACES)
def test_pictures_of_every_space(made: Path, module: Generator, space: str) -> None:
    directions, face = directions_in(space, ("mouth",)), faces()[1]
    with ohlora.Renderer(made / "bundle", "onnxruntime", threads=1, directions=directions) as renderer:
        still, moved = renderer.render(face, [Expression(), SMILE])
    with ohlora.Renderer(made / "bundle", "onnxruntime", threads=1) as renderer:
        assert np.array_equal(still, renderer.render(face)[0])
    assert (still != moved).any()
    with torch.no_grad():
        image = module.synthesis(module.broadcast(edited_w(module, directions, face, SMILE)))[0]
    wanted = ((image + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.abs(moved.astype(int) - wanted).max() <= 1


def test_what_belongs_to_a_face_is_computed_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = GradientNetwork.directions

    def counted(self: GradientNetwork, x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(GradientNetwork, "directions", counted)
    looks = tuple(Look(Expression(eyes=0.1 * i)) for i in range(9))
    with ohlora.Renderer(made / "bundle", "onnxruntime", threads=1) as renderer:
        list(renderer.stream(RenderJob(faces(3), looks)))
        assert asked == [1, 1, 1]
        # Without an expression neither a network nor the mapping's end is asked for anything.
        renderer.close()
        renderer.render(faces(2))
        assert "_mapping_end" not in renderer.__dict__
    assert asked == [1, 1, 1]


def test_split_directions_need_a_split_mapping(made: Path) -> None:
    config = dataclasses.replace(CONFIG, w_size=512, label_size=0, embedding_size=0)
    for space in ("mapping_split1", "mapping_split2"):
        directions = directions_in(space, (), config)
        with (
            pytest.raises(InvalidInputError, match=f"directions in {space} need a mapping network of two branches"),
            ohlora.Renderer("demo", directions=directions) as renderer,
        ):
            renderer.render(face_from_seed(1), SMILE)
    with pytest.raises(BundleError, match=r"has no mapping_end network: .* build it again"):
        Bundle.open("demo").mapping_end_engine()
    short = make("mapping_split1", 24)
    with (
        pytest.raises(InvalidInputError, match="24 numbers, mapping_split1 of bundle 'split' has 40"),
        ohlora.Renderer(made / "bundle", directions=short) as renderer,
    ):
        renderer.render(faces(1), SMILE)


# --- what is stored ------------------------------------------------------------------------------------------------


def test_plain_manifests_are_written_as_before(tmp_path: Path) -> None:
    """Earlier versions refuse fields that they do not know: what nobody uses is not written."""
    (tmp_path / "s").mkdir()
    bundle = small_bundle.write(tmp_path / "b", small_bundle.stage(tmp_path / "s"))
    content = json.loads((bundle.path / "bundle.json").read_text())
    assert not {"mapping_end", "split_size"} & content["generator"].keys()
    assert "networks" not in content["directions"]
    demo = Path(ohlora.__file__).parent / "bundle" / "demo" / "bundle.json"
    text = demo.read_bytes()
    assert parse_manifest(text, "demo")[0].to_json() == text


def test_the_end_decides_what_the_generator_is(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "bundle", tmp_path / "b")
    other = randomized(1)
    with torch.no_grad():
        graph = mapping_end_graph(fold_gains(other))
    (tmp_path / "b" / "mapping_end.onnx").write_bytes(graph.SerializeToString())
    relist(tmp_path / "b", "mapping_end.onnx")
    with pytest.raises(BundleError, match="foreign directions"):
        Bundle.open(tmp_path / "b")
    edit(tmp_path / "b", lambda manifest: manifest.pop("directions"))
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.generator_identity != Bundle.open(made / "bundle").generator_identity
    with pytest.raises(EngineError, match=r"output .* is not the probe's"):
        bundle.mapping_end_engine("onnxruntime")


def test_damaged_networks_are_named(made: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = Bundle.open(made / "bundle")
    arrays = load_file(source.file("directions.safetensors"))
    for change, message in (
        ({"eyes.fc1.0.weight": arrays["eyes.fc1.0.weight"][:, :3]}, r"'eyes.fc1.0.weight' must be float \[any, 40\]"),
        ({"eyes.fc2.0.bias": np.zeros(9, np.float32)}, r"eyes: .*fc2.0.bias has shape \[9\].*build the bundle again"),
        ({"mouth": arrays["mouth"][:, :3].copy()}, r"'mouth' must be float \[2, 40\]"),
    ):
        changed = {name: np.ascontiguousarray(value) for name, value in {**arrays, **change}.items()}
        with pytest.raises(BundleError, match=message), new_bundle(tmp_path / "b", source) as draft:
            save_file(changed, draft.folder / "directions.safetensors")


def test_float16_weights_are_rounded_alike_in_both_files(tmp_path: Path) -> None:
    # Wide enough that the last layers are stored as float16.
    config = dataclasses.replace(CONFIG, w_size=96, split_size=128)
    graphs, half = write_generator(randomized(2, config), tmp_path, storage="float16")
    assert graphs["mapping_end"].parity["w"]["relative_error"] < 1e-5
    assert half["image_psnr_db"] > 45
    assert (tmp_path / "mapping_end.onnx").stat().st_size < 3 * (96 * 96 + 96 * 128)


def test_it_comes_back_as_a_module(made: Path, module: Generator) -> None:
    back = generator_from_bundle(made / "bundle").double()
    assert (back.config.split_size, back.config.mapping_layers) == (16, 3)
    z, label = torch.randn(4, 512).double(), torch.randn(4, 3).double()
    with torch.no_grad():
        for one, two in zip(back.mapping.hidden(z, label), module.mapping.hidden(z, label), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
        torch.testing.assert_close(back.mapping(z, label), module.mapping(z, label), rtol=0, atol=1e-5)


def test_reference_edits_through_the_exported_graphs(golden: Path) -> None:
    data = np.load(golden / "stylegan" / "v9_generator.npz")
    with torch.no_grad():
        rewritten = fold_gains(stylegan_keys.generator("v9").load(generator_state("v9")).eval())
        mapping, end = mapping_graph(rewritten), mapping_end_graph(rewritten)
    w, split1 = run_graph(mapping, {"z": data["z"], "label": data["label"]})
    assert np.abs(w - data["w"]).max() < 1e-4
    assert np.abs(split1[:, :512] - data["w1"]).max() < 1e-4
    assert np.abs(split1[:2, 512:] - data["w2"]).max() < 1e-4
    edited = (split1 + data["split1_pm"] * data["split1_vector"]).astype(np.float32)
    assert np.abs(run_graph(end, {"mapping_split1": edited})[0] - data["split1_w_edited"]).max() < 1e-4
    again, split2 = run_graph(end, {"mapping_split1": split1})
    assert np.abs(again - w).max() < 1e-5
    assert np.abs(split2 - np.concatenate([data["w1_"], data["w2_"]], 1)).max() < 1e-4
    # Folded into w, and added to both halves: the same.
    vector, pm = data["split2_vector"].astype(np.float64), float(data["split2_pm"])
    folded = w + pm * (vector[:, :512] + vector[:, 512:])
    assert np.abs(folded - data["split2_w_edited"]).max() < 1e-4
    halves = split2 + pm * vector
    assert np.abs(folded - (halves[:, :512] + halves[:, 512:])).max() < 1e-5


# --- published sets ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as v9: eyes of mapping_split1 is a network, mapping_split2 has tables of all."""
    folder = tmp_path_factory.mktemp("published")
    tables = folder / "property_score_vectors"
    tables.mkdir()
    for space, properties in (("mapping_split1", ("mouth", "pose")), ("mapping_split2", PROPERTIES)):
        for name in properties:
            for group, vector in directions_in(space).vectors[name].items():
                row = ",".join(["0", *map(repr, map(float, vector))])
                path = tables / f"{name}_change_{space}_vector_{group}.csv"
                path.write_text("," + ",".join(map(str, range(len(vector)))) + "\n" + row + "\n")
    torch.manual_seed(0)
    state = {key: torch.randn(shape) for key, shape in shapes(40, 7, 5).items()}
    torch.save(state, folder / "stylegan_gen_vector_find_v9_nn_eyes.pth")
    for space, option, column, cases in (
        ("mapping_split1", "mixed", "svm_group_name", (39, 41)),
        ("mapping_split2", "svm_ms2", "group_name", (7,)),
    ):
        rng = np.random.default_rng(cases[0])
        rows = [",".join(f"{v:.4f}" for v in rng.standard_normal(515)) for _ in cases]
        header = ",".join(map(str, range(515)))
        (folder / f"ohlora_z_vectors_{option}.csv").write_text("\n".join([header, *rows]) + "\n")
        names = [f"case,{column}", *(f"{case},hh" for case in cases)]
        (folder / f"ohlora_{space}_group_names_{option}.csv").write_text("\n".join(names) + "\n")
    return folder


def test_a_published_set_becomes_a_bundle(made: Path, published: Path, tmp_path: Path) -> None:
    command = ["bundle", "build", "--generator", made / "g.safetensors", "--directions", published]
    output_of(*command, "--space", "mapping_split1", "--out", tmp_path / "b")
    bundle = Bundle.open(tmp_path / "b")
    assert (bundle.directions_part().space, bundle.directions_part().networks) == ("mapping_split1", {"eyes": -1.0})
    assert [(entry.name, entry.group) for entry in bundle.gallery()] == [("case0039", "hh"), ("case0041", "hh")]
    state = torch.load(published / "stylegan_gen_vector_find_v9_nn_eyes.pth")
    assert np.array_equal(bundle.directions()["eyes.fc2.0.weight"], state["fc2.0.weight"].numpy())
    pictures = {}
    for name, more in (("stored", []), ("given", ["--directions", published, "--space", "mapping_split2"])):
        output_of("render", "--bundle", tmp_path / "b", "--pose", 1, *more, "--format", "png", "--out", tmp_path / name)
        lines = (tmp_path / name / "metadata.jsonl").read_text().splitlines()
        pictures[name] = [json.loads(line)["sha256"] for line in lines]
    assert len(set(pictures["stored"] + pictures["given"])) == 4
    more = ["--directions", published, "--space", "mapping_split2", "--faces", "gallery:case0039", "--curve", "gif40"]
    output_of("animate", "--bundle", tmp_path / "b", *more, "--out", tmp_path / "moving")
    assert (tmp_path / "moving" / "case0039.gif").is_file()
    with pytest.raises(InvalidInputError, match="several spaces"):
        output_of(*command, "--out", tmp_path / "c")
    with pytest.raises(InvalidInputError, match="several spaces"):
        output_of("render", "--bundle", tmp_path / "b", "--pose", 1, "--directions", published, "--out", tmp_path / "d")
    for start in (["bundle", "build", "--generator", made / "g.safetensors"], ["render"], ["animate"]):
        with pytest.raises(InvalidInputError, match="--space z chooses among the tables of a folder"):
            output_of(*start, "--space", "z", "--out", tmp_path / "e")


def test_which_network_of_a_folder_is_meant(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(published, folder)
    assert load_directions(folder, "mapping_split2").networks == {}
    eyes = folder / "stylegan_gen_vector_find_v9_nn_eyes.pth"
    for name in ("mouth", "pose"):
        shutil.copy(eyes, folder / f"stylegan_gen_vector_find_v9_nn_{name}.pth")
    assert list(load_directions(folder, "mapping_split1").networks) == ["eyes"], "tables come first"
    shutil.copy(eyes, folder / "other_nn_eyes.pth")
    with pytest.raises(InvalidInputError, match=r"several networks of eyes \(other_nn_eyes.pth"):
        load_directions(folder, "mapping_split1")
    (folder / "other_nn_eyes.pth").unlink()
    shutil.rmtree(folder / "property_score_vectors")
    alone = load_directions(folder, "mapping_split1")
    assert (alone.vectors, sorted(alone.networks), alone.groups) == ({}, sorted(PROPERTIES), ["all"])
    assert [face.group for face in named_faces(None, folder, CONFIG, alone)] == [None, None], "networks know no groups"
    eyes.unlink()
    with pytest.raises(InvalidInputError, match="no direction tables of space mapping_split1"):
        load_directions(folder, "mapping_split1")
