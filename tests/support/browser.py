"""Pages for tests: their commands, plain requests, and a headless Chromium over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from ohlora.training.pages.local.server import PageServer

ROOT = Path(__file__).resolve().parents[2]

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
KEYS = {
    "left": "\ue012",
    "up": "\ue013",
    "right": "\ue014",
    "down": "\ue015",
    "backspace": "\ue003",
    "escape": "\ue00c",
    "enter": "\ue007",
}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of an element's identifier
# Long, for machines that do much else; nothing waits longer than it has to.
WAIT_SECONDS, CALL_SECONDS = 120.0, 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(server: PageServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """(status, body, headers); `path` from the root, headers by name with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    data = json.dumps(body).encode() if body is not None else None
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, response.headers


class PageCommand:
    """`ohlora train STAGE` that serves a page, as a process of its own; `url` is the page's address."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ohlora", "train", *arguments, "--no-open", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+", line):
                self.url = found[0]
                break
        assert self.url, "the command printed no address"

    def end(self) -> dict[str, Any]:
        """Ctrl-C; what it printed."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        result: dict[str, Any] = json.loads(out)
        return result

    def kill(self) -> None:
        """As a crash would; nothing when it has ended."""
        self.process.kill()
        self.process.wait(30)


class Browser:
    """One window of a fresh profile. Skips the test where Chromium or its driver is not installed."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        driver = shutil.which("chromedriver")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if driver is None or chromium is None:
            pytest.skip("needs chromium and chromedriver")
        port = free_port()
        self._base = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        options = {
            "binary": chromium,
            "args": [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"],
        }
        try:
            self._ready()
            capabilities = {"alwaysMatch": {"goog:chromeOptions": options, "unhandledPromptBehavior": "accept"}}
            session = self._call("POST", "/session", {"capabilities": capabilities})
        except BaseException:
            self._end()
            raise
        self._base += f"/session/{session['sessionId']}"

    def _ready(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=CALL_SECONDS) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._call("DELETE", "")
        self._end()

    def _end(self) -> None:
        """The driver and all that it started: they are a group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def refresh(self) -> None:
        self._call("POST", "/refresh", {})

    def press(self, *keys: str) -> None:
        """Press and release keys: characters, or names of KEYS."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, selector: str) -> None:
        element = self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._call("POST", f"/element/{element}/click", {})

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self._call("POST", "/execute/sync", {"script": f"return ({script})", "args": []})

    def wait(self, script: str, why: str = "") -> None:
        """Until the expression is true. Fails after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.run(script):
            assert time.monotonic() < deadline, f"never true: {script} {why}"
            time.sleep(0.02)

    def tab(self) -> str:
        """Open another tab of the same browser and go to it; returns its handle."""
        handle = str(self._call("POST", "/window/new", {"type": "tab"})["handle"])
        self.turn_to(handle)
        return handle

    @property
    def handle(self) -> str:
        return str(self._call("GET", "/window"))

    def turn_to(self, handle: str) -> None:
        self._call("POST", "/window", {"handle": handle})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
