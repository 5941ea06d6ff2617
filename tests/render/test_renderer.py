"""The Python API: arrays in, arrays out, the same as the files the commands write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ohlora
from ohlora.bundle.write import new_bundle
from ohlora.errors import BundleError, InvalidInputError
from ohlora.faces import SeedRange, face_from_seed, load_faces
from ohlora.io.images import read_image
from ohlora.kernels.ombre import apply_ombre
from ohlora.photos.segmentation import SIZE, fit, mirrored, student_input
from ohlora.render.job import Look, RenderJob, make_looks
from ohlora.render.jobs import portrait_job
from ohlora.render.sources import truncate
from tests.support.hair_only_bundle import hair_only

EXAMPLE = Path(ohlora.__file__).parent / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def demo() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(threads=1) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(tiny_bundle, threads=2) as renderer:
        yield renderer


def test_hair_and_recolor(demo: ohlora.Renderer) -> None:
    image = read_image(EXAMPLE)
    hair = demo.hair(image[None])
    assert hair.shape == (1, SIZE, SIZE)
    assert hair.dtype == np.float32
    assert 0.05 < (hair > 0.5).mean() < 0.3
    ombre = ohlora.Ombre(0.5, 0.7, 0.5)
    (dyed,) = demo.recolor([image], ombre, detect="whole")
    assert np.array_equal(dyed, apply_ombre(image[None], hair, 0.5, 0.7, 0.5)[0])


def test_hair_of_a_tall_picture_keeps_its_shape(demo: ohlora.Renderer) -> None:
    image = read_image(EXAMPLE)
    tall = np.concatenate([image, np.full((150, 300, 3), 128, np.uint8)])
    hair = demo.hair(tall)[0]
    assert hair.shape == (224, 149)
    square = demo.hair(image)[0]
    # The same head, at two thirds of the size: the top of the hair lies where it should.
    first = [np.flatnonzero((h > 0.9).any(1))[0] / len(h) * s for h, s in ((hair, 450), (square, 300))]
    assert abs(first[0] - first[1]) < 15


def test_render_nests_faces_expressions_ombres(tiny: ohlora.Renderer) -> None:
    faces = load_faces(["gallery"], tiny.label_size, tiny.bundle)
    expressions = [ohlora.Expression(), ohlora.Expression(eyes=2.0)]
    ombres = [None, ohlora.Ombre(0.1), ohlora.Ombre(0.9)]
    images = tiny.render(faces, expressions, ombres)
    assert images.shape == (12, 64, 64, 3)
    one = tiny.render(faces[1], expressions[1], ombres[2])
    assert np.array_equal(one[0], images[6 + 3 + 2])
    assert not np.array_equal(images[0], images[3])


def test_stream_is_in_order_and_lazy(tiny: ohlora.Renderer) -> None:
    job = RenderJob(SeedRange(0, 999_999), make_looks(None, [ohlora.Ombre(0.1), ohlora.Ombre(0.6)]))
    stream = tiny.stream(job)
    items = [next(stream) for _ in range(11)]
    assert [item.item for item in items] == list(range(11))
    assert items[5].facts["face"] == "seed000002"
    alone = tiny.render(face_from_seed(2), ombres=ohlora.Ombre(0.6))
    assert np.array_equal(alone[0], items[5].image)


def test_truncation() -> None:
    w, mean = np.ones((2, 512), np.float32), np.zeros(512, np.float32)
    wp = truncate(w, mean, 14, 0.5, 8)
    assert wp.shape == (2, 14, 512)
    assert (wp[:, :8] == 0.5).all()
    assert (wp[:, 8:] == 1).all()
    assert (truncate(w, mean, 14, 0.5, 0) == 1).all(), "0 layers switch truncation off"


def test_truncation_changes_the_portrait(tiny: ohlora.Renderer) -> None:
    face = face_from_seed(1)
    assert not np.array_equal(tiny.render(face, psi=0.3, truncation_layers=6), tiny.render(face))
    with pytest.raises(InvalidInputError, match="truncation layers"):
        tiny.render(face, psi=0.3, truncation_layers=99)


def test_psi_alone_truncates_all_layers(tiny: ohlora.Renderer) -> None:
    face, layers = face_from_seed(1), tiny.bundle.generator_part().num_layers
    assert np.array_equal(tiny.render(face, psi=0.3), tiny.render(face, psi=0.3, truncation_layers=layers))
    assert np.array_equal(tiny.render(face, psi=1.0), tiny.render(face))
    assert np.array_equal(tiny.render(face, psi=0.3, truncation_layers=0), tiny.render(face))


def test_a_bundle_has_a_psi_of_its_own(tiny: ohlora.Renderer, tmp_path: Path) -> None:
    with new_bundle(tmp_path / "near", start=tiny.bundle) as draft:
        draft.generator = tiny.bundle.generator_part().model_copy(update={"psi": 0.3})
    face = face_from_seed(1)
    with ohlora.Renderer(tmp_path / "near") as near:
        assert np.array_equal(near.render(face), tiny.render(face, psi=0.3))
        assert np.array_equal(near.render(face, psi=1.0), tiny.render(face))
        layers = near.bundle.generator_part().num_layers
        # The record has numbers, so that a job resumes whatever the defaults are by then.
        for psi, stored in ((None, [0.3, layers]), (1.0, [1.0, 0]), (1, [1.0, 0])):
            job = portrait_job(near, RenderJob(SeedRange(1, 1), (Look(),), psi=psi))
            assert job.request["truncation"] == stored
    # What was recorded before bundles had one.
    assert portrait_job(tiny, RenderJob(SeedRange(1, 1), (Look(),))).request["truncation"] == [1.0, 0]


def test_errors(demo: ohlora.Renderer, tiny: ohlora.Renderer, tmp_path: Path) -> None:
    with ohlora.Renderer(hair_only(tmp_path / "hair")) as dyer, pytest.raises(BundleError, match="has no generator"):
        dyer.render(face_from_seed(0))
    with pytest.raises(InvalidInputError, match="no direction group"):
        tiny.render(face_from_seed(0), ohlora.Expression(eyes=1))
    with pytest.raises(InvalidInputError, match="at least one face"):
        tiny.render([])
    with pytest.raises(InvalidInputError, match="uint8 RGB"):
        demo.recolor([np.zeros((4, 4, 3))], ohlora.Ombre(0.5))
    with pytest.raises(InvalidInputError, match="one aspect"):
        demo.hair([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)])


def test_framing() -> None:
    assert fit(1000, 500) == (224, 112)
    assert mirrored(3, 2)[:8].tolist() == [2, 1, 0, 1, 2, 1, 0, 1]
    strip = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((8, 4, 3), np.uint8)
    assert student_input(strip).shape == (SIZE, SIZE, 3)
