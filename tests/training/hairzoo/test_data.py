"""Data sets of the zoo: CelebAMask-HQ's annotation folders, the Korean polygon tables, our own folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

from ohlora.errors import InvalidInputError
from ohlora.training.data.hair_faces import read_map
from ohlora.training.hairzoo.celeb import celeb_data, prepare
from ohlora.training.hairzoo.korean import korean_data, parse_polygon, polygon_mask, rooted
from ohlora.training.hairzoo.pictures import consecutive, faces_data, grouped
from tests.support import hairzoo_sets


def test_prepare_makes_the_published_layout(tmp_path: Path) -> None:
    source = hairzoo_sets.published_celeb(tmp_path / "source", 12, without_mask=(3, 7))
    hairzoo_sets.write(source / "CelebAMask-HQ-mask-anno" / "2" / "00099_hair.png", np.zeros((8, 8), np.uint8))
    pairs, copied, left_out = prepare(source, tmp_path / "out")
    assert (pairs, copied) == (10, 10)
    assert left_out == {"00003": "no hair mask", "00007": "no hair mask", "00099": "a mask without a picture"}
    names = [f"{number:05d}" for number in range(12) if number not in (3, 7)]
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == [f"{name}.jpg" for name in names]
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == [f"{name}.png" for name in names]
    original = source / "CelebA-HQ-img" / "11.jpg"
    assert (tmp_path / "out/images/00011.jpg").read_bytes() == original.read_bytes()
    # A stopped copy goes on; what lies there is left alone.
    (tmp_path / "out/images/00004.jpg").unlink()
    assert prepare(source, tmp_path / "out")[:2] == (10, 1)


def test_prepare_refuses_other_folders_and_ambiguous_masks(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="CelebA-HQ-img"):
        prepare(tmp_path, tmp_path / "out")
    source = hairzoo_sets.published_celeb(tmp_path / "source", 2)
    hairzoo_sets.write(source / "CelebAMask-HQ-mask-anno" / "9" / "00001_hair.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(InvalidInputError, match="two hair masks of picture 1"):
        prepare(source, tmp_path / "out")
    with pytest.raises(InvalidInputError, match="hairzoo-data"):
        celeb_data(source)


def test_celeb_pictures_masks_and_blocks(tmp_path: Path) -> None:
    folder = hairzoo_sets.celeb(tmp_path, 12)
    (folder / "masks" / "00005.png").unlink()
    data = celeb_data(folder)
    assert data.left_out == {"00005.jpg": "no hair mask"}
    assert [p.name for p in data.pictures] == [f"{n:05d}" for n in range(12) if n != 5]
    assert data.fold.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    image, mask, _ = data.pictures[2].read()
    expected = hairzoo_sets.blob(2)
    assert np.array_equal(mask, expected[1])
    assert np.abs(image.astype(int) - expected[0]).mean() < 10  # JPEG
    train, held = data.split(1)
    assert held.tolist() == [3, 4]
    assert sorted([*train, *held]) == list(range(11))
    with pytest.raises(InvalidInputError, match="fold 4"):
        celeb_data(hairzoo_sets.celeb(tmp_path / "few", 3)).split(4)


@pytest.mark.parametrize("count", [5, 7, 13, 29_300])
def test_consecutive_blocks_are_those_of_kfold(count: int) -> None:
    from sklearn.model_selection import KFold

    expected = np.empty(count, int)
    for number, (_, held) in enumerate(KFold(5).split(np.empty(count))):
        expected[held] = number
    assert np.array_equal(consecutive(count), expected)


def test_mask_is_the_first_channel(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[1:3, 1:3, 0] = 255
    hairzoo_sets.write(tmp_path / "mask.png", red)
    assert np.array_equal(read_map(tmp_path / "mask.png", None, 0), red[..., 0])
    assert cv2.imwrite(str(tmp_path / "mask.png"), red.astype(np.uint16) * 257)
    with pytest.raises(InvalidInputError, match=r"mask\.png has values of uint16: 8 bits are needed"):
        read_map(tmp_path / "mask.png", None, 0)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"mask\.png"):
        read_map(tmp_path / "mask.png", None, 0)


def test_korean_tables(tmp_path: Path) -> None:
    folder = hairzoo_sets.korean(tmp_path)
    light, heavy = korean_data(folder, light=True), korean_data(folder, light=False)
    assert [p.name for p in light.pictures] == [f"CP{n:03d}-0" for n in range(6)]
    assert len(heavy.pictures) == 18
    assert (light.count_people(np.arange(6)), heavy.count_people(np.arange(6))) == (6, 2)
    # All views of a person in one fold, every fold filled.
    people: dict[str, set[int]] = {}
    for picture, fold in zip(heavy.pictures, heavy.fold, strict=True):
        people.setdefault(picture.name.split("-")[0], set()).add(int(fold))
    assert all(len(folds) == 1 for folds in people.values())
    assert set(heavy.fold.tolist()) == set(range(5))
    assert len([why for why in light.left_out.values() if why == "table not there"]) == 35
    image, mask, _ = light.pictures[0].read()
    assert np.array_equal(mask > 0, image[..., 0] > 128)


def test_korean_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = hairzoo_sets.korean(tmp_path)
    good = hairzoo_sets.polygon_text([(1, 1), (5, 1), (5, 5)])
    rows = [
        f'0,x/dataset/gone.jpg,"{good}","",a',
        '1,x/dataset/partition0/set-0/CP000-0.jpg,"[]","",b',
        f'2,x/dataset/../secret.jpg,"{good}","",c',
        f'3,x/other/CP000-0.jpg,"{good}","",d',
        '4,x/dataset/partition0/set-0/CP002-0.jpg,"[{\'x\': 1.0}]","",e',
    ]
    header = "Unnamed: 0,path,polygon1,polygon2,source"
    (folder / "dataindex_36.csv").write_text("\n".join([header, *rows]) + "\n")
    data = korean_data(folder, light=True)
    assert len(data.pictures) == 6
    reasons = {path: why for path, why in data.left_out.items() if "dataindex" not in path}
    assert [part in why for part, why in zip(
        ("no file", "0 points", "leaves the data set", "no 'dataset'", "no pairs"), reasons.values(), strict=True
    )] == [True] * 5  # fmt: skip
    (folder / "dataindex_36.csv").write_text("path,source\na,b\n")
    with pytest.raises(InvalidInputError, match=r"dataindex_36\.csv.*polygon1"):
        korean_data(folder, light=True)
    with pytest.raises(InvalidInputError, match="dataindex_00"):
        korean_data(tmp_path / "partition0", light=True)


def test_paths_are_cut_at_the_root() -> None:
    assert rooted("/a/dataset/partition1/x-1.jpg", Path("r")) == Path("r/partition1/x-1.jpg")
    assert rooted(r"C:\a\dataset\p\x.jpg", Path("r")) == Path("r/p/x.jpg")
    # The published program cuts again at a second "dataset" and loses the name.
    assert rooted("dataset/dataset_2/x.jpg", Path("r")) == Path("r/dataset_2/x.jpg")


coordinates = st.floats(-2000, 2000, allow_nan=False).map(lambda v: round(v, 3))


@given(st.lists(st.tuples(coordinates, coordinates), max_size=12), st.booleans(), st.sampled_from("'\""))
def test_polygon_text_is_read_back(points: list[tuple[float, float]], y_first: bool, quote: str) -> None:
    parts = []
    for x, y in points:
        pair = [f"{quote}x{quote}: {x!r}", f"{quote}y{quote}: {y!r}"]
        parts.append("{" + ", ".join(pair[::-1] if y_first else pair) + "}")
    found = parse_polygon("[" + ", ".join(parts) + "]")
    assert found.shape == (len(points), 2)
    np.testing.assert_allclose(found, np.array(points).reshape(-1, 2), atol=1e-3)


@pytest.mark.parametrize("text", ["{'x': 1.0}", "{'x': 1, 'x': 2}", "{'x': 1e9, 'y': 0}"])
def test_broken_polygons_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_polygon(text)


def test_whole_numbers_and_exponents_are_numbers() -> None:
    """The published pattern needs a digit on both sides of a point: it would lose one side of these pairs."""
    assert parse_polygon("[{'x': 7, 'y': 2.5e1}, {'x': -3.25, 'y': .5}]").tolist() == [[7, 25], [-3.25, 0.5]]


def test_rectangle_with_its_outline() -> None:
    mask = polygon_mask(np.array([(1, 2), (4, 2), (4, 3), (1, 3)], np.float32), 8)
    expected = np.zeros((8, 8), np.uint8)
    expected[2:4, 1:5] = 255
    assert np.array_equal(mask, expected)


corners = st.tuples(st.integers(-20, 84), st.integers(-20, 84))


@given(st.lists(corners, min_size=3, max_size=8, unique=True), st.integers(0, 7))
def test_mask_of_any_polygon(points: list[tuple[int, int]], turn: int) -> None:
    array = np.array(points, np.float32)
    mask = polygon_mask(array, 64)
    assert set(np.unique(mask)) <= {0, 255}
    rows, columns = np.nonzero(mask)
    if len(rows):  # nothing outside the corners' box
        assert rows.min() >= array[:, 1].min()
        assert rows.max() <= array[:, 1].max()
        assert columns.min() >= array[:, 0].min()
        assert columns.max() <= array[:, 0].max()
    inside = [(x, y) for x, y in points if 0 <= x < 64 and 0 <= y < 64]
    assert all(mask[y, x] for x, y in inside)  # the outline, corners too, is hair
    # Where the list starts is no part of the shape. (Outlines of slanted edges may be drawn a pixel apart.)
    other = polygon_mask(np.roll(array, turn, axis=0), 64)
    assert np.array_equal(cv2.erode(mask, np.ones((5, 5))) & other, cv2.erode(mask, np.ones((5, 5))))


def test_groups_stay_together_and_must_be_enough() -> None:
    names = [f"g{n // 3}" for n in range(30)]
    fold = grouped(names)
    assert np.bincount(fold).tolist() == [6] * 5
    assert all(len(set(fold[i * 3 : i * 3 + 3])) == 1 for i in range(10))
    with pytest.raises(InvalidInputError, match="2 groups"):
        grouped(["a", "b", "a"])


def test_our_faces_are_split_by_people(tmp_path: Path) -> None:
    data = faces_data([hairzoo_sets.faces(tmp_path)], held=0)
    folds: dict[str, set[int]] = {}
    for picture, fold in zip(data.pictures, data.fold, strict=True):
        folds.setdefault(picture.name[:2], set()).add(int(fold))
    assert all(len(found) == 1 for found in folds.values())
    _, mask, _ = data.pictures[0].read()
    assert len(np.unique(mask)) > 2  # soft


def test_reference_faces_never_show_one_person_on_both_sides(shared: Path) -> None:
    data = faces_data([shared / "data/faces"], held=0)
    assert len(data.pictures) == 60
    train, held = data.split(0)
    assert len(train) + len(held) + len(data.left_out) == 60
    assert data.count_people(held) == 1  # the largest group comes first: these 12 pictures are of one person
    other = faces_data([shared / "data/faces"], held=1)
    people = other.count_people(other.split(1)[1])
    assert people is not None
    assert people > 5
    same = [i for i, picture in enumerate(data.pictures) if picture.name.startswith("finalv3_")]
    assert not (set(same) & set(train.tolist()) and set(same) & set(held.tolist()))
