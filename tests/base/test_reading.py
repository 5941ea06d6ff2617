"""Files of strangers: never waited for, bounded, and refused in one line that names them."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ohlora.base.arrays import PACKED_FLOOR, read_npy, read_npz, read_safetensors, unpack_gzip
from ohlora.base.reading import decode, open_file, parse_json, read_object, read_text
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import escape, shown
from ohlora.errors import BundleError, InvalidInputError


def refused(message: str) -> Any:
    return pytest.raises(InvalidInputError, match=message)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused("it is a pipe or a device"):
        open_file(tmp_path / "pipe")


def test_a_device_is_refused_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with refused("it is a pipe or a device"):
        open_file(tmp_path / "zeros")


def test_folders_missing_files_and_impossible_names_are_refused(tmp_path: Path) -> None:
    with refused("it is a folder"):
        open_file(tmp_path)
    with refused("there is no table"):
        open_file(tmp_path / "missing", "table")
    with refused("embedded null"):
        open_file(tmp_path / "a\0b")
    with refused("File name too long"):
        open_file(tmp_path / ("n" * 5000))


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # sparse: no disk is used
    with refused("1,099,511,627,776 bytes, more than the limit of 1,000"):
        open_file(tmp_path / "large", limit=1000)


def test_a_link_may_not_lead_out_of_the_folder_that_is_meant(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("x")
    (inside / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="it is a link out of its folder"):
        open_file(inside / "link", error=BundleError, inside=inside)


def test_text_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfhair")
    assert read_text(tmp_path / "bom") == "hair"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("Haar".encode("utf-16"), "is UTF-16 text, save it as UTF-8"),
        (b"one\ntw\xf6", "line 2: byte 0xf6 is not UTF-8"),
    ],
)
def test_other_encodings_are_named(data: bytes, message: str) -> None:
    with refused(message):
        decode(data, "the table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "more than 100 containers inside each other"),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, "more than 100 containers inside each other"),
        (b"[" + b"9" * 5000 + b"]", "more than 400 digits"),
        (b"[NaN]", "NaN is not JSON"),
        (b'{"a": 1,\n"b"}', "line 2, column 4"),
    ],
)
def test_json_that_parsers_fall_over_is_refused_in_one_line(text: bytes, message: str) -> None:
    with refused(message) as caught:
        parse_json(text, "the record")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_brackets_and_digits_inside_texts_are_no_structure() -> None:
    assert parse_json(b'{"a": "' + b"[" * 500 + b"1" * 500 + b'"}', "x")["a"].startswith("[[")


def test_a_value_of_another_kind_is_named_and_not_printed(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(str(list(range(5000))))
    with refused("holds a list, not a JSON object") as caught:
        read_object(tmp_path / "list.json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path: Path, mark: str, name: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(mark.join("abc") + "\n" + mark.join("123"))
    with refused(f"separated by {name}: save it with commas"):
        read_csv_rows(path)
    assert read_csv_rows(path, delimiters=f",{mark}")[1] == (2, ["1", "2", "3"])


def test_damaged_and_bomb_like_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n1,2\n", mtime=0)
    assert unpack_gzip(whole + whole) == b"a,b\n1,2\n" * 2
    for data, message in (
        (whole[:-3], "cut short"),
        (whole[:12] + b"\xff\xff\xff" + whole[15:], "damaged"),
        (gzip.compress(bytes(PACKED_FLOOR + 1), mtime=0), "would unpack to more than"),
    ):
        (tmp_path / "t.csv.gz").write_bytes(data)
        with refused(message):
            read_csv_rows(tmp_path / "t.csv.gz")


def npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }", bytes(64)),
            "claims the shape",
        ),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 512), }", bytes(64)), "claims the shape"),
        (npy("{'descr': '<f4', 'fortran_order'"), "no NumPy array, or damaged"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(64)), "numbers or text are needed"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", bytes(64)), "numbers or text are needed"),
        (b"hello", "no NumPy array, or damaged"),
    ],
)
def test_the_header_of_an_array_is_compared_with_its_file(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "z.npy").write_bytes(data)
    with refused(message):
        read_npy(tmp_path / "z.npy")


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, order: str) -> None:
    values = np.asarray(np.arange(12, dtype=">f4").reshape(3, 4), order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", z=values, name=np.array(["one", "two"]))
    assert np.array_equal(read_npy(tmp_path / "a.npy"), values)
    arrays = read_npz(tmp_path / "a.npz", ("z", "name", "group"))
    assert np.array_equal(arrays["z"], values)
    assert arrays["name"].tolist() == ["one", "two"]
    assert "group" not in arrays


def archive(path: Path, values: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("z.npy", values)
    return path.read_bytes()


def test_archives_that_numpy_does_not_write_are_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "z.npz", io.BytesIO()
    np.save(data, np.zeros((1, 512), np.float32))
    archive(path, data.getvalue(), zipfile.ZIP_LZMA)
    with refused("compressed in a way that NumPy does not write"):
        read_npz(path, ("z",))
    plain = bytearray(archive(path, data.getvalue()))
    plain[plain.index(b"PK\x01\x02") + 8] |= 1  # the bit of encryption
    path.write_bytes(plain)
    with refused("is encrypted"):
        read_npz(path, ("z",))
    archive(path, bytes(PACKED_FLOOR + 1))
    with refused("would unpack to"):
        read_npz(path, ("z",))
    path.write_bytes(b"PK\x03\x04 cut")
    with refused("no .npz archive, or damaged"):
        read_npz(path, ("z",))
    np.savez(path, other=np.zeros(3))
    with refused(r"has no array z \(it has other\)"):
        read_npz(path, ("z",))


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with refused("no safetensors file, or damaged"):
        read_safetensors(tmp_path / "x")


def test_names_of_strangers_reach_no_terminal_as_commands() -> None:
    assert escape("a\x1b[31mred\r\nb\u202e") == "a\\x1b[31mred\\r\nb\\u202e"
    assert shown("a\nb") == "a\\nb"
    assert shown("x" * 500, 40) == "x" * 24 + "..." + "x" * 13
    assert shown("Zoë 写真") == "Zoë 写真"
