"""The selection page's server (see `pages.local.server`).

GET  /TOKEN/image/sheet/CASE, /TOKEN/image/original/CASE
POST /TOKEN/api/decide       {client, order, number, value: "keep", "drop" or null, seen}
POST /TOKEN/api/name         {client, order, number, value: text or null, seen}
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ohlora.base.values import PROPERTIES
from ohlora.training.pages.local.server import Page, PageServer, number_in, write_order
from ohlora.training.pages.select.report import Case
from ohlora.training.pages.select.store import SelectionStore

PAGE = Page(
    title="Select faces",
    name="selection page",
    command="ohlora train select",
    folder=Path(__file__).parent,
    files=("page.css", "page.js", "keys.js", "overview.js"),
    bar="Decided faces",
    thing="case",
)


class SelectServer(PageServer):
    """Serves the decisions of one store."""

    def __init__(self, store: SelectionStore, port: int = 0) -> None:
        self.store = store
        super().__init__(PAGE, store, port)

    def picture(self, name: str) -> Path | None:
        kind, _, rest = name.partition("/")
        number = number_in(rest)
        if number is None or number not in self.store.report.cases:
            return None
        find = {"sheet": self.store.report.sheet, "original": self.store.report.original}.get(kind)
        return None if find is None or not find(number).is_file() else find(number)

    def state(self) -> dict[str, Any]:
        cases = self.store.report.cases
        faces = [self._face(cases[number]) for number in self.store.shown]
        grids = self.store.report.grids
        return super().state() | {"faces": faces, "out": self.store.out.name, "grids": grids.name}

    def post(self, path: str, client: str, body: dict[str, Any]) -> dict[str, Any] | None:
        write = {"api/decide": self.store.decide, "api/name": self.store.rename}.get(path)
        if write is None:
            return None
        order, seen = write_order(body)
        number: Any = body.get("number")  # the store says what is wrong with these
        return asdict(write(client, order, number, body.get("value"), seen))

    def _face(self, case: Case) -> dict[str, Any]:
        report = self.store.report
        return {
            "number": case.number,
            "name": case.name,
            "group": report.group(case),
            "passed": case.passed,
            "correlations": {name: case.value(f"{name}_corr") for name in PROPERTIES},
            "sum": report.total(case),
            "leakage": {name: case.value(name) for name in report.leakage},
            "sheet": report.sheet(case.number).is_file(),
            "original": report.original(case.number).is_file(),
        }
