"""The labelling page's server (see `pages.local.server`).

GET  /TOKEN/image/NUMBER     one picture
POST /TOKEN/api/label        {client, order, number, attribute, value, seen}
POST /TOKEN/api/skip         {number, skipped}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ohlora.training.pages.label.attributes import Attribute
from ohlora.training.pages.label.store import LabelStore
from ohlora.training.pages.local.server import Page, PageServer, number_in, write_order

PAGE = Page(
    title="Label pictures",
    name="labelling page",
    command="ohlora train label",
    folder=Path(__file__).parent,
    files=("page.css", "page.js", "keys.js"),
    bar="Labelled pictures",
    thing="picture",
)


class LabelServer(PageServer):
    """Serves the labels of one store."""

    def __init__(self, store: LabelStore, attributes: Sequence[Attribute], port: int = 0) -> None:
        self.store, self.attributes = store, tuple(attributes)
        super().__init__(PAGE, store, port)

    def picture(self, name: str) -> Path | None:
        number = number_in(name)
        return None if number is None else self.store.pictures.get(number)

    def state(self) -> dict[str, Any]:
        attributes = [asdict(one) for one in self.attributes]
        return super().state() | {"attributes": attributes, "out": self.store.out.name}

    def post(self, path: str, client: str, body: dict[str, Any]) -> dict[str, Any] | None:
        number: Any = body.get("number")  # the store says what is wrong with these
        attribute: Any = body.get("attribute")
        if path == "api/label":
            order, seen = write_order(body)
            return asdict(self.store.label(client, order, number, attribute, body.get("value"), seen))
        if path == "api/skip":
            self.store.skip(number, bool(body.get("skipped")))
            return {"revision": self.store.revision}
        return None
