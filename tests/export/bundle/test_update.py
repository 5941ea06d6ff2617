"""`ohlora bundle update`: other students, directions and faces in a bundle whose other parts stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ohlora.base.values import PROPERTIES, Expression
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import GalleryEntry, write_gallery
from ohlora.bundle.write import new_bundle
from ohlora.cli import app
from ohlora.errors import BundleError, InvalidInputError
from ohlora.export.bundle.students import probe_pictures
from ohlora.export.bundle.update import update_bundle
from ohlora.export.graphs.student import reference_hair
from ohlora.faces import face_from_seed
from ohlora.latents.directions import Directions, write_directions
from ohlora.render.renderer import Renderer
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER
from ohlora.training.weights.student import save_student
from tests.support.small_students import random_parser, random_student


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


def test_an_own_hair_model_leaves_directions_faces_and_generator_as_they_are(tmp_path: Path) -> None:
    student = random_student(SHIPPED_ENCODER)
    save_student(tmp_path / "own.safetensors", student.state_dict(), SHIPPED_ENCODER)
    (tmp_path / "report.json").write_text(json.dumps({"test": {"iou": 0.5}}))
    source, out = tmp_path / "own.safetensors", tmp_path / "new"
    arguments = ["bundle", "update", "demo", "--hair", str(source), "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--metrics", str(tmp_path / "report.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made, demo = Bundle.open(out), Bundle.open("demo")
    kept = {
        name for name in demo.manifest.files if name not in ("hair.onnx", "hair_probe.safetensors", "MODEL_CARD.md")
    }
    assert all(made.manifest.files[name] == demo.manifest.files[name] for name in kept)
    assert (made.manifest.generator, made.manifest.directions, made.manifest.gallery) == (
        demo.manifest.generator, demo.manifest.directions, demo.manifest.gallery,
    )  # fmt: skip
    assert made.hair_part().metrics == {"iou": 0.5}
    images = probe_pictures()
    with made.hair_engine(threads=1) as engine:
        assert np.abs(engine(image=images)["hair"] - reference_hair(student, images)).max() < 0.05
    assert made.manifest.provenance.endswith("hair since `ohlora bundle update`: own.safetensors")
    card = made.file("MODEL_CARD.md").read_text()
    assert card.startswith(demo.file("MODEL_CARD.md").read_text())
    assert "- metrics: {'iou': 0.5}" in card
    with pytest.raises(InvalidInputError, match="--metrics are figures of a student: give --hair too"):
        update_bundle("demo", tmp_path / "other", metrics={"iou": 0.5}, card="# new\n")


def test_students_of_other_bundles_and_under_other_names(tmp_path: Path) -> None:
    """The former student's files go, whatever they are called."""
    demo = Bundle.open("demo")
    with new_bundle(tmp_path / "renamed", start=demo) as draft:
        for file, name in ((demo.hair_part().file, "h.onnx"), (demo.hair_part().probe, "p.safetensors")):
            (draft.folder / file).rename(draft.folder / name)
        draft.hair = demo.hair_part().model_copy(update={"file": "h.onnx", "probe": "p.safetensors"})
    made = update_bundle(tmp_path / "renamed", tmp_path / "new", hair="demo", provenance="mine")
    assert sorted(made.manifest.files) == sorted(demo.manifest.files)
    assert made.manifest.provenance == "mine"
    with pytest.raises(BundleError, match="has no face parser"):
        update_bundle("demo", tmp_path / "more", parsing=str(tmp_path / "renamed"))
    assert not (tmp_path / "more").exists()


def test_a_face_parser_joins_a_bundle_without_one(tmp_path: Path) -> None:
    save_student(tmp_path / "parser.safetensors", random_parser().state_dict(), SHIPPED_ENCODER)
    made = update_bundle("demo", tmp_path / "new", parsing=str(tmp_path / "parser.safetensors"))
    demo = Bundle.open("demo")
    assert len(made.parsing_part().classes) == 11
    assert made.hair_part() == demo.hair_part()
    assert set(made.manifest.files) == {*demo.manifest.files, "parsing.onnx", "parsing_probe.safetensors"}
    with made.parsing_engine(threads=1) as engine:
        assert engine(image=probe_pictures())["parsing"].shape == (3, 224, 224)


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
