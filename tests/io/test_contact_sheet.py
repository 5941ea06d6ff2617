"""Where pictures and captions lie on a sheet, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ohlora.errors import InvalidInputError
from ohlora.io.contact_sheet import MAX_CELLS, contact_sheet


def flat(height: int, width: int, shade: int) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


@pytest.mark.parametrize(
    ("count", "columns", "rows", "across"),
    [(1, None, 1, 1), (4, None, 2, 2), (5, None, 2, 3), (7, 3, 3, 3), (2, 9, 1, 2), (3, 1, 3, 1)],
)
def test_grid(count: int, columns: int | None, rows: int, across: int) -> None:
    sheet = contact_sheet((flat(20, 20, i) for i in range(count)), columns=columns, cell=20, gap=3)
    assert sheet.shape == (rows * 23 + 3, across * 23 + 3, 3)
    assert sheet.dtype == np.uint8
    for index in range(count):
        row, column = divmod(index, across)
        top, left = 3 + row * 23, 3 + column * 23
        assert (sheet[top : top + 20, left : left + 20] == index).all()
    assert (sheet[:3] == 255).all()  # the outer gap is paper
    assert (sheet == 255).all(-1).sum() == sheet.shape[0] * sheet.shape[1] - count * 400


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (400, 100), (1, 3000), (3000, 1), (33, 77)])
def test_aspect_is_kept_and_centred(height: int, width: int) -> None:
    sheet = contact_sheet([flat(height, width, 0)], cell=40, gap=0)
    assert sheet.shape == (40, 40, 3)
    rows, columns = np.nonzero((sheet == 0).all(-1))
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(tall, wide) == 40
    assert abs(tall - max(1, 40 * height / max(height, width))) <= 0.5
    assert abs(wide - max(1, 40 * width / max(height, width))) <= 0.5
    assert abs((rows.min() + rows.max()) / 2 - 19.5) <= 0.5
    assert abs((columns.min() + columns.max()) / 2 - 19.5) <= 0.5


def test_shrinking_averages() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 200  # nearest-neighbour would give 0 or 200
    assert set(np.unique(contact_sheet([stripes], cell=20, gap=0))) == {100}


def test_a_reused_buffer_is_copied() -> None:
    def reuse() -> Iterator[np.ndarray]:
        buffer = flat(16, 16, 0)
        for shade in (10, 20, 30, 40):
            buffer[:] = shade
            yield buffer

    sheet = contact_sheet(reuse(), cell=16, gap=0)
    assert [int(sheet[y, x, 0]) for y in (8, 24) for x in (8, 24)] == [10, 20, 30, 40]


def test_captions_are_drawn_below_their_picture_and_stay_in_their_cell() -> None:
    pictures = [flat(64, 64, 200)] * 3
    plain = contact_sheet(pictures, columns=3, cell=64, gap=6)
    sheet = contact_sheet(pictures, columns=3, cell=64, gap=6, captions=["one", "", "many words " * 40])
    strip = sheet[6 + 64 : -6]
    assert sheet.shape[1] == plain.shape[1]
    assert strip.shape[0] > 8
    np.testing.assert_array_equal(sheet[: 6 + 64], plain[: 6 + 64])  # no caption touches a picture
    inked = (strip < 200).any(axis=(0, 2))
    cells = [inked[6 + i * 70 : 70 + i * 70] for i in range(3)]
    assert [bool(cell.any()) for cell in cells] == [True, False, True]
    assert inked.sum() == sum(cell.sum() for cell in cells)  # nothing in the gaps
    assert cells[2].sum() > cells[0].sum()


def test_captions_in_other_scripts_and_with_line_breaks_do_not_fail() -> None:
    assert contact_sheet([flat(9, 9, 0)] * 2, cell=32, captions=["오로라", "two\nlines\t"]).shape[2] == 3


def test_an_endless_source_stops_at_the_limit() -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield flat(8, 8, 0)

    with pytest.raises(InvalidInputError, match=r"at most 2500 pictures: make several sheets"):
        contact_sheet(endless(), cell=8)
    assert taken == MAX_CELLS + 1
    with pytest.raises(InvalidInputError, match=r"exceeds 100,000,000 pixels: choose a smaller cell"):
        contact_sheet(endless(), cell=4096)


def test_wrong_requests_are_refused() -> None:
    one = [flat(8, 8, 0)]
    with pytest.raises(InvalidInputError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(InvalidInputError, match="2 captions for 1 pictures"):
        contact_sheet(one, captions=["a", "b"])
    with pytest.raises(InvalidInputError, match="a single text"):
        contact_sheet(one, captions="a")
    for name, value in (("cell", 7), ("cell", 20.0), ("gap", -1), ("columns", 0), ("columns", True)):
        with pytest.raises(InvalidInputError, match=rf"{name} must be a whole number in"):
            contact_sheet(one, **{name: value})
    for wrong in (flat(8, 8, 0)[..., 0], flat(8, 8, 0).astype(np.float32), flat(0, 8, 0)):
        with pytest.raises(InvalidInputError, match="picture 1 is"):
            contact_sheet([*one, wrong])
