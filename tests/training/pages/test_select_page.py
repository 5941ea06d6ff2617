"""The selection page: the server serves one person only, a browser can drive it through kills and full disks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ohlora.bundle.gallery import read_gallery
from ohlora.errors import OutputError
from ohlora.training.pages.select import store as store_module
from ohlora.training.pages.select.report import read_report
from ohlora.training.pages.select.server import SelectServer
from ohlora.training.pages.select.store import SelectionStore
from tests.support.browser import Browser, PageCommand, ask
from tests.support.select_runs import GROUPS, TABLES, kept, make_run, written


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


# --- server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(run: Path) -> Iterator[SelectServer]:
    report = read_report(run)
    with SelectionStore(report, report.ordered(), run / "selected") as store, SelectServer(store) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_the_page_is_told_what_is_there(server: SelectServer) -> None:
    status, content, _ = ask(server, "GET", f"/{server.token}/api/state")
    state = json.loads(content)
    assert status == 200
    assert [face["number"] for face in state["faces"]] == [0, 2, 4, 6]
    assert [face["sheet"] for face in state["faces"]] == [True, True, True, False]
    assert state["faces"][1] == {
        "number": 2,
        "name": "case0002",
        "group": "lll",
        "passed": True,
        "correlations": {"eyes": -0.92, "mouth": -0.93, "pose": -0.91},
        "sum": 2.76,
        "leakage": {},
        "sheet": True,
        "original": True,
    }


def test_files_and_strangers(server: SelectServer) -> None:
    base = f"/{server.token}"
    for name in ("", "page.css", "page.js", "keys.js", "overview.js", "frame.css", "frame.js", "saving.js", "zoom.js"):
        status, content, headers = ask(server, "GET", f"{base}/{name}")
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert b"http://" not in content
        assert b"https://" not in content
    for name in ("image/sheet/2", "image/original/2"):
        assert ask(server, "GET", f"{base}/{name}")[2]["Content-Type"] == "image/jpeg"
    for name in ("image/sheet/6", "image/sheet/99", "image/2", "image/../run", "main.html", "frame.html", "store.py"):
        assert ask(server, "GET", f"{base}/{name}")[0] == 404, name
    assert ask(server, "GET", "/wrong/api/state")[0] == 403
    assert ask(server, "GET", f"{base}/api/state", Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("api/decide", {"client": "a", "order": 1, "number": 99, "value": "keep"}, 400),
        ("api/decide", {"client": "a", "order": 1, "number": 0, "value": "maybe"}, 400),
        ("api/decide", {"client": "a", "number": 0, "value": "keep"}, 400),
        ("api/name", {"client": "a", "order": 1, "number": 0, "value": ["x"]}, 400),
        ("api/label", {"client": "a", "order": 1, "number": 0}, 404),
    ],
)
def test_bad_requests_change_nothing(server: SelectServer, path: str, body: Any, status: int) -> None:
    got, content, _ = ask(server, "POST", f"/{server.token}/{path}", body)
    assert got == status
    assert json.loads(content)["error"]
    assert server.store.state()["rows"] == {}


# --- the command and a real browser ----------------------------------------------------------------------------------


SAVED = "document.querySelector('#saved').textContent === 'Saved'"


def text(selector: str) -> str:
    return f"document.querySelector('{selector}').textContent"


@pytest.fixture
def start(serve: Callable[..., PageCommand], run: Path) -> Callable[[], PageCommand]:
    return lambda: serve("select", run)


def test_faces_are_chosen_by_keys(browser: Browser, start: Callable[[], PageCommand], tmp_path: Path) -> None:
    run = tmp_path / "run"

    def shown(case: int) -> None:
        browser.wait(f"{text('#case')} === 'Case {case}' && {SAVED}", f"case {case}")

    command = start()
    browser.open(command.url)
    shown(0)
    assert browser.run(text("#marks")) == "hhl"
    facts = browser.run(text("#facts")).replace("\N{MINUS SIGN}", "-")
    assert facts == "Correlationeyes-0.9000mouth-0.9300pose-0.9100sum2.7400"
    assert browser.run(text("#eyes-low")).startswith("eyes open")
    browser.press("d")
    shown(2)
    browser.press("right")
    shown(4)
    assert kept(run) == [2]
    # The last decision was wrong: undo, drop; then look back and correct the first one.
    browser.press("u")
    shown(2)
    browser.press("left")
    shown(4)
    browser.press("p", "p")
    shown(0)
    browser.press("k")
    browser.wait(f"{SAVED} && document.querySelector('#keep').ariaPressed === 'true'")
    assert kept(run) == [0]
    # A name that cannot be, then one that can.
    browser.press("r", *"a/b", "enter")
    browser.wait(f"{text('#name-problem')}.includes('cannot be used')")
    browser.press("escape", "r", *"Mina", "enter")
    browser.wait(f"{SAVED} && {text('#live')} === 'Case 0 is named Mina.'")
    # A decision and a refresh at once.
    browser.press("n", "k")
    browser.refresh()
    shown(6)
    assert browser.run(text("#broken")) == "There is no sheet of case 6 in grids."
    assert kept(run) == [0, 4]
    command.kill()
    browser.wait("!document.querySelector('#problem').hidden", "the page tells that the server is gone")
    browser.press("k")  # refused: nothing is decided into the void
    assert browser.run(text("#case")) == "Case 6"
    command = start()
    browser.open(command.url)
    shown(6)
    browser.press("k")
    browser.wait("!document.querySelector('#overview').hidden", "all are decided")
    assert browser.run(text("#overview h2")) == "All 4 faces are decided"
    names = "[...document.querySelectorAll('#overview strong')].map((one) => one.textContent).join()"
    assert browser.run(names) == "Mina,case0004,case0006"
    browser.click("#lists button:nth-child(2)")
    assert browser.run(names) == "case0002"
    browser.click("#overview li button")
    shown(2)
    browser.press("o")
    browser.wait("!document.querySelector('#overview').hidden")
    browser.press("k", "escape")  # nothing is decided in the overview
    browser.wait("document.querySelector('#overview').hidden")
    assert command.end()["kept"] == [0, 4, 6]
    gallery = read_gallery(run / "selected" / "gallery.csv", 512, 7, GROUPS)
    assert [face.name for face in gallery] == ["Mina", "case0004", "case0006"]
    assert written(run) == [*TABLES, "selection.json"]


def test_an_error_of_saving_is_shown_and_tried_again(
    browser: Browser, server: SelectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.open(server.url)
    browser.wait(f"{text('#case')} === 'Case 0' && {SAVED}")
    full = threading.Event()
    full.set()
    true = store_module.write_tables

    def write(*arguments: Any) -> None:
        if full.is_set():
            raise OutputError("cannot write the tables: the disk is full")
        true(*arguments)

    monkeypatch.setattr(store_module, "write_tables", write)
    browser.press("k")
    browser.wait(f"{text('#problem')} === 'Not saved: cannot write the tables: the disk is full'")
    assert server.store.state()["rows"] == {}
    full.clear()
    browser.wait(f"{SAVED} && document.querySelector('#problem').hidden", "it is sent again")
    assert server.store.state()["rows"] == {0: {"decision": "keep"}}
