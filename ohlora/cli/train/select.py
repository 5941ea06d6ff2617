"""`ohlora train select`: keep or drop the faces of a direction test, on a page in the browser or by case number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.cli.report import Told


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
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    open_browser: Annotated[bool, Option("--open/--no-open", help="Open the page in the browser.")] = True,
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
