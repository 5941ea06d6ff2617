"""Hair in generated portraits: as documented when small, at full size when large, framed where the data say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import ohlora
from ohlora.base.types import Rgb
from ohlora.bundle.manifest import Framing
from ohlora.bundle.write import new_bundle
from ohlora.faces import SeedRange
from ohlora.io.images import read_image
from ohlora.kernels.ombre import apply_ombre, prepare_hair
from ohlora.photos import portraits
from ohlora.photos.heads import dye_heads
from ohlora.photos.portraits import portrait_hair
from ohlora.render.job import RenderJob, make_looks
from ohlora.render.jobs import portrait_job
from ohlora.render.moving_portrait import MovingPortrait

EXAMPLE = Path(ohlora.__file__).parent / "examples" / "astronaut.jpg"
DYE = ohlora.Ombre(0.95, 1.0, 0.2)


@pytest.fixture(scope="module")
def demo() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(threads=1) as renderer:
        yield renderer


def portrait(side: int) -> Rgb:
    return np.asarray(cv2.resize(read_image(EXAMPLE), (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def test_up_to_256_pixels_as_documented(demo: ohlora.Renderer) -> None:
    image = portrait(256)
    hair = demo.hair(image[None])
    for framing in (None, Framing()):
        (found,) = portrait_hair(demo.hair_engine, [image], framing)
        dyed = dye_heads(image, found.heads, DYE)
        assert np.array_equal(dyed, apply_ombre(image[None], hair, DYE.color, DYE.height, DYE.grad_height)[0])
        assert found.facts == {"hair_share": round(float((hair >= 0.5).mean()), 4)}


def test_larger_portraits_have_edges_of_their_own(demo: ohlora.Renderer) -> None:
    image = portrait(512)
    (found,) = portrait_hair(demo.hair_engine, [image])
    (head,) = found.heads
    assert head.mask.coverage.shape == (1, 512, 512)
    before = prepare_hair(demo.hair(image[None]), (512, 512)).coverage[0] > 0
    after = head.mask.coverage[0] > 0
    # The edges move, what lies inside and outside stays.
    assert 0 < (before ^ after).mean() < 0.02
    assert 0.05 < before.mean() < 0.5
    # A part of the image is compared with the map of the same part: nothing is shifted.
    whole = head.mask.coverage[0].astype(np.float32)
    small = cv2.resize(whole, (224, 224), interpolation=cv2.INTER_AREA)
    reference = portrait_hair(demo.hair_engine, [portrait(224)])[0].heads[0].mask.coverage[0].astype(np.float32)
    assert np.corrcoef(small.ravel(), reference.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("side", [256, 512])
def test_a_framing_shows_more_and_comes_back(demo: ohlora.Renderer, side: int) -> None:
    image = portrait(side)
    plain = portrait_hair(demo.hair_engine, [image])[0]
    framed = portrait_hair(demo.hair_engine, [image], Framing(scale=1.15, down=0.03))[0]
    (head,) = framed.heads
    assert (head.top, head.left, head.mask.coverage.shape[1:]) == (0, 0, (side, side))
    before, after = plain.heads[0].mask.coverage > 0, head.mask.coverage > 0
    assert (before & after).sum() / (before | after).sum() > 0.8
    assert not np.array_equal(before, after)
    assert framed.facts["hair_share"] == pytest.approx(plain.facts["hair_share"], rel=0.3)


def test_a_framing_that_cuts_off_dyes_what_is_seen(demo: ohlora.Renderer) -> None:
    (found,) = portrait_hair(demo.hair_engine, [portrait(512)], Framing(scale=0.5))
    (head,) = found.heads
    assert (head.top, head.left, head.mask.coverage.shape[1:]) == (128, 128, (256, 256))


def test_every_way_to_render_dyes_at_full_size(
    tiny_bundle: Path, demo: ohlora.Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bound below the small generator's 64 pixels."""
    with new_bundle(tmp_path / "small", start=ohlora.Bundle.open(tiny_bundle)) as draft:
        draft.take(demo.bundle, *(getattr(demo.bundle.hair_part(), name) for name in ("file", "probe")))
        draft.hair = demo.bundle.hair_part()
    # Portraits of the small generator show no hair: the map of a head takes its place.
    hair = demo.hair(portrait(256)[None])[0]
    monkeypatch.setattr(portraits, "find_hair", lambda engine, images: [hair] * len(images))
    job = RenderJob(SeedRange(3, 3), make_looks(None, [DYE]))
    with ohlora.Renderer(tmp_path / "small", threads=1) as renderer:
        plain, request = renderer.render(job.faces, ombres=DYE), portrait_job(renderer, job).request
        monkeypatch.setattr(portraits, "DOCUMENTED_SIDE", 32)
        monkeypatch.setattr(portraits, "REFINEMENT", None)
        assert np.abs(renderer.render(job.faces, ombres=DYE).astype(int) - plain).mean() < 8
        monkeypatch.undo()
        monkeypatch.setattr(portraits, "find_hair", lambda engine, images: [hair] * len(images))
        monkeypatch.setattr(portraits, "DOCUMENTED_SIDE", 32)
        full = renderer.render(job.faces, ombres=DYE)[0]
        assert np.array_equal(MovingPortrait(renderer, job.faces[0], moves=False).frame(ombre=DYE), full)
        # A folder that an earlier version began is not continued with other edges.
        assert portrait_job(renderer, job).request == {**request, "edges": "refined"}
