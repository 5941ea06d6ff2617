"""The server of a page for one person: Python's own HTTP server on 127.0.0.1, without any other network.

Everything lies below a random token in the address, so that no other page of the browser and no other user of the
machine can read pictures or write anything; requests with a foreign Host or Origin are refused (DNS rebinding). Files
are served by a list of names and pictures by number, never by path.

    GET  /TOKEN/                 the page          GET  /TOKEN/api/state            everything that is decided
    GET  /TOKEN/image/NAME       one picture       GET  /TOKEN/api/changes?since=R  what other tabs did
    POST /TOKEN/api/undo         {client}          POST /TOKEN/api/...              what the subclass offers
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import secrets
import socket
import socketserver
import sys
import webbrowser
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from ohlora.errors import ImageError, InvalidInputError, OhloraError, OutputError
from ohlora.io.images import encode_image, read_image
from ohlora.io.marking import read_mark
from ohlora.training.pages.local.cells import CellStore

HOST = "127.0.0.1"
MAX_BODY = 4096
IDLE_SECONDS = 60
HERE = Path(__file__).parent
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FRAME_FILES = ("frame.css", "frame.js", "saving.js", "zoom.js", "icon.svg")
# What every browser shows. Other kinds, and files that are named so and are not, are decoded and sent as PNG.
SHOWN = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Page:
    """A page inside the common frame. name: in words. command: that starts it. folder: has its `files` and main.html.

    bar: what its progress bar counts. thing: what a number names ("picture").
    """

    title: str
    name: str
    command: str
    folder: Path
    files: tuple[str, ...]
    bar: str
    thing: str

    def html(self) -> bytes:
        """frame.html around this page's main.html."""
        frame = Template((HERE / "frame.html").read_text(encoding="utf-8"))
        main = (self.folder / "main.html").read_text(encoding="utf-8").strip()
        return frame.substitute(title=self.title, bar=self.bar, thing=self.thing, main=main).encode()

    def file(self, name: str) -> Path | None:
        """Where a file of the page or of the frame lies, None for every other name."""
        if name in self.files:
            return self.folder / name
        return HERE / name if name in FRAME_FILES else None


class RefusedError(OhloraError):
    """A request that is answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PageServer(ThreadingHTTPServer, ABC):
    """Serves one page and its store. `url` is the address; `serve_forever` runs until `shutdown` or an exception.

    Subclasses say where pictures lie, what the page is told at the start and which requests write.
    """

    daemon_threads = True
    # A killed server's port can be used again at once.
    allow_reuse_address = True

    def __init__(self, page: Page, store: CellStore[Any], port: int = 0) -> None:
        self.page, self._store = page, store
        self.token = secrets.token_urlsafe(18)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InvalidInputError(
                f"cannot listen on {HOST}:{port} ({error}): choose another --port, 0 takes a free one"
            ) from error

    @abstractmethod
    def picture(self, name: str) -> Path | None:
        """The file of image/NAME; None when there is none of that name."""

    def state(self) -> dict[str, Any]:
        """What the page is told at the start."""
        return self._store.state()

    @abstractmethod
    def post(self, path: str, client: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Do what a request asks; None for a path that does not exist. Raises RefusedError, OhloraError."""

    def changes(self, since: int) -> dict[str, Any]:
        return self._store.changes(since)

    def undo(self, client: str) -> dict[str, Any]:
        undone = self._store.undo(client)
        return {"change": None if undone is None else asdict(undone)}

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"

    def run(self, so_far: str, open_browser: bool) -> None:
        """Say so_far and where the page is on standard error, open it if asked, and serve until Ctrl-C."""
        print(
            f"{so_far}\n{self.page.name}: {self.url}\nonly this machine can open it; Ctrl-C ends, everything is saved",
            file=sys.stderr,
            flush=True,
        )
        if open_browser:
            webbrowser.open(self.url)
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the host's name, which can take seconds and leaves the machine.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers drop connections when a page is left: nothing to tell."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def number_in(text: str) -> int | None:
    """The number a picture's name is, None for anything else."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def write_order(body: dict[str, Any]) -> tuple[int, int | None]:
    """(order, seen) of a request that writes a cell. Raises RefusedError."""
    order, seen = body.get("order"), body.get("seen")
    if not isinstance(order, int) or not (seen is None or isinstance(seen, int)):
        raise RefusedError(400, "order and seen must be whole numbers")
    return order, seen


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "ohlora"
    sys_version = ""
    timeout = IDLE_SECONDS

    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent: every key press is a request, and the address holds the token."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[str, str], tuple[str, bytes]]) -> None:
        try:
            target = self._require_own()
            status, (kind, data) = 200, work(target.path.split("/", 2)[2], target.query)
        except OhloraError as error:
            status = error.status if isinstance(error, RefusedError) else 507 if isinstance(error, OutputError) else 400
            kind, data = _json({"error": str(error)})
        if status >= 400 and self.command == "POST":
            self.close_connection = True  # the body may not have been read
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "private, max-age=3600" if kind.startswith("image/") else "no-store")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _require_own(self) -> SplitResult:
        """The split target of a request that came from our own page. Nothing is said to others about what is wrong."""
        own = {f"{name}:{self.server.port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host", "").lower() not in own or origin not in (None, *(f"http://{name}" for name in own)):
            raise RefusedError(403, "this page is served to 127.0.0.1 only")
        try:
            target = urlsplit(self.path)
        except ValueError as error:
            raise RefusedError(400, "the address of this request is none") from error
        token, _, rest = target.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError(403, f"open the address that `{self.server.page.command}` printed")
        if not target.path.startswith(f"/{token}/") or ".." in rest.split("/"):
            raise RefusedError(404, "no such page")
        return target

    def _get(self, path: str, query: str) -> tuple[str, bytes]:
        page = self.server.page
        if not path:
            return "text/html; charset=utf-8", page.html()
        if (file := page.file(path)) is not None:
            return KINDS[file.suffix], file.read_bytes()
        if path.startswith("image/"):
            return self._image(path.removeprefix("image/"))
        if path == "api/state":
            return _json(self.server.state())
        if path == "api/changes":
            since = number_in(parse_qs(query).get("since", ["0"])[0])
            if since is None:
                raise RefusedError(400, "since must be a number")
            return _json(self.server.changes(since))
        raise RefusedError(404, "no such page")

    def _image(self, name: str) -> tuple[str, bytes]:
        path = self.server.picture(name)
        if path is None:
            raise RefusedError(404, "no such picture")
        try:
            data = path.read_bytes()
            kind = next((kind for start, kind in SHOWN.items() if data.startswith(start)), None)
            if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
                kind = "image/webp"
            if kind is None:
                kind, data = "image/png", encode_image(read_image(path), "png", mark=read_mark(path))
        except (OSError, ImageError) as error:
            raise RefusedError(422, f"{path.name} cannot be shown: {error}") from error
        return kind, data

    def _post(self, path: str, query: str) -> tuple[str, bytes]:
        body = self._body()
        client = body.get("client", "")
        if not isinstance(client, str) or len(client) > 64:
            raise RefusedError(400, "client must be a short text")
        answer = self.server.undo(client) if path == "api/undo" else self.server.post(path, client, body)
        if answer is None:
            raise RefusedError(404, "no such page")
        return _json(answer)

    def _body(self) -> dict[str, Any]:
        # A page of another origin cannot send this type without asking first, and nobody answers its question.
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise RefusedError(415, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY:
            raise RefusedError(413, f"send at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "send valid JSON") from error
        if not isinstance(body, dict):
            raise RefusedError(400, "send a JSON object")
        return body


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()
