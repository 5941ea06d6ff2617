"""`ohlora bundle update`: other directions and faces in a bundle whose networks stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.base.values import PROPERTIES, Expression
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import GalleryEntry, write_gallery
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.bundle.update import update_bundle
from ohlora.faces import face_from_seed
from ohlora.latents.directions import Directions, write_directions
from ohlora.render.renderer import Renderer


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random directions for the demo generator."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("directions") / "directions.safetensors"
    state = Bundle.open("demo").generator_part().state_sha256
    vectors = {name: {"all": 3 * rng.standard_normal(512)} for name in PROPERTIES}
    write_directions(path, Directions(vectors, "test", state))
    return path


def test_networks_stay_and_directions_are_the_new_ones(tmp_path: Path, directions: Path) -> None:
    made = update_bundle("demo", tmp_path / "new", directions=directions, name="other")
    demo = Bundle.open("demo")
    assert made.name == "other"
    assert made.engine_hashes == demo.engine_hashes
    assert made.manifest.gallery == demo.manifest.gallery
    assert made.directions_part().source == "test"
    face = face_from_seed(3)
    with Renderer(made) as new, Renderer("demo") as old:
        assert (new.render(face) == old.render(face)).all()
        assert (new.render(face, Expression(eyes=1.0)) != old.render(face, Expression(eyes=1.0))).any()


def test_faces_and_card(tmp_path: Path) -> None:
    face = face_from_seed(5)
    write_gallery(tmp_path / "g.csv", [GalleryEntry("Mina", None, face.z, face.label)])
    made = update_bundle("demo", tmp_path / "new", gallery=tmp_path / "g.csv", card="# new\n")
    assert [entry.name for entry in made.gallery()] == ["Mina"]
    assert made.file("MODEL_CARD.md").read_text() == "# new\n"
    assert made.directions_part() == Bundle.open("demo").directions_part()


def test_what_does_not_belong_is_refused_and_nothing_is_left(tmp_path: Path, directions: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    vectors = {name: {"all": np.ones(512)} for name in PROPERTIES}
    write_directions(foreign, Directions(vectors, "foreign", "0" * 64))
    with pytest.raises(InvalidInputError, match="foreign directions"):
        update_bundle("demo", tmp_path / "new", directions=foreign)
    face = face_from_seed(5)
    write_gallery(tmp_path / "g.csv", [GalleryEntry("Mina", "hhh", face.z, face.label)])
    with pytest.raises(BundleError, match="hhh"):
        update_bundle("demo", tmp_path / "new", gallery=tmp_path / "g.csv")
    with pytest.raises(InvalidInputError, match="nothing to update"):
        update_bundle("demo", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match="exists and is not a bundle"):
        update_bundle("demo", tmp_path / "there", directions=directions)
    assert (tmp_path / "there" / "file").read_text() == "mine"
