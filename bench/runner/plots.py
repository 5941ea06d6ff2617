"""Plots of a run: how many times the baseline by technique, the scaling curve, the roofline. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from ohlora.base.atomic import atomic_path, make_folder
from ohlora.bench.runner.records import Row, Run

COLOR, FAINT = "#2b6cb0", "#a0aec0"


def draw(run: Run, out: Path) -> list[str]:
    """Write the plots that the run allows into `out`/plots; their names. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "ohlora", "svg.fonttype": "none"}  # equal runs, equal files; text as text
    from matplotlib import pyplot

    plots: dict[str, Callable[[Any, list[Row]], bool]] = {
        "techniques": techniques,
        "scaling": scaling,
        "roofline": roofline,
    }
    made = []
    for name, plot in plots.items():
        figure = pyplot.figure(figsize=(9, 5), layout="constrained")
        if plot(figure, run.rows):
            make_folder(out / "plots")
            with atomic_path(out / "plots" / f"{name}.svg") as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None})
            made.append(f"plots/{name}.svg")
        pyplot.close(figure)
    return made


def techniques(figure: Any, rows: list[Row]) -> bool:
    """Bars: times the baseline, a panel for each group."""
    panels = []
    for suite in ("rewrites", "kernels", "engines", "pipeline"):
        mine = [row for row in rows if row.suite == suite and row.times_baseline is not None]
        for group, members in groupby(mine, key=lambda row: row.group):
            panels.append((group, [(row.name, row.times_baseline) for row in members]))
    if not panels:
        return False
    figure.set_size_inches(11, max(4, 0.34 * sum(len(bars) + 2 for _, bars in panels)))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[len(bars) + 1 for _, bars in panels])[:, 0]
    for ax, (group, bars) in zip(axes, panels, strict=True):
        names, values = zip(*reversed(bars), strict=True)
        ours = [COLOR if name.startswith(("ohlora", "Numba")) else FAINT for name in names]
        drawn = ax.barh(names, values, color=ours)
        ax.bar_label(drawn, fmt="%.3gx", padding=3)
        ax.set_title(group, loc="left", fontsize=10)
        ax.set_xlim(right=1.15 * max(values))
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("times the baseline's speed")
    return True


def scaling(figure: Any, rows: list[Row]) -> bool:
    """Milliseconds an item and peak memory by the number of items."""
    mine = [row for row in rows if row.suite == "scaling" and "items" in row.facts]
    if len(mine) < 2:
        return False
    items = [row.facts["items"] for row in mine]
    left, right = figure.subplots(1, 2)
    left.plot(items, [row.ms for row in mine], marker="o", color=COLOR)
    left.set(xscale="log", yscale="log", xlabel="items of the job", ylabel="milliseconds an item", title="time")
    right.plot(items, [row.facts["peak_mb"] for row in mine], marker="o", color=COLOR)
    right.set(xscale="log", xlabel="items of the job", ylabel="peak resident MB", title="memory")
    right.set_ylim(bottom=0)
    return True


def roofline(figure: Any, rows: list[Row]) -> bool:
    """Achieved operations against the measured ceilings of arithmetic and memory."""
    ceilings = {row.name: row for row in rows if row.suite == "roofline" and "ceiling" in row.facts}
    points = [row for row in rows if row.suite == "roofline" and "gflops" in row.facts]
    memory = ceilings.get("memory copy")
    if memory is None or not points:
        return False
    bandwidth = float(memory.facts["ceiling"])
    ax = figure.subplots()
    places = [10 ** (power / 20) for power in range(-20, 61)]
    for name, row in ceilings.items():
        if name == "memory copy":
            continue
        peak = float(row.facts["ceiling"])
        ax.plot(places, [min(peak, bandwidth * x) for x in places], label=f"{name}: {peak:,.0f} GFLOP/s")
    for row in points:
        ax.plot(row.facts["flops_per_byte"], row.facts["gflops"], "o")
        ax.annotate(row.name, (row.facts["flops_per_byte"], row.facts["gflops"]),
                    fontsize=7, xytext=(4, 4), textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="operations a byte of weights and activations", ylabel="GFLOP/s")
    ax.set_title(f"measured ceilings; memory {bandwidth:.1f} GB/s", loc="left", fontsize=10)
    ax.legend(fontsize=8)
    return True
