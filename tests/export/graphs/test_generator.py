"""Each rewrite equals what it replaces; the exported graphs equal the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.bundle.generator import write_generator
from ohlora.export.graphs.from_torch import run_graph, to_onnx
from ohlora.export.graphs.generator import SynthesisGraph, exact_reference
from ohlora.export.networks import graphs as networks_graphs
from ohlora.export.networks.registry import module_graphs
from ohlora.export.rewrites.generator import (
    COLLAPSES,
    Collapse,
    SubpixelUpConv,
    TransposedUpConv,
    collapse_upsampling,
    drop_dead_rgb,
    fold_gains,
    fold_noise,
    precompute_start,
    rewrite_generator,
    simplify_adain,
)
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_layers import Conv, UpConv
from ohlora.training.weights import stylegan_keys
from tests.support.golden_weights import generator_state
from tests.support.small_generators import SMALL, latents, randomized

EQUAL = 2e-5


@pytest.fixture(scope="module")
def small() -> Generator:
    return randomized(SMALL)


@pytest.fixture(autouse=True)
def seeded_without_gradients() -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def assert_equal(made: Generator, reference: Generator) -> None:
    z, label, wp = latents(reference.config)
    torch.testing.assert_close(made.mapping(z, label), reference.mapping(z, label), rtol=0, atol=EQUAL)
    torch.testing.assert_close(made.synthesis(wp), reference.synthesis(wp), rtol=0, atol=EQUAL)


def test_fold_gains(small: Generator) -> None:
    made = fold_gains(small)
    gains = [m.weight_gain for m in made.modules() if hasattr(m, "weight_gain")]
    assert gains
    assert set(gains) == {1.0}
    assert_equal(made, small)


def test_drop_dead_rgb(small: Generator) -> None:
    made = drop_dead_rgb(small)
    assert torch.equal(made.synthesis(latents(SMALL)[2]), small.synthesis(latents(SMALL)[2]))
    assert sum("to_rgb" in name for name in made.state_dict()) == 2


def test_fold_noise(small: Generator) -> None:
    made = fold_noise(small)
    assert not any("strength" in name for name in made.state_dict())
    assert_equal(made, small)
    with pytest.raises(InvalidInputError, match="unfolded generator"):
        made.synthesis(latents(SMALL)[2], random_noise=True)


@pytest.mark.parametrize("folded", [False, True])
def test_precompute_start(small: Generator, folded: bool) -> None:
    made = precompute_start(fold_noise(small) if folded else small)
    assert not any(name.startswith("synthesis.layers.0.offset") for name in made.state_dict())
    assert_equal(made, small)


def test_simplify_adain(small: Generator) -> None:
    assert_equal(simplify_adain(small), small)


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_collapse_upsampling(small: Generator, collapse: Collapse) -> None:
    made = collapse_upsampling(small, collapse)
    assert not any(isinstance(module, UpConv) for module in made.modules())
    assert_equal(made, small)


@pytest.mark.parametrize("form", [TransposedUpConv, SubpixelUpConv])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_collapsed_convolution_up_to_the_border(form: type[nn.Module], flipped: bool, size: tuple[int, int]) -> None:
    source = UpConv(3, 4, flipped=flipped)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(form(source)(x), source(x), rtol=0, atol=EQUAL)


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_all_passes_and_the_original_is_left_alone(small: Generator, collapse: Collapse) -> None:
    before = {key: value.clone() for key, value in small.state_dict().items()}
    assert_equal(rewrite_generator(small, collapse), small)
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


def test_what_cannot_be_rewritten_is_refused(small: Generator, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown collapse 'winograd'"):
        write_generator(small, tmp_path, collapse="winograd")  # type: ignore[arg-type]
    growing = randomized(SMALL)
    growing.synthesis.lod.fill_(1.5)
    with pytest.raises(InvalidInputError, match=r"level of detail 1.5"):
        write_generator(growing, tmp_path)
    assert not list(tmp_path.iterdir())


def run(path: Path, **inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


def float_synthesis(generator: Generator, wp: Tensor, collapse: Collapse = "transposed") -> np.ndarray:
    """What the exported synthesis computes before it makes bytes of it."""
    rewritten = rewrite_generator(exact_reference(generator), collapse).float()
    return run_graph(to_onnx(SynthesisGraph(rewritten), {"wp": wp[:2]}, "image"), {"wp": wp.numpy()})[0]


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_exported_graphs(small: Generator, tmp_path: Path, collapse: Collapse) -> None:
    graphs, half = write_generator(small, tmp_path, collapse=collapse)
    assert {path.name for path in tmp_path.iterdir()} == {"mapping.onnx", "synthesis.onnx"}
    assert not half
    assert graphs["mapping"].parity["w"]["relative_error"] < EQUAL
    for count in (1, 5):
        z, label, wp = latents(SMALL, count)
        np.testing.assert_allclose(
            run(tmp_path / "mapping.onnx", z=z, label=label), small.mapping(z, label).numpy(), rtol=0, atol=EQUAL
        )
        exact = exact_reference(small).synthesis(wp.double(), lod=0.0).numpy()
        np.testing.assert_allclose(float_synthesis(small, wp, collapse), exact, rtol=0, atol=5e-5)
        image = run(tmp_path / "synthesis.onnx", wp=wp)
        assert image.shape == (count, 32, 32, 3)
        assert image.dtype == np.uint8
        wanted = ((small.synthesis(wp) + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        difference = np.abs(image.astype(int) - wanted.numpy())
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3


def test_a_nearly_constant_start_is_exported_more_exactly_than_pytorch_computes() -> None:
    """As training leaves it: the first norm enlarges float32 rounding, which the export must not inherit."""
    model = randomized(SMALL)
    first = model.synthesis.layers[0].offset
    model.synthesis.const.normal_(1.0, 0.003)
    first.strength.fill_(0.001)
    first.bias.zero_()
    z, label, _ = latents(SMALL, 8)
    wp = model.broadcast(model.mapping(z, label)).contiguous()
    exact = exact_reference(model).synthesis(wp.double()).numpy()
    own = np.abs(model.synthesis(wp).numpy() - exact).mean()
    assert np.abs(float_synthesis(model, wp) - exact).mean() < 0.5 * own


def test_graphs_are_standard_small_and_say_what_they_are(small: Generator, tmp_path: Path) -> None:
    write_generator(small, tmp_path)
    models = {name: onnx.load(tmp_path / f"{name}.onnx") for name in ("mapping", "synthesis")}
    for model in models.values():
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert all(not initializer.external_data for initializer in model.graph.initializer)
        assert str(Path(__file__).resolve().parents[3]).encode() not in model.SerializeToString()
    synthesis = models["synthesis"]
    operations = [node.op_type for node in synthesis.graph.node]
    assert operations.count("ConvTranspose") == 3
    assert operations.count("InstanceNormalization") == SMALL.layers - 1  # the first layer is a constant
    assert not {"Shape", "Resize", "ReduceMean"} & set(operations)
    said = {entry.key: entry.value for entry in synthesis.metadata_props}
    assert said["ohlora.role"] == "synthesis"
    assert said["ohlora.collapse"] == "transposed"
    assert (said["ohlora.resolution"], said["ohlora.layers"]) == ("32", "8")


@pytest.mark.parametrize("split", [0, 20])
def test_mapping_without_label_has_no_label_input(split: int) -> None:
    config = GeneratorConfig(resolution=8, z_size=8, w_size=8, channel_base=64, channel_max=8, split_size=split)
    model = randomized(config)
    mapping = module_graphs("generator", model)["mapping"]().model
    z, _, wp = latents(config, 4)
    assert [value.name for value in mapping.graph.input] == ["z"]
    np.testing.assert_allclose(run_graph(mapping, {"z": z.numpy()})[0], model.mapping(z).numpy(), rtol=0, atol=EQUAL)
    np.testing.assert_allclose(float_synthesis(model, wp), model.synthesis(wp).numpy(), rtol=0, atol=EQUAL)


def test_a_wrong_graph_is_not_written(small: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(module: Generator, collapse: Collapse) -> Generator:
        result = rewrite_generator(module, collapse)
        rgb = result.synthesis.to_rgb[-1]
        assert isinstance(rgb, Conv)
        rgb.weight.mul_(1.01)
        return result

    monkeypatch.setattr(networks_graphs, "rewrite_generator", spoiled)
    with pytest.raises(EngineError, match=r"synthesis.onnx, output image, differs too much .* nothing was written"):
        write_generator(small, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("collapse", COLLAPSES)
def test_full_size_export(tmp_path: Path, collapse: Collapse) -> None:
    model = stylegan_keys.generator("v4").load(generator_state("v4")).eval()
    graphs, _ = write_generator(model, tmp_path, collapse=collapse)
    assert graphs["mapping"].parity["w"]["relative_error"] < 1e-4
    assert graphs["synthesis"].parity["image"]["share_different"] < 1e-3
    wp = latents(model.config)[2]
    exact = exact_reference(model).synthesis(wp.double()).numpy()
    assert np.abs(float_synthesis(model, wp, collapse) - exact).max() < 1e-4
