"""The labelling page's server: Python's own HTTP server on 127.0.0.1, for one person, without any other network.

Everything lies below a random token in the address, so that no other page of the browser and no other user of the
machine can read pictures or write labels; requests with a foreign Host or Origin are refused (DNS rebinding). Pictures
are served by number, never by path.

    GET  /TOKEN/                 the page          GET  /TOKEN/api/state            all labels
    GET  /TOKEN/image/NUMBER     one picture       GET  /TOKEN/api/changes?since=R  what other tabs did
    POST /TOKEN/api/label        {client, order, number, attribute, value, seen}
    POST /TOKEN/api/undo         {client}          POST /TOKEN/api/skip             {number, skipped}
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import socketserver
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ohlora.errors import BadRequest, ImageError, OhloraError, OutputError
from ohlora.images import encode_image, read_image
from ohlora.training.label_page.attributes import Attribute
from ohlora.training.label_page.store import LabelStore

HOST = "127.0.0.1"
MAX_BODY = 4096
IDLE_SECONDS = 60
HERE = Path(__file__).parent
PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "keys.js": ("keys.js", "text/javascript; charset=utf-8"),
    "saving.js": ("saving.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
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


class LabelServer(ThreadingHTTPServer):
    """Serves one store. `url` is the page's address; `serve_forever` runs until `shutdown` or an exception."""

    daemon_threads = True
    # A killed server's port can be used again at once.
    allow_reuse_address = True

    def __init__(self, store: LabelStore, attributes: Sequence[Attribute], port: int = 0) -> None:
        self.store, self.attributes = store, tuple(attributes)
        self.token = secrets.token_urlsafe(18)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise BadRequest(
                f"cannot listen on {HOST}:{port} ({error}): choose another --port, 0 takes a free one"
            ) from error

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the host's name, which can take seconds and leaves the machine.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers drop connections when a page is left: nothing to tell."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
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

    def _answer(self, work: Callable[[str, str], tuple[int, str, bytes]]) -> None:
        try:
            target = self._require_own()
            status, kind, data = work(target.path.split("/", 2)[2], target.query)
        except _Refused as refused:
            status, kind, data = refused.status, "application/json", _json({"error": str(refused)})
        except OutputError as error:
            status, kind, data = 507, "application/json", _json({"error": str(error)})
        except OhloraError as error:
            status, kind, data = 400, "application/json", _json({"error": str(error)})
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

    def _require_own(self) -> Any:
        """The split target of a request that came from our own page. Nothing is said to others about what is wrong."""
        own = {f"{name}:{self.server.port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host", "").lower() not in own or origin not in (None, *(f"http://{name}" for name in own)):
            raise _Refused(403, "this page is served to 127.0.0.1 only")
        target = urlsplit(self.path)
        token, _, rest = target.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(403, "open the address that `ohlora train label` printed")
        if not target.path.startswith(f"/{token}/") or ".." in rest.split("/"):
            raise _Refused(404, "no such page")
        return target

    def _get(self, path: str, query: str) -> tuple[int, str, bytes]:
        if path in PAGE:
            name, kind = PAGE[path]
            return 200, kind, (HERE / name).read_bytes()
        if path.startswith("image/"):
            return self._image(path.removeprefix("image/"))
        if path == "api/state":
            state = self.server.store.state()
            out = self.server.store.out
            state |= {"attributes": [asdict(one) for one in self.server.attributes], "out": out.name}
            return 200, "application/json", _json(state)
        if path == "api/changes":
            since = parse_qs(query).get("since", ["0"])[0]
            if not since.isdecimal():
                raise _Refused(400, "since must be a number")
            return 200, "application/json", _json(self.server.store.changes(int(since)))
        raise _Refused(404, "no such page")

    def _image(self, number: str) -> tuple[int, str, bytes]:
        path = self.server.store.pictures.get(int(number)) if number.isdecimal() and len(number) < 19 else None
        if path is None:
            raise _Refused(404, "no such picture")
        try:
            data = path.read_bytes()
            kind = next((kind for start, kind in SHOWN.items() if data.startswith(start)), None)
            if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
                kind = "image/webp"
            if kind is None:
                kind, data = "image/png", encode_image(read_image(path), "png")
        except (OSError, ImageError) as error:
            raise _Refused(422, f"{path.name} cannot be shown: {error}") from error
        return 200, kind, data

    def _post(self, path: str, query: str) -> tuple[int, str, bytes]:
        body, store = self._body(), self.server.store
        client = body.get("client", "")
        number: Any = body.get("number")  # the store says what is wrong with these
        attribute: Any = body.get("attribute")
        if not isinstance(client, str) or len(client) > 64:
            raise _Refused(400, "client must be a short text")
        if path == "api/label":
            order, seen = body.get("order"), body.get("seen")
            if not isinstance(order, int) or not (seen is None or isinstance(seen, int)):
                raise _Refused(400, "order and seen must be whole numbers")
            change = store.label(client, order, number, attribute, body.get("value"), seen)
            return 200, "application/json", _json(asdict(change))
        if path == "api/undo":
            undone = store.undo(client)
            return 200, "application/json", _json({"change": None if undone is None else asdict(undone)})
        if path == "api/skip":
            store.skip(number, bool(body.get("skipped")))
            return 200, "application/json", _json({"revision": store.revision})
        raise _Refused(404, "no such page")

    def _body(self) -> dict[str, Any]:
        # A page of another origin cannot send this type without asking first, and nobody answers its question.
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise _Refused(415, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise _Refused(413, f"send at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "send valid JSON") from error
        if not isinstance(body, dict):
            raise _Refused(400, "send a JSON object")
        return body


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
