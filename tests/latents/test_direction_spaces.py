"""Directions of every documented space: what they move, their files, published tables and the faces beside them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ohlora.base.values import PROPERTIES, Expression, Face
from ohlora.errors import InvalidInputError
from ohlora.faces import load_faces
from ohlora.latents.directions import Directions, add_moves, read_directions
from ohlora.latents.directions import write_directions as write_directions_file
from ohlora.latents.spaces import SPACES
from tests.support.small_directions import Sizes, make, network

SPLIT = Sizes(z_size=512, label_size=7, w_size=512, split_size=2048)
FACE = Face(np.zeros(512), name="f", group="hh")


def test_moves_are_vectors_and_gradients() -> None:
    directions, start = make(), np.random.default_rng(0).standard_normal(6).astype(np.float32)
    moves = directions.moves(start, FACE)
    assert moves.shape == (3, 6)
    assert moves.dtype == np.float64
    np.testing.assert_array_equal(moves[0], -network(6).directions(start[None])[0])
    np.testing.assert_array_equal(moves[1], directions.vectors["mouth"]["hh"])
    expression = Expression(0.5, -1.0, 2.0)
    moved = ((start.astype(np.float64) + 0.5 * moves[0]) + -1.0 * moves[1]) + 2.0 * moves[2]
    assert np.array_equal(add_moves(start, moves, expression), moved.astype(np.float32))
    in_w = replace(directions, space="w")
    assert np.array_equal(in_w.apply(start, FACE, expression), moved.astype(np.float32))
    with pytest.raises(InvalidInputError, match="move mapping_split2, not w"):
        directions.apply(start, FACE, expression)
    with pytest.raises(InvalidInputError, match=r"for mapping_split2 of 6 numbers, got shape \(5,\)"):
        directions.moves(start[:5], FACE)
    with pytest.raises(InvalidInputError, match="depends on the face"):
        directions.moves(None, FACE)
    assert np.array_equal(make(networks=()).moves(None, FACE), make(networks=()).moves(start, FACE))


def test_published_networks_lower_the_score_like_every_set() -> None:
    directions, start = make(), np.random.default_rng(0).standard_normal((1, 6)).astype(np.float32)
    moved = (start + 0.01 * directions.moves(start[0], FACE)[0]).astype(np.float32)
    assert network(6).scores(moved) < network(6).scores(start)


def test_networks_alone_are_for_every_face() -> None:
    directions = make(networks=PROPERTIES)
    assert (directions.groups, directions.size) == (["all"], 6)
    directions.check_all([Face(np.zeros(512))])
    assert directions.moves(np.ones(6, np.float32), Face(np.zeros(512))).shape == (3, 6)


def test_incomplete_sets_are_refused() -> None:
    vectors = make(networks=()).vectors
    for changes, message in (
        ({"networks": {"eyes": network(6)}}, "once each, got vectors of eyes, mouth, pose and networks of eyes"),
        ({"vectors": {"eyes": vectors["eyes"]}}, "once each"),
        ({"vectors": {**vectors, "pose": {"hh": np.zeros(6)}}}, "pose has groups"),
        ({"vectors": {**vectors, "pose": {"hh": np.zeros(6), "ll": np.zeros(5)}}}, r"pose \[5, 6\]"),
        ({"space": "x"}, "unknown latent space 'x'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            replace(make(networks=()), **changes)
    with pytest.raises(InvalidInputError, match="must have one length"):
        replace(make(), networks={"eyes": network(5)})


def test_every_part_of_a_set_is_in_its_hash() -> None:
    sets = [make(networks=()), make("w", networks=()), make(), make("w"), make(scale=-0.5), make(networks=PROPERTIES)]
    assert len({one.sha256 for one in sets}) == len(sets)
    # What journals and reports of plain sets hold must not change.
    plain = Directions({name: {"all": np.arange(3.0) + i} for i, name in enumerate(PROPERTIES)}, "test")
    assert plain.sha256 == "298efaa34da35ea47a1d60a1765d57a8f1d18f0ae5baa189874f00bc02d32631"


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("networks", [(), ("eyes",), PROPERTIES])
def test_files_come_back(tmp_path: Path, space: str, networks: tuple[str, ...]) -> None:
    directions = replace(make(space, networks=networks), generator_sha256="ab" * 32)
    write_directions_file(tmp_path / "directions.safetensors", directions)
    back = read_directions(tmp_path, space)
    assert back.sha256 == directions.sha256
    assert (back.space, back.groups, back.source) == (space, directions.groups, "set")
    assert {name: one.scale for name, one in back.networks.items()} == dict.fromkeys(networks, -1.0)
    other = "w" if space == "z" else "z"
    with pytest.raises(InvalidInputError, match=f"are in {space}, {other} was asked for"):
        read_directions(tmp_path, other)


def test_files_without_a_space_are_w(tmp_path: Path) -> None:
    from safetensors.numpy import save

    directions = make("w", networks=())
    metadata = {"format": "ohlora-directions-1", "groups": '["hh", "ll"]', "source": "set"}
    path = tmp_path / "directions.safetensors"
    path.write_bytes(save(directions.arrays(), metadata))
    assert read_directions(path).sha256 == directions.sha256
    path.write_bytes(save(make().arrays(), metadata))
    with pytest.raises(InvalidInputError, match="must hold eyes, mouth, pose"):
        read_directions(path)
    path.write_bytes(save(make().arrays(), {**metadata, "networks": '{"mouth": 1.0}'}))
    with pytest.raises(InvalidInputError, match="must hold eyes, pose"):
        read_directions(path)
    arrays = {name: value for name, value in make().arrays().items() if name != "eyes.fc2.0.bias"}
    path.write_bytes(save(arrays, {**metadata, "networks": '{"eyes": 1.0}'}))
    with pytest.raises(InvalidInputError, match=r"cannot read .*misses fc2.0.bias"):
        read_directions(path)
    path.write_bytes(save(make().arrays(), {**metadata, "networks": "[1]"}))
    with pytest.raises(InvalidInputError, match="name their groups or networks wrongly"):
        read_directions(path)
    path.write_bytes(save(directions.arrays(), {**metadata, "space": "y"}))
    with pytest.raises(InvalidInputError, match="unknown latent space 'y'"):
        read_directions(path)


def test_lengths_by_space() -> None:
    for space, size in {"z": 519, "w": 512, "mapping_split1": 2560, "mapping_split2": 1024}.items():
        directions = make(space, size, networks=())
        directions.require_generator(SPLIT, "", "bundle 'b'")
        with pytest.raises(InvalidInputError, match=rf"have 6 numbers, {space} of bundle 'b' has {size}"):
            make(space, networks=()).require_generator(SPLIT, "", "bundle 'b'")
        if space.startswith("mapping"):
            with pytest.raises(
                InvalidInputError, match=r"two branches, that of bundle 'b' has one: .*stylegan-finetune-v9"
            ):
                directions.require_generator(replace(SPLIT, split_size=0), "", "bundle 'b'")


# --- published tables ----------------------------------------------------------------------------------------------


@pytest.fixture
def v9(shared: Path) -> Path:
    return shared / "data" / "ohlora" / "v9"


@pytest.mark.parametrize(
    ("version", "space", "groups", "size"),
    [("v6", "z", 8, 515), ("v7", "w", 8, 512), ("v8", "w", 16, 512), ("v9", "mapping_split2", 16, 1024)],
)
def test_published_sets(shared: Path, version: str, space: str, groups: int, size: int) -> None:
    folder = shared / "data" / "ohlora" / version
    found = read_directions(folder, "mapping_split2") if version == "v9" else read_directions(folder)
    assert (found.space, len(found.groups), found.size, found.source) == (space, groups, size, version)
    assert np.linalg.norm(found.vectors["pose"][found.groups[0]]) == pytest.approx(1, abs=1e-6)


def test_a_folder_of_several_spaces_wants_one_named(v9: Path) -> None:
    there = r"mapping_split1 \(mouth, pose\), mapping_split2 \(eyes, mouth, pose\)"
    with pytest.raises(InvalidInputError, match=rf"several spaces, {there}: name one \(--space mapping_split1\)"):
        read_directions(v9)
    with pytest.raises(InvalidInputError, match=rf"no direction tables of space w in .*; it has {there}"):
        read_directions(v9, "w")
    with pytest.raises(InvalidInputError, match="unknown latent space 'split1'"):
        read_directions(v9, "split1")
    with pytest.raises(
        InvalidInputError, match=r"no mapping_split1 tables of eyes: .*find_v9_nn_eyes.pth.*bundle build"
    ):
        read_directions(v9, "mapping_split1")


def test_a_set_of_tables_and_a_network(v9: Path) -> None:
    found = read_directions(v9, "mapping_split1", {"eyes": network(2560, -1.0)})
    assert (found.size, len(found.groups), list(found.networks)) == (2560, 16, ["eyes"])
    assert sorted(found.vectors) == ["mouth", "pose"]
    with pytest.raises(InvalidInputError, match="must have one length"):
        read_directions(v9, "mapping_split1", {"eyes": network(512)})
    alone = read_directions(v9, "w", {name: network(512) for name in PROPERTIES})
    assert (alone.groups, alone.space, alone.source) == (["all"], "w", "v9")


@pytest.mark.parametrize(
    ("version", "table", "space", "labels", "count", "first"),
    [
        ("v6", "ohlora_z_vectors.csv", None, 3, 20, ("case0000", "hhl")),
        ("v7", "ohlora_z_vectors.csv", None, 3, 27, ("case0127", "hhh")),
        ("v8", "ohlora_z_vectors.csv", None, 7, 19, ("case0083", "lhlh")),
        ("v9", "ohlora_z_vectors_mixed.csv", "mapping_split1", 7, 22, ("case0039", "hhlh")),
        ("v9", "ohlora_z_vectors_svm_ms2.csv", "mapping_split2", 7, 8, ("case0361", "hhll")),
    ],
)
def test_published_faces_find_their_group(
    shared: Path, version: str, table: str, space: str | None, labels: int, count: int, first: tuple[str, str]
) -> None:
    folder = shared / "data" / "ohlora" / version
    networks = {"eyes": network(2560, -1.0)} if space == "mapping_split1" else None
    directions = read_directions(folder, space, networks)
    faces = load_faces([str(folder / table)], labels)
    assert len(faces) == count
    assert (faces[0].name, faces[0].group) == first
    assert len({face.name for face in faces}) == count
    directions.check_all(faces)
    start = np.concatenate([faces[-1].z, faces[-1].label]) if directions.space == "z" else None
    if not directions.networks:
        assert directions.moves(start, faces[-1]).shape == (3, directions.size)


def test_names_with_spaces_and_brackets_as_published(v9: Path, tmp_path: Path) -> None:
    shutil.copy(v9 / "ohlora_z_vectors_mixed.csv", tmp_path / "ohlora_z_vectors (mixed).csv")
    names = "ohlora_mapping_split1_group_names (mixed).csv"
    shutil.copy(v9 / "ohlora_mapping_split1_group_names_mixed.csv", tmp_path / names)
    faces = load_faces([str(tmp_path / "ohlora_z_vectors (mixed).csv")], 7)
    assert (faces[0].name, faces[0].group) == ("case0039", "hhlh")
