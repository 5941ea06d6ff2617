from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.errors import InvalidInputError
from ohlora.faces import SeedRange, face_from_seed, latents_of, latents_of_seeds, load_faces

PINNED_Z = [-0.62906, -0.16259, 0.25797]


def test_seed_faces_are_pinned() -> None:
    # These values are what a metadata row's "seed:17" means; a change makes old pictures irreproducible.
    face = face_from_seed(17, 3)
    assert face.name == "seed000017"
    assert [round(float(v), 5) for v in face.z[:3]] == PINNED_Z
    assert face.label.shape == (3,)
    assert np.array_equal(face_from_seed(17, 0).z, face.z)
    assert not np.array_equal(face_from_seed(18, 0).z, face.z)


def test_latents_are_stacked_in_order() -> None:
    z, label = latents_of_seeds(np.array([7, 2**40]), 3)
    assert (z.shape, z.dtype, label.shape, label.dtype) == ((2, 512), np.float32, (2, 3), np.float32)
    assert z[1].tobytes() == face_from_seed(2**40, 3).z.tobytes()
    assert label[0].tobytes() == face_from_seed(7, 3).label.tobytes()
    np.testing.assert_array_equal(latents_of(SeedRange(7, 9))[0], latents_of_seeds(range(7, 10))[0])
    assert latents_of_seeds([7])[1].shape == (1, 0)


def test_ranges_are_lazy_and_joined() -> None:
    faces = load_faces(["0-999999", "20000000"], 0)
    assert len(faces) == 1_000_001
    assert faces[len(faces) - 1].name == "seed20000000"
    assert isinstance(load_faces(["3-5"], 0), SeedRange)
    assert [face.name for face in load_faces(["3-5", "9"], 0)] == [
        "seed000003",
        "seed000004",
        "seed000005",
        "seed000009",
    ]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no faces"),
        (["5-3"], "must rise"),
        (["0-5", "5-9"], "seed 5 is asked for twice"),
        (["nobody"], "unknown face source 'nobody'"),
        (["-4"], "unknown face source"),
        (["gallery"], "needs a bundle"),
        (["0-99999999999"], "limit of one job"),
    ],
)
def test_bad_sources(specs: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_faces(specs, 0)


def test_numpy_files(tmp_path: Path) -> None:
    z = np.random.default_rng(0).standard_normal((4, 512))
    np.save(tmp_path / "plain.npy", z)
    np.savez(
        tmp_path / "named.npz",
        z=z,
        label=np.ones((4, 3)),
        name=["a", "b", "c", "d"],
        group=["hh", "", "ll", "hh"],
    )
    plain = load_faces([str(tmp_path / "plain.npy")], 0)
    assert [face.name for face in plain][:2] == ["plain_0000", "plain_0001"]
    named = load_faces([f"{tmp_path}/named.npz:1-2"], 3)
    assert [(face.name, face.group) for face in named] == [("b", None), ("c", "ll")]
    with pytest.raises(InvalidInputError, match="3 label values, the generator takes 0"):
        load_faces([str(tmp_path / "named.npz")], 0)
    with pytest.raises(InvalidInputError, match="has 4 faces"):
        load_faces([f"{tmp_path}/named.npz:9"], 3)
    np.save(tmp_path / "wrong.npy", z[:, :100])
    with pytest.raises(InvalidInputError, match=r"got shape \(4, 100\)"):
        load_faces([str(tmp_path / "wrong.npy")], 0)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match="holds object: numbers or text are needed"):
        load_faces([str(tmp_path / "objects.npy")], 0)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(InvalidInputError, match="cannot read"):
        load_faces([str(tmp_path / "broken.npz")], 0)


def test_broken_table_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    rows = [",".join(["1"] * 512), ",".join(["1"] * 511 + ["x"])]
    path.write_text("\n".join([",".join(map(str, range(512))), *rows]))
    with pytest.raises(InvalidInputError, match="line 3"):
        load_faces([str(path)], 0)


@pytest.mark.parametrize(("version", "count", "label"), [("v7", 27, 3), ("v8", 19, 7)])
def test_published_tables(shared: Path, version: str, count: int, label: int) -> None:
    faces = load_faces([str(shared / "data" / "ohlora" / version / "ohlora_z_vectors.csv")], label)
    assert len(faces) == count
    assert all(face.group for face in faces)
    assert faces[0].name == {"v7": "case0127", "v8": "case0083"}[version]


def test_published_single_face(shared: Path) -> None:
    (face,) = load_faces([str(shared / "data" / "ohlora" / "v1" / "final_ohlora_z_vector.csv")], 0)
    assert face.label.size == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0-9223372036854775807", "9,223,372,036,854,775,808 faces asked for|must rise and stay"),
        ("9" * 5000, "must rise and stay within"),
        ("n" * 5000, "unknown face source"),
        ("a\0b", "unknown face source"),
        ("gallery:" * 50, "needs a bundle"),
        ("f.csv:" + "9" * 5000, "unknown face source"),
    ],
)
def test_impossible_texts_are_refused_in_one_short_line(spec: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_faces([spec], 0)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["..", "", ".ohlora-tmp-1", "n" * 300])
def test_names_in_archives_are_those_that_a_gallery_may_have(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "f.npz", z=np.ones((1, 512), np.float32), name=np.array([name]))
    with pytest.raises(InvalidInputError, match="of row 0 cannot be used in a file name"):
        load_faces([str(tmp_path / "f.npz")], 0)


def test_columns_of_an_archive_must_be_columns(tmp_path: Path) -> None:
    z = np.ones((1, 512), np.float32)
    for columns, message in (
        ({"z": z, "name": np.array("one")}, r"'name' has shape \(\)"),
        ({"z": z.astype("U4")}, "'z' must hold numbers"),
        ({"z": z.astype(np.complex64)}, "numbers or text are needed"),
        ({"z": np.full((1, 512), 1e300)}, "NaN or infinity"),
    ):
        np.savez(tmp_path / "f.npz", **columns)
        with pytest.raises(InvalidInputError, match=message):
            load_faces([str(tmp_path / "f.npz")], 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xd3", "is not UTF-8"),
        (b"case,group_name\none,hhh\n", "line 2: the case must be a whole number"),
        (b"1,2,case,group_name\n0,hhh\n", "line 2: 2 cells, the header has 4"),
        (None, "it is a folder"),
    ],
)
def test_damaged_group_names_are_refused_by_file_and_row(tmp_path: Path, text: bytes | None, message: str) -> None:
    table = tmp_path / "ohlora_z_vectors.csv"
    table.write_text(",".join(map(str, range(512))) + "\n" + ",".join(["0.5"] * 512) + "\n")
    names = tmp_path / "ohlora_group_names.csv"
    names.mkdir() if text is None else names.write_bytes(text)
    with pytest.raises(InvalidInputError, match=message):
        load_faces([str(table)], 0)
