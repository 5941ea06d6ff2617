"""The labelling page: labels survive everything, the server serves one person only, a browser can drive it."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ohlora.errors import InvalidInputError, OutputError
from ohlora.io.images import encode_image
from ohlora.training.data.labels import LAYOUTS, Labels, read_labels, write_labels
from ohlora.training.pages.label import store as store_module
from ohlora.training.pages.label.attributes import ATTRIBUTES, asked
from ohlora.training.pages.label.server import LabelServer
from ohlora.training.pages.label.store import LabelStore
from tests.support.browser import Browser, PageCommand, ask, free_port

V1 = ("quality", "gender")
V3 = ("gender", "quality", "age", "glass")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        image = np.full((32, 32, 3), 12 * number, np.uint8)
        (folder / f"{number:06d}.jpg").write_bytes(encode_image(image, "jpeg"))
    return folder


def paths(folder: Path) -> dict[int, Path]:
    return {number: folder / f"{number:06d}.jpg" for number in range(20)}


def opened(folder: Path, attributes: tuple[str, ...] = V1, out: str = "labels.csv") -> LabelStore:
    return LabelStore(paths(folder), attributes, folder.parent / out)


# --- store -----------------------------------------------------------------------------------------------------------


def test_only_whole_rows_are_in_the_table(pictures: Path) -> None:
    table = pictures.parent / "labels.csv"
    with opened(pictures) as store:
        store.label("a", 1, 3, "quality", 1)
        assert not table.exists()
        store.label("a", 2, 3, "gender", 0)
        assert table.read_text() == "img_name,quality,gender\n3,1,0\n"
        assert not (pictures.parent / "labels.csv.progress.json").exists()
        store.label("a", 3, 1, "gender", 1)
        store.label("a", 4, 3, "gender", 1)
        assert table.read_text() == "img_name,quality,gender\n3,1,1\n"
    # Nothing but the files is left of the process.
    with opened(pictures) as store:
        assert store.state()["rows"] == {1: {"gender": 1}, 3: {"quality": 1, "gender": 1}}
        store.label("b", 1, 1, "quality", 0)
        assert table.read_text() == "img_name,quality,gender\n1,0,1\n3,1,1\n"
        assert store.summary() == {
            "out": str(table),
            "pictures": 20,
            "labelled": 2,
            "partly": 0,
            "skipped": 0,
            "ones": {"quality": 1, "gender": 2},
        }


def test_v3_table_and_compressed_files(pictures: Path) -> None:
    for out in ("v3.csv", "v3.csv.gz"):
        with opened(pictures, V3, out) as store:
            for order, name in enumerate(V3):
                store.label("a", order, 5, name, order % 2)
        labels = read_labels(pictures.parent / out)
        assert labels.attributes == V3
        assert [int(labels.of(name)[0]) for name in V3] == [0, 1, 0, 1]


def test_undo_takes_back_ones_own_answers_only(pictures: Path) -> None:
    with opened(pictures) as store:
        store.label("a", 1, 0, "quality", 0)
        store.label("a", 2, 0, "quality", 1)
        store.label("a", 3, 0, "gender", 1)
        store.label("b", 1, 1, "gender", 1)
        undone = store.undo("a")
        assert undone is not None
        assert (undone.number, undone.attribute, undone.value) == (0, "gender", None)
        assert read_labels(store.out).numbers.size == 0
        again = store.undo("a")
        assert again is not None
        assert (again.attribute, again.value) == ("quality", 0)
        last = store.undo("a")
        assert last is not None
        assert last.value is None
        assert store.undo("a") is None
        assert store.state()["rows"] == {1: {"gender": 1}}
        # An answer that another tab has changed since is not mine to take back.
        store.label("a", 9, 2, "quality", 1)
        store.label("b", 2, 2, "quality", 0)
        assert store.undo("a") is None
        assert store.state()["rows"][2] == {"quality": 0}


def test_the_last_write_of_a_cell_wins_and_is_told(pictures: Path) -> None:
    with opened(pictures) as store:
        first = store.label("a", 1, 0, "quality", 1, seen=0)
        stale = store.label("b", 1, 0, "quality", 0, seen=0)
        assert stale.foreign
        assert store.state()["rows"][0] == {"quality": 0}
        informed = store.label("a", 2, 0, "quality", 1, seen=stale.revision)
        assert not informed.foreign
        assert not store.label("b", 2, 0, "quality", 1, seen=0).foreign  # the same answer is no conflict
        changes = store.changes(first.revision)
        assert [(cell["number"], cell["attribute"], cell["value"]) for cell in changes["cells"]] == [(0, "quality", 1)]
        # Requests of one tab that overtake each other: the later key press counts.
        store.label("a", 8, 4, "gender", 1)
        store.label("a", 7, 4, "gender", 0)
        assert store.state()["rows"][4] == {"gender": 1}


def test_skipped_pictures_are_remembered_until_they_are_labelled(pictures: Path) -> None:
    with opened(pictures) as store:
        store.skip(3, True)
        store.skip(4, True)
        store.skip(4, False)
    with opened(pictures) as store:
        assert store.state()["skipped"] == [3]
        store.label("a", 1, 3, "quality", 1)
        store.label("a", 2, 3, "gender", 1)
        assert store.state()["skipped"] == []
        assert not (pictures.parent / "labels.csv.progress.json").exists()


def test_rows_outside_the_choice_are_kept(pictures: Path) -> None:
    write_labels(
        pictures.parent / "labels.csv",
        Labels(np.array([2, 15]), {"quality": np.array([1.0, 0.0]), "gender": np.array([0.0, 0.0])}),
        "v1",
    )
    few = {number: path for number, path in paths(pictures).items() if number < 5}
    with LabelStore(few, V1, pictures.parent / "labels.csv", range(20)) as store:
        assert store.summary()["labelled"] == 1
        store.label("a", 1, 2, "quality", 0)
        with pytest.raises(InvalidInputError, match="no picture 15"):
            store.label("a", 2, 15, "quality", 0)
    assert (pictures.parent / "labels.csv").read_text() == "img_name,quality,gender\n2,0,0\n15,0,0\n"


def test_tables_that_do_not_fit_are_refused(pictures: Path) -> None:
    out = pictures.parent / "labels.csv"
    out.write_text("idx,gender,quality,age,glass\n0,1,1,0,0\n")
    with pytest.raises(
        InvalidInputError, match="holds labels of gender, quality, age, glass, asked are quality, gender"
    ):
        opened(pictures)
    out.write_text("img_name,quality,gender\n0,1,1\n77,1,1\n")
    with pytest.raises(InvalidInputError, match=r"labels of 1 pictures that are not in the folder \(77\)"):
        opened(pictures)
    out.unlink()
    (pictures.parent / "labels.csv.progress.json").write_text('{"format": 1')
    with pytest.raises(InvalidInputError, match=r"progress\.json is not valid JSON.*delete it"):
        opened(pictures)
    with pytest.raises(InvalidInputError, match="no documented table"):
        opened(pictures, ("age",), "other.csv")
    with pytest.raises(InvalidInputError, match=r"written as \.csv"):
        opened(pictures, V1, "labels.txt")


def test_one_server_a_table(pictures: Path) -> None:
    with opened(pictures), pytest.raises(InvalidInputError, match=r"another ohlora process .*: use its page"):
        opened(pictures)
    with opened(pictures) as store:
        pass
    with pytest.raises(OutputError, match="the labelling has ended"):
        store.label("a", 1, 0, "quality", 1)


def test_a_full_disk_changes_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(pictures) as store:
        store.label("a", 1, 0, "quality", 1)

        def full(*arguments: Any) -> None:
            raise OutputError("the disk is full")

        monkeypatch.setattr(store_module, "write_labels", full)
        with pytest.raises(OutputError):
            store.label("a", 2, 0, "gender", 1)
        assert store.state()["rows"] == {0: {"quality": 1}}
        assert store.changes(1)["cells"] == []
        monkeypatch.undo()
        store.label("a", 3, 0, "gender", 1)
    assert (pictures.parent / "labels.csv").read_text() == "img_name,quality,gender\n0,1,1\n"


def test_a_table_changed_by_others_is_not_overwritten(pictures: Path) -> None:
    with opened(pictures) as store:
        store.label("a", 1, 0, "quality", 1)
        store.label("a", 2, 0, "gender", 1)
        store.out.write_text("img_name,quality,gender\n0,0,0\n1,1,1\n")
        with pytest.raises(OutputError, match="was changed by another program"):
            store.label("a", 3, 0, "gender", 0)
        assert store.out.read_text().endswith("1,1,1\n")


def test_every_documented_attribute_has_words_and_keys() -> None:
    for _, *attributes in LAYOUTS.values():
        questions = asked(attributes)
        assert [one.name for one in questions] == attributes
        keys = [key for one in questions for key in one.keys]
        assert len(set(keys)) == 2 * len(questions)
        assert not set(keys) & set("unxzm")  # those of the tools
    assert set(ATTRIBUTES) == set(V3)


# --- server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(pictures: Path) -> Iterator[LabelServer]:
    with opened(pictures) as store, LabelServer(store, asked(V1)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_it_listens_to_this_machine_only(server: LabelServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 24


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/wrong/", {}),
        ("/wrong/api/state", {}),
        ("{token}/api/state", {"Host": "evil.example:80"}),
        ("{token}/api/state", {"Host": "127.0.0.1"}),  # of another port
        ("{token}/image/0", {"Origin": "http://evil.example"}),
        ("{token}/api/state", {"Origin": "null"}),
    ],
)
def test_strangers_are_refused(server: LabelServer, path: str, headers: dict[str, str]) -> None:
    status, content, _ = ask(server, "GET", path.format(token=f"/{server.token}"), **headers)
    assert status == 403
    assert server.token.encode() not in content


def test_only_listed_pictures_are_served(server: LabelServer, pictures: Path) -> None:
    (pictures / "secret.txt").write_text("secret")
    base = f"/{server.token}"
    status, content, headers = ask(server, "GET", f"{base}/image/7")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert content == (pictures / "000007.jpg").read_bytes()
    for path in (
        "/image/20",
        "/image/-1",
        "/image/secret.txt",
        "/image/../secret.txt",
        "/image/%2e%2e/secret.txt",
        "/image/7/..",
        "/../pictures/secret.txt",
        "/server.py",
        "/store.py",
        "/image/" + "9" * 400,
        "/image/٣",  # a digit, not of ours
    ):
        assert ask(server, "GET", base + path.encode("ascii", "ignore").decode())[0] == 404, path


def test_pages_are_locked_down(server: LabelServer) -> None:
    for name in ("", "page.css", "page.js", "keys.js", "saving.js", "icon.svg"):
        status, content, headers = ask(server, "GET", f"/{server.token}/{name}")
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", content), name  # nothing from elsewhere


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("api/label", {"client": "a", "order": 1, "number": 99, "attribute": "quality", "value": 1}, 400),
        ("api/label", {"client": "a", "order": 1, "number": "0", "attribute": "quality", "value": 1}, 400),
        ("api/label", {"client": "a", "order": 1, "number": 0, "attribute": "age", "value": 1}, 400),
        ("api/label", {"client": "a", "order": 1, "number": 0, "attribute": ["x"], "value": 1}, 400),
        ("api/label", {"client": "a", "order": 1, "number": 0, "attribute": "quality", "value": 2}, 400),
        ("api/label", {"client": "a", "order": 1, "number": 0, "attribute": "quality", "value": True}, 400),
        ("api/label", {"client": "a", "number": 0, "attribute": "quality", "value": 1}, 400),
        ("api/label", {"client": "a" * 100, "order": 1, "number": 0, "attribute": "quality", "value": 1}, 400),
        ("api/label", [1], 400),
        ("api/label", {"client": "x" * 5000}, 413),
        ("api/skip", {"number": -1}, 400),
        ("api/nothing", {}, 404),
    ],
)
def test_bad_requests_change_nothing(server: LabelServer, path: str, body: Any, status: int) -> None:
    got, content, _ = ask(server, "POST", f"/{server.token}/{path}", body)
    assert got == status
    assert json.loads(content)["error"]
    assert server.store.state()["rows"] == {}


def test_requests_of_other_kinds_are_refused(server: LabelServer) -> None:
    body = {"client": "a", "order": 1, "number": 0, "attribute": "quality", "value": 1}
    assert ask(server, "POST", f"/{server.token}/api/label", body, Content_Type="text/plain")[0] == 415
    assert ask(server, "PUT", f"/{server.token}/api/label", body)[0] == 501
    assert ask(server, "POST", f"/{server.token}/api/label", body)[0] == 200
    assert server.store.state()["rows"] == {0: {"quality": 1}}


def test_pictures_of_other_formats_are_converted_and_damaged_ones_told(server: LabelServer, pictures: Path) -> None:
    (pictures / "000001.jpg").write_bytes(b"not a picture")
    (pictures / "000002.jpg").unlink()
    assert cv2.imwrite(str(pictures / "x.tiff"), np.full((8, 8, 3), 99, np.uint8))
    (pictures / "000003.jpg").write_bytes((pictures / "x.tiff").read_bytes())
    for number in (1, 2):
        status, content, _ = ask(server, "GET", f"/{server.token}/image/{number}")
        assert status == 422
        assert f"00000{number}.jpg cannot be shown" in json.loads(content)["error"]
    status, content, headers = ask(server, "GET", f"/{server.token}/image/3")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert content.startswith(b"\x89PNG")


def test_a_port_that_is_taken_is_a_bad_request(server: LabelServer) -> None:
    # A second listener would be refused or, with port reuse, would not be reached.
    with pytest.raises(InvalidInputError, match="choose another --port"):
        LabelServer(server.store, asked(V1), server.port)


# --- the command and a real browser ----------------------------------------------------------------------------------


SAVED = "document.querySelector('#saved').textContent === 'Saved'"
READY = f"document.querySelectorAll('#answers button').length > 0 && {SAVED}"
SHOWN = "document.querySelector('#picture').getAttribute('src')"


@pytest.fixture
def start(serve: Callable[..., PageCommand]) -> Callable[..., PageCommand]:
    def make(pictures: Path, out: Path, attributes: str = "quality,gender", port: int = 0) -> PageCommand:
        return serve("label", pictures, "--attributes", attributes, "--out", out, "--port", port)

    return make


def test_twenty_pictures_by_keys(
    browser: Browser, start: Callable[..., PageCommand], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    wanted = {number: (int(number % 7 != 3), number % 2) for number in range(20)}  # quality, gender

    def label(number: int) -> None:
        browser.wait(f"{SHOWN} === 'image/{number}'", f"picture {number}")
        quality, gender = wanted[number]
        browser.press("q" if quality else "a", "w" if gender else "s")

    command = start(pictures, out)
    browser.open(command.url)
    browser.wait(READY)
    for number in range(6):
        label(number)
    # A wrong second answer of picture 6 finishes it; undo comes back to it.
    browser.press("q", "s" if wanted[6][1] else "w")
    browser.wait(f"{SHOWN} === 'image/7'")
    browser.press("backspace")
    browser.wait(f"{SHOWN} === 'image/6'")
    browser.press("w" if wanted[6][1] else "s")
    # A correction: look back to picture 3, whose quality is changed twice; then on to the first open one.
    browser.wait(f"{SHOWN} === 'image/7'")
    browser.press("left", "left", "left", "left")
    browser.wait(f"{SHOWN} === 'image/3'")
    browser.press("q", "a", "n")
    browser.wait(f"{SHOWN} === 'image/7'")
    assert "Picture 7" in browser.run("document.querySelector('#live').textContent")
    # Half an answer, and a refresh at once.
    browser.press("q" if wanted[7][0] else "a")
    browser.refresh()
    browser.wait(READY)
    browser.wait(f"{SHOWN} === 'image/7'")
    assert browser.run("document.querySelectorAll('#answers [aria-pressed=true]').length") == 1
    browser.press("w" if wanted[7][1] else "s")
    for number in range(8, 12):
        label(number)
    browser.wait(f"{SHOWN} === 'image/12' && {SAVED}")
    browser.press("a")  # half an answer, then the server is killed
    browser.wait(SAVED)
    command.kill()
    browser.wait("!document.querySelector('#problem').hidden", "the page tells that the server is gone")
    browser.press("s")  # refused: nothing is labelled into the void
    command = start(pictures, out)
    browser.open(command.url)
    browser.wait(READY)
    browser.wait(f"{SHOWN} === 'image/12'")
    for number in range(12, 20):
        label(number)
    browser.wait("!document.querySelector('#done').hidden")
    browser.wait(SAVED)
    result = command.end()
    assert (result["labelled"], result["partly"], result["labelled_now"]) == (20, 0, 8)
    table = read_labels(out)
    found = {
        int(n): (int(q), int(g)) for n, q, g in zip(table.numbers, table.of("quality"), table.of("gender"), strict=True)
    }
    assert found == wanted
    assert sorted(path.name for path in tmp_path.glob("labels.csv*")) == ["labels.csv"]


@pytest.mark.slow
def test_buttons_modes_skips_and_two_tabs(
    browser: Browser, start: Callable[..., PageCommand], pictures: Path, tmp_path: Path
) -> None:
    for number in range(4, 20):
        (pictures / f"{number:06d}.jpg").unlink()
    (pictures / "000002.jpg").write_bytes(b"damaged")
    out = tmp_path / "labels.csv"
    command = start(pictures, out, ",".join(V3), free_port())
    browser.open(command.url)
    browser.wait(READY)
    first = browser.handle
    # By mouse alone.
    for name, value in (("gender", 1), ("quality", 1), ("age", 0), ("glass", 0)):
        browser.click(f"#answers button[data-name={name}][data-value='{value}']")
    browser.wait(f"{SHOWN} === 'image/1'")
    browser.press("x")  # skip picture 1, it comes last
    browser.wait(f"{SHOWN} === 'image/2' && !document.querySelector('#broken').hidden")
    assert "damaged" in browser.run("document.querySelector('#broken').textContent")
    # One attribute at a time, by arrows: gender of 2, 3, then 1.
    browser.press("m")
    browser.wait("document.querySelector('#answers .asked').dataset.name === 'gender'")
    browser.press("up", "down", "up")
    browser.wait("document.querySelector('#answers .asked').dataset.name === 'quality'", "the next attribute is asked")
    browser.press("m")
    browser.wait(SAVED)
    # A second tab sees it, labels picture 2, and the first tab learns of it.
    browser.tab()
    browser.open(command.url)
    browser.wait(READY)
    browser.wait(f"{SHOWN} === 'image/2'")
    browser.press("w", "e", "r")
    browser.wait(SAVED)
    browser.turn_to(first)
    browser.wait("document.querySelector('#count').textContent.startsWith('2 of 4')", "the first tab learns of it")
    browser.press("?")
    browser.wait("document.querySelector('#keys').open")
    browser.press("3")
    browser.run("document.querySelector('#jump').requestSubmit()")
    browser.wait(f"{SHOWN} === 'image/3'")
    # Keys off: letters do nothing, buttons do.
    browser.run("document.querySelector('#single').click()")
    browser.press("w")
    assert browser.run("document.querySelectorAll('#answers [aria-pressed=true]').length") == 1
    browser.run("document.querySelector('#single').click()")
    browser.press("w", "d", "f")
    browser.wait(f"{SHOWN} === 'image/1'", "skipped pictures come last")
    browser.press("z")
    browser.wait("document.querySelector('#frame').classList.contains('zoomed')")
    browser.press("s", "d", "f")
    browser.wait(SAVED)
    assert command.end()["ones"] == {"gender": 3, "quality": 3, "age": 1, "glass": 1}
    assert out.read_text() == "idx,gender,quality,age,glass\n0,1,1,0,0\n1,1,0,0,0\n2,1,1,1,1\n3,0,1,0,0\n"


def test_requests_that_are_none_are_answered_with_an_error(server: LabelServer) -> None:
    own = f"Host: 127.0.0.1:{server.port}\r\n"
    post = f"POST /{server.token}/api/undo HTTP/1.1\r\n{own}Content-Type: application/json\r\nContent-Length: "
    for request, status in (
        (f"GET http://[ HTTP/1.1\r\n{own}\r\n", b"400"),
        (f"{post}{'9' * 5000}\r\n\r\n", b"413"),
        (f"{post}\u0663\r\n\r\n", b"413"),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(request.encode())
            assert connection.recv(4096).split()[1] == status
