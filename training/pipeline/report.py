"""report.json and report.html of a run: what every stage counted and measured, its time, curves and pictures.

`figures` holds what follows from settings and inputs alone, so two runs of the same settings can be compared;
`timings` what depends on the machine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ohlora.base.atomic import write_bytes, write_json
from ohlora.io.images import encode_image, read_image
from ohlora.io.marking import read_mark
from ohlora.photos.segmentation import resize_area
from ohlora.training.pipeline import exhibits
from ohlora.training.pipeline.cache import deciding
from ohlora.training.pipeline.engine import StageState
from ohlora.training.pipeline.settings import Section

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
PICTURE_WIDTH = 1200  # pixels; larger grids are made smaller
# Titles of the tables of effects, and how the figures end that stand in them.
EFFECTS = {
    "Correlation of the label with the property CNN's score, before and after": " correlation",
    "Mean absolute error between the two": " mae",
    "Mean score of the classifiers": " score",
}
STYLE = """
body{font:15px/1.45 sans-serif;max-width:1250px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .7em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}h2{margin-top:2em}h3{margin:1.2em 0 .3em}
img{max-width:100%}.row{display:flex;flex-wrap:wrap;gap:12px}.dim{color:#777}
"""


def make_report(states: Mapping[str, StageState], settings: Section) -> dict[str, Any]:
    """Everything the run has to show, as JSON values. Stages that are not up to date appear without figures."""
    stages, figures, timings, exhibits = [], {}, {}, {}
    for name, state in states.items():
        done = state.done
        stages.append({"name": name, "about": state.stage.about, "made": done is not None, "why": state.why})
        if done is not None:
            figures[name], exhibits[name] = dict(done.figures), dict(done.exhibits)
            timings[name] = {"seconds": done.seconds, "state": state.state, **done.timings}
    warnings = [f"{name}: {values['warning']}" for name, values in figures.items() if "warning" in values]
    sections = {name: deciding(settings, name) for name in type(settings).model_fields if name != "machine"}
    return {
        "preset": getattr(settings, "preset", ""),
        "settings": sections,
        "stages": stages,
        "warnings": warnings,
        "figures": figures,
        "timings": timings,
        "exhibits": exhibits,
    }


def write_report(out: Path, states: Mapping[str, StageState], settings: Section) -> dict[str, Any]:
    """Write both files into `out`; returns what report.json holds."""
    report = make_report(states, settings)
    write_json(out / REPORT_JSON, report)
    write_bytes(out / REPORT_HTML, as_html(out, report).encode())
    return report


def as_html(out: Path, report: Mapping[str, Any]) -> str:
    """One file without links to others. out: the run's folder, whose pictures go into it."""
    title = f"Training pipeline, preset {escape(str(report['preset']))}"
    made = [stage["name"] for stage in report["stages"] if stage["made"]]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title}</h1>",
        *(f"<p><b>Warning: {escape(text)}</b></p>" for text in report["warnings"]),
        effects(report["figures"]),
        "<h2>Stages</h2>",
        stage_table(report),
    ]
    for name in made:
        parts.append(stage_part(out, name, report))
    parts.append(f"<h2>Settings</h2><pre>{escape(json.dumps(report['settings'], indent=1))}</pre></html>\n")
    return "\n".join(parts)


def effects(figures: Mapping[str, Any]) -> str:
    """What the fine-tunings changed, "before to after": a table a kind of figure, a row a stage that measured it."""
    measured = {name: values["effect"] for name, values in figures.items() if values.get("effect")}
    parts = []
    for title, ending in EFFECTS.items():
        names = list(dict.fromkeys(what for rows in measured.values() for what, _, _ in rows if what.endswith(ending)))
        rows = []
        for stage, entries in measured.items():
            found = {what: f"{_short(before)} to {_short(after)}" for what, before, after in entries}
            if any(name in found for name in names):
                rows.append([stage, *(found.get(name, "") for name in names)])
        if rows:
            parts.append(f"<p>{title}</p>" + table(("stage", *(n.removesuffix(ending).strip() for n in names)), rows))
    return f"<h2>Measured effect</h2>{''.join(parts)}" if parts else ""


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def stage_table(report: Mapping[str, Any]) -> str:
    rows = []
    for stage in report["stages"]:
        timing = report["timings"].get(stage["name"])
        state = timing["state"] if timing else f"not made ({stage['why']})" if stage["why"] else "not made"
        counts = report["figures"].get(stage["name"], {}).get("counts", {})
        shown = ", ".join(f"{value:,} {what}" for what, value in counts.items())
        rows.append([stage["name"], stage["about"], shown, state, timing["seconds"] if timing else None])
    total = sum(timing["seconds"] for timing in report["timings"].values())
    rows.append(["", "", "", "all", total])
    return table(("stage", "what", "counts", "this call", "seconds"), rows, digits=1)


def stage_part(out: Path, name: str, report: Mapping[str, Any]) -> str:
    """Figures, tables, charts and pictures of one stage; nothing when it has none."""
    figures, shown = report["figures"][name], report["exhibits"][name]
    plain = [[key, value] for key, value in figures.items() if isinstance(value, int | float | str)]
    parts = [table(("", ""), plain) if plain else ""]
    parts += [f"<h3>{escape(t['title'])}</h3>" + table(t["columns"], t["rows"]) for t in shown.get("tables", ())]
    drawn = [exhibits.curve(entry) for entry in shown.get("curves", ())]
    drawn += [exhibits.histogram(entry) for entry in shown.get("histograms", ())]
    if any(drawn):
        parts.append(f'<div class="row">{"".join(drawn)}</div>')
    for entry in shown.get("pictures", ()):
        parts.append(f"<h3>{escape(entry['title'])}</h3>" + picture(out / name / entry["file"], entry["title"]))
    body = "".join(parts)
    return f'<h2 id="{escape(name)}">{escape(name)}</h2>{body}' if body else ""


def picture(path: Path, title: str) -> str:
    image = read_image(path)
    if image.shape[1] > PICTURE_WIDTH:
        height = round(image.shape[0] * PICTURE_WIDTH / image.shape[1])
        image = resize_area(image, (height, PICTURE_WIDTH))
    data = base64.b64encode(encode_image(image, "jpeg", 90, mark=read_mark(path))).decode()
    return f'<img alt="{escape(title)}" src="data:image/jpeg;base64,{data}">'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 4) -> str:
    head = "".join(f"<th>{escape(str(column))}</th>" for column in columns) if any(columns) else ""
    body = "".join(f"<tr>{''.join(cell(value, digits) for value in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def cell(value: Any, digits: int) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape(str(value))}</td>"
    return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f'<td class="n">{value:.{digits}f}</td>'
