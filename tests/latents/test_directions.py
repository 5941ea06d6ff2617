from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ohlora.base.values import Expression, Face
from ohlora.errors import InvalidInputError
from ohlora.faces import SeedRange
from ohlora.latents.directions import Directions, read_directions
from ohlora.latents.directions import write_directions as write_directions_file
from tests.support.direction_tables import write_directions
from tests.support.small_directions import Sizes


def test_sum_in_documented_order(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    directions = read_directions(tmp_path / "d")
    face = Face(np.zeros(512), group="ll")
    w = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    v = {name: directions.vectors[name]["ll"] for name in ("eyes", "mouth", "pose")}
    expected = (((w.astype(np.float64) + -1.2 * v["eyes"]) + 0.5 * v["mouth"]) + 0.25 * v["pose"]).astype(np.float32)
    assert np.array_equal(directions.apply(w, face, Expression(-1.2, 0.5, 0.25)), expected)
    assert directions.apply(w, face, Expression()) is w


def test_faces_without_a_known_group_are_refused(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    directions = read_directions(tmp_path / "d")
    with pytest.raises(InvalidInputError, match="'nobody' has no direction group"):
        directions.check_all([Face(np.zeros(512), name="nobody")])
    with pytest.raises(InvalidInputError, match="group 'xx'"):
        directions.check_all([Face(np.zeros(512), name="f", group="xx")])


def test_incomplete_sets_are_refused(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    tables = tmp_path / "d" / "property_score_vectors"
    (tables / "pose_change_w_vector_hh.csv").unlink()
    with pytest.raises(InvalidInputError, match="pose has groups"):
        read_directions(tmp_path / "d")
    (tables / "pose_change_w_vector_hh.csv").write_text(",0,1\n0,1.0,2.0\n")
    with pytest.raises(InvalidInputError, match=r"must have one length, got .*pose"):
        read_directions(tmp_path / "d")
    with pytest.raises(InvalidInputError, match="no direction tables"):
        read_directions(tmp_path)


@pytest.mark.parametrize(("version", "groups"), [("v7", 8), ("v8", 16)])
def test_published_tables(shared: Path, version: str, groups: int) -> None:
    directions = read_directions(shared / "data" / "ohlora" / version)
    assert len(directions.groups) == groups
    for group in directions.groups:
        assert np.linalg.norm(directions.vectors["eyes"][group]) == pytest.approx(1, abs=1e-6)


def one_group(size: int = 16, generator: str | None = None) -> Directions:
    rng = np.random.default_rng(1)
    vectors = {name: {"all": rng.standard_normal(size)} for name in ("eyes", "mouth", "pose")}
    return Directions(vectors, "test", generator)


def test_one_group_is_for_every_face() -> None:
    directions = one_group()
    w = np.zeros(16, np.float32)
    moved = (2.0 * directions.vectors["mouth"]["all"]).astype(np.float32)
    for group in (None, "hh"):
        face = Face(np.zeros(512), name="f", group=group)
        directions.check_all([face])
        assert np.array_equal(directions.apply(w, face, Expression(mouth=2.0)), moved)
    # A million seeds are not drawn to find out that all of them may move.
    directions.check_all(SeedRange(0, 10**9))


def test_own_file_comes_back(tmp_path: Path) -> None:
    directions = one_group(generator="ab" * 32)
    write_directions_file(tmp_path / "directions.safetensors", directions)
    for path in (tmp_path, tmp_path / "directions.safetensors"):
        back = read_directions(path)
        assert back.sha256 == directions.sha256
        assert (back.groups, back.size, back.source) == (["all"], 16, "test")
        assert back.generator_sha256 == directions.generator_sha256
    write_directions(tmp_path / "published")
    assert read_directions(tmp_path / "published").groups == ["hh", "ll"]


def test_damaged_own_files(tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match="cannot read the directions"):
        read_directions(path)
    arrays = one_group().arrays()
    path.write_bytes(save(arrays))
    with pytest.raises(InvalidInputError, match="not written by `ohlora train directions`"):
        read_directions(path)
    metadata = {"format": "ohlora-directions-1", "groups": '["all"]', "source": "x"}
    path.write_bytes(save({**arrays, "pose": arrays["pose"][:, :3]}, metadata))
    with pytest.raises(InvalidInputError, match="must hold eyes, mouth, pose"):
        read_directions(path)
    path.write_bytes(save({**arrays, "pose": arrays["pose"] * np.nan}, metadata))
    with pytest.raises(InvalidInputError, match="NaN"):
        read_directions(path)
    path.write_bytes(save(arrays, {**metadata, "groups": "["}))
    with pytest.raises(InvalidInputError, match="groups"):
        read_directions(path)


def test_foreign_directions() -> None:
    directions = one_group(generator="ab" * 32)
    directions.require_generator(Sizes(w_size=16), "ab" * 32, "bundle 'b'")
    one_group().require_generator(Sizes(w_size=16), "", "bundle 'b'")
    with pytest.raises(InvalidInputError, match=r"16 numbers, w of bundle 'b' has 512"):
        directions.require_generator(Sizes(w_size=512), "ab" * 32, "bundle 'b'")
    for state in ("cd" * 32, ""):
        with pytest.raises(InvalidInputError, match="foreign directions"):
            directions.require_generator(Sizes(w_size=16), state, "bundle 'b'")
