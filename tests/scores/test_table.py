"""Score tables: the published files, exact round trips, every way to be wrong. Numbered folders."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.errors import InvalidInputError, OutputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, read_score_table, write_score_table
from tests.support.refusals import require_refused

PUBLISHED = {
    "v1/property_score_results/all_scores.csv.gz": (4703, True),
    "v1/property_score_results/all_scores_v2.csv.gz": (4703, True),
    "v1/property_score_results/all_scores_v2_cnn.csv.gz": (4703, False),
    "v3/property_score_cnn/all_scores_ohlora_v3.csv.gz": (4930, True),
    "v3/generate_dataset/scores_all_15k.csv.gz": (15000, True),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables_are_written_byte_for_byte(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "data" / "ohlora" / name
    rows, index = PUBLISHED[name]
    table = read_score_table(source)
    assert len(table) == rows
    assert not np.isnan(table.values).any()
    write_score_table(tmp_path / "again.csv", table, index=index)
    # Two cells of one file are spelled 1e-04, as pandas prints float32.
    published = gzip.decompress(source.read_bytes()).replace(b"1e-04", b"0.0001")
    assert (tmp_path / "again.csv").read_bytes() == published


def test_published_columns(shared: Path) -> None:
    folder = shared / "data" / "ohlora"
    table = read_score_table(folder / "v1/property_score_results/all_scores_v2.csv.gz")
    assert table.columns == PROPERTY_COLUMNS
    assert table.numbers[:2].tolist() == [4, 5]
    assert table.column("mouth_score")[0] == -1.0138
    assert table.paths[0].endswith("synthesize_results_filtered/000004.jpg")
    # The published scores were normalised with the sample deviation (docs/spec/properties.md, section 6).
    assert np.abs(table.values.std(0, ddof=1) - 1).max() < 5e-5
    sampled = read_score_table(folder / "v8/v8_property_scores/property_scores_sampled.csv.gz", ["hairstyle"])
    assert (sampled.columns, len(sampled), sampled.paths[7]) == (("hairstyle",), 20000, "")


def small() -> ScoreTable:
    return ScoreTable(
        np.array([12, 3, 400]), ("a", "b"), np.array([[0.5, math.nan], [-1.23456789, 2], [1e-9, 0]]), ("x,y", "", 'q"r')
    )


def test_rows_come_in_the_order_asked_for() -> None:
    part = small().rows([400, 12])
    assert part.numbers.tolist() == [400, 12]
    assert part.paths == ('q"r', "x,y")
    assert part.column("a").tolist() == [1e-9, 0.5]
    with pytest.raises(InvalidInputError, match=r"2 of 3 pictures: number 5, 6"):
        small().rows([5, 3, 6])
    with pytest.raises(InvalidInputError, match=r"no column 'c'.*a, b"):
        small().column("c")
    assert len(small().rows([])) == 0


def test_rounding_is_that_of_the_binary_value(tmp_path: Path) -> None:
    table = ScoreTable(np.arange(4), ("s",), np.array([[0.00005], [2.67495], [1.362], [0.0]]))
    write_score_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text() == (
        f",img_no,img_path,s\n0,0,,{round(0.00005, 4)}\n1,1,,{round(2.67495, 4)}\n2,2,,1.362\n3,3,,0.0\n"
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))),
             unique_by=lambda pair: pair[0], max_size=6),
    st.data(),
)  # fmt: skip
def test_full_precision_survives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], data: st.DataObject
) -> None:
    number = st.floats(allow_infinity=False, allow_nan=True)
    values = [[data.draw(number), data.draw(number)] for _ in rows]
    table = ScoreTable(
        np.array([n for n, _ in rows], np.int64), ("a", "b"), np.array(values).reshape(-1, 2), tuple(p for _, p in rows)
    )
    path = tmp_path_factory.getbasetemp() / "full.csv.gz"
    write_score_table(path, table, decimals=None, index=data.draw(st.booleans()))
    again = read_score_table(path)
    assert np.array_equal(again.values, table.values, equal_nan=True)
    assert (again.numbers.tolist(), again.paths) == (table.numbers.tolist(), table.paths)


def test_compressed_twice_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        write_score_table(tmp_path / name, small())
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


GOOD = ",img_no,img_path,a,b\n0,4,x,1.5,\n1,5,y,2,3\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("number,a\n1,2\n", "no column 'img_no'"),
        ("img_no,a,a\n1,2,3\n", "column 'a' more than once"),
        (GOOD + "2,6,z,1\n", "line 4: 4 cells, the header has 5"),
        (GOOD + "2,5,z,1,1\n", "line 4: picture 5 stands in line 3 already"),
        (GOOD + "2,-1,z,1,1\n", "line 4: img_no must be a whole number from 0, got '-1'"),
        (GOOD + "2,6.0,z,1,1\n", "got '6.0'"),
        (GOOD + "2,99999999999999999999,z,1,1\n", "img_no must be a whole number"),
        (GOOD + "2,6,z,high,1\n", "line 4, column 'a'.*got 'high'"),
        (GOOD + "2,6,z,1,inf\n", "column 'b'.*got 'inf'"),
        (GOOD + '2,6,"z,1,1\n', "cannot read the table"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    require_refused(read_score_table, tmp_path / "t.csv", text, message)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no table"):
        read_score_table(tmp_path / "none.csv")
    with pytest.raises(InvalidInputError, match="cannot read the table"):
        read_score_table(tmp_path)
    whole = gzip.compress(GOOD.encode() * 50)
    for data in (whole[:-9], whole[:40], b"not gzip", whole[:30] + bytes(20) + whole[50:]):
        (tmp_path / "t.csv.gz").write_bytes(data)
        with pytest.raises(InvalidInputError, match="cannot read the table"):
            read_score_table(tmp_path / "t.csv.gz")
    (tmp_path / "t.csv").write_bytes(b"img_no,a\n1,\xff\xfe\n")
    with pytest.raises(InvalidInputError, match="cannot read the table"):
        read_score_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(GOOD)
    with pytest.raises(InvalidInputError, match=r"no column 'c': it has a, b"):
        read_score_table(tmp_path / "t.csv", ["c"])


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    table = read_score_table(tmp_path / "t.csv", ["b"])
    assert table.numbers.tolist() == [4, 5]
    assert math.isnan(table.values[0, 0])


def test_tables_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot have values of shape"):
        ScoreTable(np.arange(2), ("a",), np.zeros((2, 2)))
    with pytest.raises(InvalidInputError, match="picture 1 has more than one row"):
        ScoreTable(np.array([1, 1]), ("a",), np.zeros((2, 1)))
    with pytest.raises(InvalidInputError, match="must differ"):
        ScoreTable(np.arange(2), ("a", "a"), np.zeros((2, 2)))
    with pytest.raises(InvalidInputError, match="a of picture 0 is infinite"):
        write_score_table(tmp_path / "t.csv", ScoreTable(np.arange(1), ("a",), np.array([[math.inf]])))
    with pytest.raises(OutputError):
        write_score_table(tmp_path / "none" / "t.csv", small())


# --- numbered folders ---------------------------------------------------------------------------------------------


def folder_of(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_numbers_rise_and_come_from_the_end_of_the_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "000012.jpg", "2.png", "v2_000003.webp", ".5.png", "notes7.txt")
    assert {n: p.name for n, p in numbered_images(folder).items()} == {
        2: "2.png",
        3: "v2_000003.webp",
        12: "000012.jpg",
    }
    assert list(numbered_images(folder)) == [2, 3, 12]


def test_one_kind_of_a_mixed_folder(tmp_path: Path) -> None:
    names = ("face_000001.png", "parsing_000001.png", "parsing_visualization_000001.png", "parsing_000000.png")
    folder = folder_of(tmp_path / "f", *names)
    assert {n: p.name for n, p in numbered_images(folder, "parsing_").items()} == {0: names[3], 1: names[1]}
    with pytest.raises(InvalidInputError, match=r"both have number 1"):
        numbered_images(folder)
    with pytest.raises(InvalidInputError, match=r"no picture named hair_NNNNNN"):
        numbered_images(folder, "hair_")


def test_names_without_number_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"anna.jpg has no number"):
        numbered_images(folder_of(tmp_path / "f", "anna.jpg", "1.jpg"))
    with pytest.raises(InvalidInputError, match=r"1.png and .*01.png|01.png and .*1.png"):
        numbered_images(folder_of(tmp_path / "g", "1.png", "01.png"))
    with pytest.raises(InvalidInputError, match="there is no folder"):
        numbered_images(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="no picture"):
        numbered_images(folder_of(tmp_path / "h"))
