"""A bundle's generator as a trainable module: the same pictures, from every form the exporter writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

import ohlora
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.errors import BundleError
from ohlora.export.bundle.generator import write_generator
from ohlora.export.graphs.generator import Storage
from ohlora.export.graphs.mapping import mapping_graph
from ohlora.export.rewrites.generator import Collapse, fold_gains
from ohlora.training import checkpoints
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_layers import UpConv, instance_norm, leaky, widen
from ohlora.training.unbundle import generator as bundle_generator
from ohlora.training.unbundle.generator import generator_from_bundle, generator_from_graphs, narrow, start_constant
from tests.support.small_bundle import stage, write
from tests.support.small_generators import SMALL, latents, randomized

# Every way in which generators of the family differ; 16 pixels keep an export at a second.
TINY = dataclasses.replace(SMALL, resolution=16, channel_base=128, fused_from=8)
FORMS = {
    "embedding": TINY,
    "appended label": dataclasses.replace(TINY, embedding_size=0),
    "no label": dataclasses.replace(TINY, label_size=0, embedding_size=0),
    "split": dataclasses.replace(TINY, split_size=12),
    "split as wide as w": dataclasses.replace(TINY, split_size=16),
    "wide split": dataclasses.replace(TINY, split_size=40),
}


def exported(generator: Generator, folder: Path, storage: Storage = "float32", collapse: Collapse = "transposed"):
    write_generator(generator, folder, storage, collapse)
    files = ((folder / name).read_bytes() for name in ("mapping.onnx", "synthesis.onnx"))
    return (*files, generator.w_avg.numpy())


def levels(generator: Generator) -> np.ndarray:
    """Pictures with another w in every layer, uint8."""
    wp = latents(generator.config)[2]
    with torch.no_grad():
        return ((generator.synthesis(wp, lod=0.0) + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def assert_same_function(made: Generator, reference: Generator, w_error: float = 2e-5) -> None:
    z, label, _ = latents(reference.config)
    label = label if reference.config.label_size else None
    with torch.no_grad():
        torch.testing.assert_close(made.mapping(z, label), reference.mapping(z, label), rtol=0, atol=w_error)
    difference = np.abs(levels(made).astype(int) - levels(reference))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    torch.testing.assert_close(made.w_avg, reference.w_avg)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, np.ndarray]:
    """What a bundle of TINY holds. An export takes seconds: tests share this one where they can."""
    return exported(randomized(TINY), tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mapping_comes_back(form: str, files: tuple[bytes, bytes, np.ndarray]) -> None:
    wanted = FORMS[form]
    reference = randomized(wanted)
    reference.synthesis.load_state_dict(randomized(TINY).synthesis.state_dict())
    with torch.no_grad():
        graph = mapping_graph(fold_gains(reference))
    made = generator_from_graphs(graph.SerializeToString(), files[1], reference.w_avg.numpy())
    assert_same_function(made, reference)
    for name in ("resolution", "z_size", "w_size", "label_size", "embedding_size", "mapping_layers", "split_size"):
        assert getattr(made.config, name) == getattr(wanted, name)
    assert [made.config.channels(r) for r in wanted.resolutions] == [wanted.channels(r) for r in wanted.resolutions]


# float32 in transposed form is what all other tests read, float16 in transposed form what the demo bundle has.
@pytest.mark.parametrize(
    ("storage", "different"), [("float32", 1e-3), pytest.param("float16", 0.02, marks=pytest.mark.slow)]
)
def test_the_subpixel_form_comes_back(storage: Storage, different: float, tmp_path: Path) -> None:
    reference = randomized(TINY)
    mapping, synthesis, w_avg = exported(reference, tmp_path, storage, "subpixel")
    made = generator_from_graphs(mapping, synthesis, w_avg)
    session = onnxruntime.InferenceSession(synthesis, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"wp": latents(TINY)[2].numpy()})[0].transpose(0, 3, 1, 2)
    # Kernels of this form are rounded after they were widened: back in 3x3 they are near, not equal.
    difference = np.abs(levels(made).astype(int) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() < different


def test_weights_that_decide_come_back_as_they_were(files: tuple[bytes, bytes, np.ndarray]) -> None:
    reference = randomized(TINY)
    made = generator_from_graphs(*files, like=TINY)
    assert made.config == TINY
    ours, theirs = made.state_dict(), reference.state_dict()
    lost = [
        name
        for name, value in theirs.items()
        if not torch.allclose(ours[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
    ]
    # Noise maps and strengths are known up to the map's own mean and size; the start up to its normalised activation.
    layers = range(TINY.layers)
    noise = {f"synthesis.layers.{i}.offset.{part}" for i in layers for part in ("noise", "strength", "bias")}
    dead = {f"synthesis.to_rgb.{k}.{part}" for k in (0, 1) for part in ("weight", "bias")}
    assert set(lost) <= noise | dead | {"synthesis.const"}
    for i in layers[1:]:
        one, two = (g.synthesis.layers[i].offset for g in (made, reference))
        planes = [(p.noise * p.strength.view(1, -1, 1, 1) + p.bias.view(1, -1, 1, 1)) for p in (one, two)]
        torch.testing.assert_close(*planes, rtol=0, atol=1e-5)
        assert float(one.noise.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_untrained_layers_come_back(tmp_path: Path) -> None:
    """No noise strength and biases of zeros: equal tensors are one in the file, zeros are left out."""
    torch.manual_seed(0)
    reference = Generator(dataclasses.replace(TINY, label_size=0, embedding_size=0)).eval()
    with torch.no_grad():
        reference.synthesis.layers[2].offset.bias.fill_(0.5)
        reference.synthesis.layers[3].offset.bias.fill_(0.5)
    made = generator_from_graphs(*exported(reference, tmp_path))
    assert_same_function(made, reference)
    offset = made.synthesis.layers[3].offset
    assert not offset.strength.any()
    assert 0.5 < float(offset.noise.std()) < 1.5  # or the strength could never be learned


def test_a_nearly_flat_start_keeps_its_values() -> None:
    torch.manual_seed(1)
    for deviation in (1e-4, 0.004, 1.0):
        flat = 1 + deviation * torch.randn(1, 8, 4, 4, dtype=torch.float64)
        centred = flat - flat.mean((2, 3), keepdim=True)
        wanted = (centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + 1e-8)).float()
        made = torch.from_numpy(start_constant(wanted[0].double().numpy()))[None].float()
        torch.testing.assert_close(instance_norm(leaky(made)), wanted, rtol=0, atol=2e-5)


def test_widened_kernels_are_narrowed_exactly() -> None:
    kernel = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    wide = widen(kernel).numpy()
    np.testing.assert_allclose(narrow("k", wide, 1e-12), kernel.numpy(), atol=1e-12)
    with pytest.raises(BundleError, match="no widened 3x3 kernel"):
        narrow("k", wide + np.random.default_rng(0).normal(size=wide.shape), 1e-5)


def test_the_demo_bundle_gives_its_own_pictures() -> None:
    module = generator_from_bundle("demo")
    faces = ohlora.SeedRange(100, 105)
    with ohlora.Renderer("demo") as renderer:
        wanted = renderer.render(faces).astype(int)
    z = torch.from_numpy(np.stack([face.z for face in faces]))
    with torch.no_grad():
        made = ((module(z, lod=0.0) + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert (np.abs(made - wanted) <= 1).mean() >= 0.999
    assert not any(parameter.any() for layer in list(module.synthesis.to_rgb)[:-1] for parameter in layer.parameters())


def test_it_can_be_trained_saved_and_built_again(tiny_bundle: Path, tmp_path: Path) -> None:
    module = generator_from_bundle(tiny_bundle)
    loss = module(torch.randn(2, 512), lod=0.0).square().mean()
    loss.backward()
    used = {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    for name in ("mapping.dense.0.weight", "synthesis.const", "synthesis.layers.2.conv.weight"):
        assert name in used
    assert isinstance(module.synthesis.layers[2].conv, UpConv)
    checkpoints.save(module, tmp_path / "g.safetensors", "stylegan")
    assert_same_function(checkpoints.load("stylegan", tmp_path / "g.safetensors"), module)


def test_unbundle_writes_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "generator.safetensors"
    done = CliRunner().invoke(app, ["train", "unbundle", "demo", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["resolution"] == 128
    loaded, direct = checkpoints.load("stylegan", out), generator_from_bundle("demo")
    assert all(torch.equal(value, direct.state_dict()[name]) for name, value in loaded.state_dict().items())


# --- what is not ours ----------------------------------------------------------------------------------------------


def test_foreign_networks_are_named(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    bundle = write(tmp_path / "b", stage(tmp_path / "s"))
    with pytest.raises(BundleError, match=r"mapping\.onnx: .*ohlora bundle build"):
        generator_from_bundle(bundle.path)
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        generator_from_graphs(b"no model", b"", np.zeros(16, np.float32))


def changed(data: bytes, change) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model.graph)
    return model.SerializeToString()


def _slope(graph: onnx.GraphProto) -> None:
    next(n for n in graph.node if n.op_type == "LeakyRelu").attribute[0].f = 0.1


def _blur(graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.name.endswith("blur.kernel"))
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))


def _offset(graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.name.endswith("offset.offset"))
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 0, 0] += 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _nan(graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.name.endswith("conv.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _activation(graph: onnx.GraphProto) -> None:
    next(n for n in graph.node if n.op_type == "LeakyRelu").op_type = "Relu"


def _layer(graph: onnx.GraphProto) -> None:
    # Layer 3's rows of wp are read twice: no layer 2 is left.
    gathers = [n for n in graph.node if n.op_type == "Gather"]
    gathers[2].input[1] = gathers[3].input[1]


def test_changed_networks_are_refused(files: tuple[bytes, bytes, np.ndarray]) -> None:
    mapping, synthesis, w_avg = files
    for change, message in (
        (_slope, "with another slope"),
        (_blur, "no blur"),
        (_offset, "no noise map times strengths"),
        (_nan, "NaN or infinity"),
        (_activation, "LeakyRelu node is expected"),
        (_layer, "style layers"),
    ):
        with pytest.raises(BundleError, match=message):
            generator_from_graphs(mapping, changed(synthesis, change), w_avg)
    with pytest.raises(BundleError, match="with another slope"):
        generator_from_graphs(changed(mapping, _slope), synthesis, w_avg)
    with pytest.raises(BundleError, match="w_avg has 3 numbers"):
        generator_from_graphs(mapping, synthesis, np.zeros(3, np.float32))
    with pytest.raises(BundleError, match="names a generator like"):
        generator_from_graphs(mapping, synthesis, w_avg, like=GeneratorConfig())


def test_other_pictures_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fold undone wrongly: the check against the bundle's engine has to see it.
    def swapped(start: np.ndarray) -> np.ndarray:
        return start_constant(start)[:, ::-1]

    monkeypatch.setattr(bundle_generator, "start_constant", swapped)
    with pytest.raises(BundleError, match="make other pictures"):
        generator_from_bundle("demo")


def test_hair_only_bundles_have_no_generator(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    staging = stage(tmp_path / "s")
    parts = dict.fromkeys(("generator", "directions", "gallery"))
    bundle = write(tmp_path / "hair", staging, **parts)
    assert isinstance(bundle, Bundle)
    with pytest.raises(BundleError, match="has no generator"):
        generator_from_bundle(bundle.path)
