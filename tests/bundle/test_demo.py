"""The model that ships: complete, deterministic, varied, and its directions do what they are named for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ohlora
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.faces import face_from_seed, load_faces
from ohlora.io.images import read_image


@pytest.fixture(scope="module")
def renderer() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer() as opened:
        yield opened


def test_it_has_every_part() -> None:
    bundle = Bundle.open("demo")
    assert (bundle.generator_part().resolution, bundle.generator_part().label_size) == (128, 0)
    assert bundle.manifest.directions is not None
    assert len(list(load_faces(["gallery"], 0, bundle))) == 24


def test_render_with_no_model_named_uses_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["render", "--count", "3", "--out", str(tmp_path), "--format", "png"])
    assert done.exit_code == 0, done.output
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 3
    with ohlora.Renderer("demo") as renderer:
        expected = renderer.render(ohlora.SeedRange(0, 2))
    for path, image in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(read_image(path), image)


def test_seeds_show_different_people(renderer: ohlora.Renderer) -> None:
    small = renderer.render(ohlora.SeedRange(0, 11))[:, ::8, ::8].astype(np.float32).reshape(12, -1)
    distances = np.sqrt(((small[:, None] - small[None]) ** 2).mean(-1))
    assert distances[~np.eye(12, dtype=bool)].min() > 12  # grey levels; a collapsed generator gives about 0


def test_most_people_have_hair_and_it_can_be_dyed(renderer: ohlora.Renderer) -> None:
    images = renderer.render(ohlora.SeedRange(0, 11))
    share = (renderer.hair(images) > 0.5).mean((1, 2))
    assert (share > 0.02).sum() >= 8
    assert share.max() < 0.7
    dyed = renderer.render(ohlora.SeedRange(0, 11), ombres=ohlora.Ombre(0.5, 0.8, 0.5))
    changed = (dyed != images).any(-1).mean((1, 2))
    assert (changed > 0.02).sum() >= 8


def test_portraits_follow_the_procedural_ones(renderer: ohlora.Renderer) -> None:
    pytest.importorskip("torch")
    from ohlora.training.data import portraits

    drawn = portraits.render(portraits.parameters_from_seeds(range(8)), 128)
    shown = renderer.render(ohlora.SeedRange(0, 7)).astype(np.float32)
    errors = np.array([[np.abs(a - b).mean() for b in drawn.images.astype(np.float32)] for a in shown])
    assert (errors.argmin(1) == np.arange(8)).all()
    # The truth of the drawn portrait is then that of the generated one: the student must agree with it.
    hair = np.stack([image > 0.5 for image in renderer.hair(shown.astype(np.uint8))])[:, ::7, ::7]
    truth = portraits.render(portraits.parameters_from_seeds(range(8)), 224).hair[:, ::7, ::7] > 0.5
    assert (hair & truth).sum() / (hair | truth).sum() > 0.85


@pytest.mark.parametrize("name", ["eyes", "mouth", "pose"])
def test_directions_change_the_face(renderer: ohlora.Renderer, name: str) -> None:
    face = face_from_seed(3, 0)
    looks = [ohlora.Expression(), ohlora.Expression(**{name: 1.2}), ohlora.Expression(**{name: -1.2})]
    neutral, more, less = renderer.render(face, looks).astype(np.float32)
    for changed in (more, less):
        difference = np.abs(changed - neutral).mean(-1)
        assert difference.max() > 15
        # An expression is local; the picture's outer tenth, its background, stays much as it was.
        border = np.concatenate([difference[:6].ravel(), difference[:, :6].ravel(), difference[:, -6:].ravel()])
        assert border.mean() < 0.5 * difference[32:112, 32:96].mean()
