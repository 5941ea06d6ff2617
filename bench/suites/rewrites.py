"""What each exact rewrite gains, one after the other, in OpenVINO (`rewrite_cases` has the other runtimes)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ohlora.bench.runner.records import Row
from ohlora.bench.runner.subjects import Options

NETWORKS = ("generator", "student")
DOCUMENTED = "documented"


def rewrite_rows(options: Options) -> Iterator[Row]:
    """One picture, two threads. Accuracy is the largest difference from the documented form in float64."""
    import torch

    from ohlora.bench.suites.rewrite_cases import CASES, run_case
    from ohlora.training.nets.effisegnet import SHIPPED_ENCODER

    for network in NETWORKS:
        with torch.no_grad():  # not over a yield, which would leave it on for others
            made = run_case(CASES[network](SHIPPED_ENCODER), say=lambda line: None)
        yield from (row_of(network, found) for found in made)


def row_of(network: str, found: dict[str, Any]) -> Row:
    """A row of `rewrite_cases`; those that are no part of the rows after them say so."""
    timed = found["openvino"]
    beside = f" ({found['beside']})" if found["beside"] else ""
    return Row(
        "rewrites", f"exact rewrites of the {network}, one after the other", f"{found['name']}{beside}", "picture",
        ms=timed["median_ms"], quartiles_ms=tuple(timed["quartiles_ms"]), rounds=timed["rounds"], baseline=DOCUMENTED,
        times_baseline=timed.get("times_first", 1.0), accuracy={"max_difference": timed["max_abs_error"]},
        facts={"gmac": round(found["macs"] / 1e9, 2)}, what=found["effect"],
    )  # fmt: skip
