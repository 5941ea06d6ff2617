"""Label tables in the documented layouts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ohlora.errors import InvalidInputError
from ohlora.training.data.labels import Labels, layout_of, read_labels, write_labels
from tests.support.refusals import require_refused

V1 = "img_name,quality,gender\n0,1,0\n1,1,1\n7,0,1\n"


def labels(**columns: list[float]) -> Labels:
    count = len(next(iter(columns.values())))
    return Labels(np.arange(count), {name: np.array(column) for name, column in columns.items()})


@pytest.mark.parametrize(
    ("name", "layout", "ones"),
    [
        ("v1/cnn/synthesize_results_quality_and_gender.csv", "v1", {"quality": 1905, "gender": 1112}),
        (
            "v3/generate_dataset/scores_labeled_first_2k.csv",
            "v3",
            {"gender": 1805, "quality": 1926, "age": 128, "glass": 103},
        ),
    ],
)
def test_published_tables_are_read_and_written_back(
    shared: Path, tmp_path: Path, name: str, layout: str, ones: dict[str, int]
) -> None:
    path = shared / "data/ohlora" / name
    table = read_labels(path)
    assert len(table) == 2000
    np.testing.assert_array_equal(table.numbers, np.arange(2000))
    assert {attribute: int(table.of(attribute).sum()) for attribute in table.attributes} == ones
    assert layout_of(table.attributes) == layout
    write_labels(tmp_path / "out.csv", table, layout)  # type: ignore[arg-type]
    # One of the published tables lacks the newline of its last row.
    assert (tmp_path / "out.csv").read_bytes().rstrip(b"\n") == path.read_bytes().rstrip(b"\n")


def test_compressed_tables_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(V1)
    table = read_labels(tmp_path / "a.csv")
    write_labels(tmp_path / "b.csv.gz", table, "v1")
    assert gzip.decompress((tmp_path / "b.csv.gz").read_bytes()).decode() == V1
    first = (tmp_path / "b.csv.gz").read_bytes()
    write_labels(tmp_path / "b.csv.gz", read_labels(tmp_path / "b.csv.gz"), "v1")
    assert (tmp_path / "b.csv.gz").read_bytes() == first


def test_rows_are_written_in_number_order(tmp_path: Path) -> None:
    table = Labels(np.array([9, 2]), {"gender": np.array([1.0, 0.0]), "quality": np.array([0.0, 1.0])})
    write_labels(tmp_path / "a.csv", table, "v1")
    assert (tmp_path / "a.csv").read_text() == "img_name,quality,gender\n2,1,0\n9,0,1\n"


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(V1)
    chosen = read_labels(tmp_path / "a.csv").rows([7, 0])
    assert chosen.numbers.tolist() == [7, 0]
    assert chosen.of("quality").tolist() == [0.0, 1.0]
    with pytest.raises(InvalidInputError, match=r"2 pictures have no label: 3, 4"):
        chosen.rows([0, 3, 4])
    with pytest.raises(InvalidInputError, match="no labels for 'age': this table has quality, gender"):
        chosen.of("age")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "starts with ''"),
        ("idx,quality,gender\n0,1,1\n", "starts with 'idx,quality,gender'"),
        ("img_name,quality,gender\n0,1\n", "line 2: 2 cells instead of 3"),
        ("img_name,quality,gender\n0,1,1\n1,2,0\n", "line 3: quality must be 0 or 1, got '2'"),
        ("img_name,quality,gender\n0,1,\n", "line 2: gender must be 0 or 1, got ''"),
        ("img_name,quality,gender\nface,1,1\n", "line 2: 'face' is no picture number"),
        ("img_name,quality,gender\n-1,1,1\n", "line 2: '-1' is no picture number"),
        ("img_name,quality,gender\n4,1,1\n4,1,0\n", "picture 4 is labelled twice"),
        ('img_name,quality,gender\n"4,1,1\n', "cannot read"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    require_refused(read_labels, tmp_path / "labels.csv", text, message)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="ohlora train label"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(V1.encode())[:-9])
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_labels(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="UTF-16 text"):
        read_labels(tmp_path / "b.csv")


def test_labels_check_themselves() -> None:
    with pytest.raises(InvalidInputError, match=r"of picture 1 must be 0 or 1, got 0\.5"):
        labels(age=[0, 0.5])
    with pytest.raises(InvalidInputError, match="must be 0 or 1, got nan"):
        labels(age=[0, float("nan")])
    with pytest.raises(InvalidInputError, match="'age' has 1 labels for 2 pictures"):
        Labels(np.arange(2), {"age": np.zeros(1)})
    with pytest.raises(InvalidInputError, match="whole picture numbers"):
        Labels(np.zeros(2), {})


def test_layouts_are_chosen_by_attributes(tmp_path: Path) -> None:
    assert layout_of(["gender", "quality"]) == "v1"
    assert layout_of(["quality", "gender", "glass", "age"]) == "v3"
    for attributes in (["gender"], ["quality", "gender", "gender"], ["age", "glass"]):
        with pytest.raises(InvalidInputError, match="no documented table"):
            layout_of(attributes)
    with pytest.raises(InvalidInputError, match=r"layout v3 holds .* these labels are of quality, gender"):
        write_labels(tmp_path / "a.csv", labels(quality=[1], gender=[1]), "v3")
    assert not list(tmp_path.iterdir())


LINES = ["img_name,quality,gender", "0,0,1", "1,1,0", "12,1,1"]


def as_stored(lines: list[str], separator: str = ",") -> str:
    return "".join(line.replace(",", separator) + "\n" for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        as_stored(LINES, ";"),
        as_stored(LINES, "\t"),
        "\ufeff" + as_stored(LINES),
        as_stored(["Img_Name,QUALITY,gender", *LINES[1:]]),
        as_stored(["gender,img_name,quality", "1,0,0", "0,1,1", "1,12,1"]),
        as_stored([LINES[0], "000000.jpg,0,1", "000001.jpg,1,0", "face_000012.PNG,1,1"]),
        as_stored([LINES[0], "0.0,0.0,1.0", "1.0,1.0,0.0", "12.0,1.0,1.0"]),
        as_stored([f",{LINES[0]}", *(f"{row},{line}" for row, line in enumerate(LINES[1:]))]),
        as_stored([*LINES, ",,", ",,"]),
    ],
    ids=["semicolons", "tabs", "mark", "case", "order", "names", "floats", "index", "empty-rows"],
)
def test_tables_of_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    found = read_labels(tmp_path / "labels.csv")
    assert found.numbers.tolist() == [0, 1, 12]
    assert found.attributes == ("quality", "gender")
    assert found.of("quality").tolist() == [0, 1, 1]
    assert found.of("gender").tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Total,5,5", "'Total' is no picture number .the row is 'Total,5,5', expected is img_name,quality,gender"),
        ("4,,1", "quality must be 0 or 1, got '' .the row is '4,,1', expected is img_name"),
        ("4,woman,1", "quality must be 0 or 1, got 'woman'"),
        ('4,"0,0",1', "quality must be 0 or 1, got '0,0'"),
        ("0.5,1,1", "'0.5' is no picture number"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_row(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(as_stored(LINES) + row)
    with pytest.raises(InvalidInputError, match=f"line 5: {message}"):
        read_labels(tmp_path / "labels.csv")
