"""`ohlora train label`: label pictures by hand, on a page in the browser that this machine serves to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.cli.report import Told


def label(
    *,
    images: Annotated[Path, Argument(help="Folder of numbered pictures (000000.jpg ...).")],
    attributes: Annotated[str, Option(help="quality,gender (v1) or gender,quality,age,glass (v3).")] = "quality,gender",
    first: Annotated[int, Option(min=1, help="Label this many, those of the lowest numbers.")] = 2000,
    out: Annotated[Path, Option("--out", "-o", help="Table of labels (.csv or .csv.gz); it is gone on with.")] = (
        Path("labels.csv")
    ),
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    open_browser: Annotated[bool, Option("--open/--no-open", help="Open the page in the browser.")] = True,
    told: Told,
) -> None:
    """Label pictures by keys, two an attribute; every answer is saved at once. Ctrl-C ends, the same command goes on.

    Example: `ohlora train label runs/sample --attributes gender,quality,age,glass --out labels.csv`
    """
    from itertools import islice

    from ohlora.io.numbered_images import numbered_images
    from ohlora.training.pages.label.attributes import asked
    from ohlora.training.pages.label.server import LabelServer
    from ohlora.training.pages.label.store import LabelStore

    names = [name.strip() for name in attributes.split(",") if name.strip()]
    pictures = numbered_images(images)
    chosen = dict(islice(pictures.items(), first))
    with LabelStore(chosen, names, out, list(pictures)) as store, LabelServer(store, asked(names), port) as server:
        before = store.summary()
        server.run(f"{before['labelled']} of {before['pictures']} pictures are labelled in {out}", open_browser)
        result = store.summary()
    ones = ", ".join(f"{count} {name}" for name, count in result["ones"].items())
    rest = (
        f"; {result['partly']} partly, {result['skipped']} skipped" if result["labelled"] < result["pictures"] else ""
    )
    told.tell(
        {**result, "labelled_now": result["labelled"] - before["labelled"]},
        f"{result['labelled']} of {result['pictures']} pictures labelled (1: {ones}){rest} -> {out}",
    )
