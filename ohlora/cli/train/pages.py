"""`ohlora train label | select`: what people decide, on a page in the browser that this machine serves to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.cli.report import Told

Port = Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")]
OpenBrowser = Annotated[bool, Option("--open/--no-open", help="Open the page in the browser.")]


def label(
    *,
    images: Annotated[Path, Argument(help="Folder of numbered pictures (000000.jpg ...).")],
    attributes: Annotated[str, Option(help="quality,gender (v1) or gender,quality,age,glass (v3).")] = "quality,gender",
    first: Annotated[int, Option(min=1, help="Label this many, those of the lowest numbers.")] = 2000,
    out: Annotated[Path, Option("--out", "-o", help="Table of labels (.csv or .csv.gz); it is gone on with.")] = (
        Path("labels.csv")
    ),
    port: Port = 0,
    open_browser: OpenBrowser = True,
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


def select(
    *,
    run: Annotated[Path, Argument(help="Run folder of `ohlora train vectorfind`.")],
    keep: Annotated[
        str | None, Option(help="Keep these case numbers and drop the others, without a page: 12,40.")
    ] = None,
    everybody: Annotated[bool, Option("--all", help="Also the cases that did not pass the test.")] = False,
    order: Annotated[str, Option(help="case, sum (of correlations) or leakage.")] = "case",
    report: Annotated[
        Path | None, Option(help="Another folder of test results; default image_generation_report.")
    ] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="Default: RUN/selected; it is gone on with.")] = None,
    port: Port = 0,
    open_browser: OpenBrowser = True,
    restart: Annotated[bool, Option("--restart", help="Forget the decisions that --out holds.")] = False,
    told: Told,
) -> None:
    """Keep or drop tested faces by one key each; decisions are saved at once. Ctrl-C ends, the same command goes on.

    Example: `ohlora train select runs/vectorfind --order sum`
    """
    from ohlora.training.pages.select.report import read_report
    from ohlora.training.pages.select.server import SelectServer
    from ohlora.training.pages.select.store import SelectionStore

    tested = read_report(run, report)
    shown = tested.ordered(order, everybody)
    chosen = None if keep is None else _case_numbers(keep)
    with SelectionStore(tested, shown, run / "selected" if out is None else out, restart) as store:
        if chosen is not None:
            store.choose(chosen)
        else:
            before = store.summary()
            with SelectServer(store, port) as server:
                decided = before["cases"] - before["open"]
                server.run(f"{decided} of {before['cases']} faces are decided in {store.out}", open_browser)
        result = store.summary()
    rest = f", {result['open']} open" if result["open"] else ""
    told.tell(result, f"{len(result['kept'])} faces kept, {result['dropped']} dropped{rest} -> {result['out']}")


def _case_numbers(text: str) -> list[int]:
    """12,40,77 -> numbers. Raises InvalidInputError naming what is none."""
    from ohlora.errors import InvalidInputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not (part.isascii() and part.isdecimal())]
    if wrong or not parts:
        raise InvalidInputError(f"--keep takes case numbers such as 12,40,77, got '{wrong[0] if wrong else text}'")
    return [int(part) for part in parts]
